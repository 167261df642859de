"""The one kind of error that people are shown."""


class AgentError(Exception):
    """One sentence for people: what is wrong, where, and what to do about it.

    `key` and `values` are what a page in another language says it by; an error without a key is
    one that patients cannot do anything about.
    """

    def __init__(self, sentence: str, key: str = "", **values: object) -> None:
        super().__init__(sentence)
        self.key = key
        self.values = values
