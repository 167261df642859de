"""When an answer is long enough.

Owns the rule by which an answer is ended at a sentence, so that a small model that finds no end is
not let run on, nor cut off in a word; and the strings that somebody wants it ended at. Knows
nothing of who writes it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# The share of its tokens that an answer may use before it ends with its next sentence.
ENOUGH = 0.75
_END = re.compile(r"[^\W\d_]{2,}[.!?][\"')\]]*\s*$|;\s*\n\s*$")  # of a sentence or a list's item
_BETWEEN = re.compile(r"(?<=[.!?:;])\s+")


def is_enough(answer: str, tokens: int, max_tokens: int) -> bool:
    """Whether `answer`, of so many tokens, should end here: its sentence or list item is whole,
    and it is nearly as long as it may be, or says a sentence again."""
    if _END.search(answer) is None:
        return False
    *before, last = said(answer)
    return tokens >= ENOUGH * max_tokens or last in before


def said(answer: str) -> list[str]:
    """Its sentences and list items, for telling whether one is said again; never none."""
    return _BETWEEN.split(answer.strip().lower())


class StopStrings:
    """Ends a text that comes in pieces before the first of some strings: that is `found`, then.

    What may be the beginning of one is `held` until the next piece tells, or the text ends.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = strings
        self.held = ""
        self.found: str | None = None

    def before(self, piece: str) -> str:
        """What can be said of the text so far that has not been."""
        text, self.held = self.held + piece, ""
        places = [(place, each) for each in self._strings if (place := text.find(each)) >= 0]
        if places:
            place, self.found = min(places)
            return text[:place]
        begun = (
            length
            for each in self._strings
            for length in range(1, min(len(each), len(text) + 1))
            if text.endswith(each[:length])
        )
        cut = len(text) - max(begun, default=0)
        self.held = text[cut:]
        return text[:cut]
