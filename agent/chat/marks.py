"""What stands in an answer besides the LLM's words: citations, and notes in place of sentences.

Owns their form, which page, terminal, endpoint and export show alike, and that no LLM is told of
them later: it would write its own. Does not know when they are set.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cache
from typing import get_args

from agent.chat.claims import ClaimKind
from agent.templates import Language, render

CITATION = re.compile(r" \[(\d{1,2})\]")
UNCHECKED = " [?]"  # after a sentence whose claim nobody bears (MEDRAFT_CLAIMS=marked)


def citation(numbers: Sequence[int]) -> str:
    """The mark of a sentence that these sources support: " [1] [2]"."""
    return "".join(f" [{number}]" for number in numbers)


def left_out(kinds: Collection[ClaimKind], language: Language, again: bool) -> str:
    """The note in place of a sentence with claims of these kinds; `again`: not the first one of
    its answer."""
    return render(f"left_out.{language}", kinds=sorted(kinds), again=again)


def without_marks(answer: str) -> str:
    """The LLM's own words in an answer."""
    return CITATION.sub("", without_notes(answer)).strip()


def without_notes(answer: str) -> str:
    """The LLM's own words in an answer, with their citations."""
    return _notes().sub("", answer).strip()


@cache
def _notes() -> re.Pattern[str]:
    notes = {
        left_out(kinds, language, again)
        for language in get_args(Language)
        for kinds in [(kind,) for kind in get_args(ClaimKind)]
        for again in (False, True)
    }
    marks = [re.escape(UNCHECKED), *(rf" … {re.escape(n)}|{re.escape(n)} ?" for n in notes)]
    return re.compile("|".join(sorted(marks, key=len, reverse=True)))
