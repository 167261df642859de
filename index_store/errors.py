"""The one kind of error of `index_store` that people are shown, and what others' errors say."""

from __future__ import annotations


class StoreError(Exception):
    """One sentence for people: what is wrong, where, and what to do about it."""


def reason(error: BaseException) -> str:
    """The first line of what another library said, to stand inside a sentence of ours."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".: ")


def first_sentence(error: BaseException) -> str:
    """The same as a sentence of its own; an error that says nothing is called by its name."""
    said = reason(error)
    return said if said.endswith(("!", "?")) else f"{said}."
