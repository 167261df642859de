"""The one kind of error that people are shown, and what any error is counted as."""


class AgentError(Exception):
    """One sentence for people: what is wrong, where, and what to do about it.

    `key` and `values` are what a page in another language says it by; an error without a key is
    one that patients cannot do anything about.
    """

    def __init__(self, sentence: str, key: str = "", **values: object) -> None:
        super().__init__(sentence)
        self.key = key
        self.values = values


def kind_of(error: Exception) -> str:
    """Its name for figures and traces, which hold no word of its text: that may quote a patient."""
    key = error.key if isinstance(error, AgentError) else ""
    return key or type(error).__name__
