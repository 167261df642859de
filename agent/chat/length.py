"""When an answer is long enough.

Owns the rule by which an answer is ended at a sentence, so that a small model that finds no end is
not let run on, nor cut off in a word. Knows nothing of who writes it.
"""

from __future__ import annotations

import re

# The share of its tokens that an answer may use before it ends with its next sentence.
ENOUGH = 0.75
_END = re.compile(r"[^\W\d_]{2,}[.!?][\"')\]]*\s*$|;\s*\n\s*$")  # of a sentence or a list's item
_BETWEEN = re.compile(r"(?<=[.!?:;])\s+")


def is_enough(answer: str, tokens: int, max_tokens: int) -> bool:
    """Whether `answer`, of so many tokens, should end here: its sentence or list item is whole,
    and it is nearly as long as it may be, or says a sentence again."""
    return _END.search(answer) is not None and (
        tokens >= ENOUGH * max_tokens or _repeats_itself(answer)
    )


def _repeats_itself(answer: str) -> bool:
    *before, last = _BETWEEN.split(answer.strip().lower())
    return last in before
