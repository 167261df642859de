"""The one kind of error that people are shown."""


class AgentError(Exception):
    """One sentence for people: what is wrong, where, and what to do about it."""
