"""Which rows are worth keeping, and what is cut from those that are.

Owns the rules of cleaning and the report of what they did. Does not know where rows come
from, nor what they are kept for.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator

from pydantic import BaseModel, ConfigDict

from index_store.dataset import Dialogue

TITLE_WIDTH = 120  # characters of a question that stand in for a missing title

_LINE_END = re.compile(r"\r\n?|[\v\f\x85\u2028\u2029]")
# Control characters, halves of surrogate pairs, and marks that are invisible or turn text round.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069"
    r"\ufeff\ud800-\udfff]"
)
_ARROW = re.compile(r"\s*(?<!-)-+(?:>|&gt;)+\s*(?:(?:https?://|www\.)\S*)?[\s.]*$")
_REFERRAL = re.compile(
    r"(?:\bfor (?:any )?(?:more|further|additional)(?: \w+){1,2},? (?:please )?consult"
    r"|(?:^|(?<=[.!?\n]))\s*(?:(?:please|kindly) )?(?:consult|revert)\b)"
    r"[^.!?\n]*\bonline\W*$",
    re.IGNORECASE,
)
_COURTESY = re.compile(
    r"(?:\W*\b(?:hi|hello|hey|dear|there|again|doctor|sir|madam|regards|take care"
    r"|welcome(?: back)?(?: to \S+)?"
    r"|thank(?:s| you)(?: for (?:your|the) (?:query|question))?"
    r"|(?:i )?hope (?:it|this|that) helps(?: you)?"
    r"|i (?:can|could) understand your \w+"
    r"|i (?:have|had) gone through your \w+(?: with diligence)?"
    r"(?: and would like you to know that i am here to help you)?)\b)*\W*",
    re.IGNORECASE,
)


class Cleaning(BaseModel):
    """How many rows were read, kept, and dropped for which reason."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    read: int
    kept: int
    dropped: dict[str, int]

    def __str__(self) -> str:
        dropped = ", ".join(f"{count} {why}" for why, count in self.dropped.items())
        return f"{self.read} read, {self.kept} kept" + (f", dropped: {dropped}" if dropped else "")


class Cleaner:
    """Keeps the good rows of a stream, and counts why the others were dropped.

    A question without a title gets its own beginning as the title; a title without a question
    is the question. Two rows are duplicates when question and reply differ in case and spaces
    at most; the first one stays.
    """

    def __init__(self) -> None:
        self._read = 0
        self._kept = 0
        self._dropped: Counter[str] = Counter()
        self._seen: set[int] = set()

    def know(self, dialogue: Dialogue) -> None:
        """Take note of a clean row that is kept already."""
        self._seen.add(_key(dialogue))

    def keep(self, rows: Iterable[Dialogue]) -> Iterator[Dialogue]:
        """Yield the good rows, cleaned, in their order."""
        for row in rows:
            self._read += 1
            title, patient, reply = (normalise(t) for t in (row.title, row.patient, row.doctor))
            doctor = strip_boilerplate(reply)
            title = " ".join(title.split()) or textwrap.shorten(
                patient, TITLE_WIDTH, placeholder=" ..."
            )
            dialogue = Dialogue(title, patient or title, doctor)
            key = _key(dialogue)
            if not dialogue.patient:
                self._dropped["empty or missing question"] += 1
            elif not reply:
                self._dropped["empty or missing reply"] += 1
            elif not doctor:
                self._dropped["boilerplate only"] += 1
            elif key in self._seen:
                self._dropped["duplicate"] += 1
            else:
                self._seen.add(key)
                self._kept += 1
                yield dialogue

    def report(self) -> Cleaning:
        """What has been done so far."""
        return Cleaning(read=self._read, kept=self._kept, dropped=dict(self._dropped))


def clean(rows: Iterable[Dialogue]) -> tuple[list[Dialogue], Cleaning]:
    """The good rows of a source that fits in memory, and the report."""
    cleaner = Cleaner()
    return list(cleaner.keep(rows)), cleaner.report()


def normalise(text: str) -> str:
    """One kind of line end, single spaces, no unseen characters; paragraphs stay.

    A text without one letter or digit is "".
    """
    text = _UNSEEN.sub("", _LINE_END.sub("\n", text))
    text = "\n".join(" ".join(line.split()) for line in text.split("\n"))
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    return text if re.search(r"\w", text) else ""


def strip_boilerplate(reply: str) -> str:
    """Cut the advertisement off a reply's end; "" if nothing but courtesies is left."""
    before = None
    while reply != before:
        before = reply
        reply = _REFERRAL.sub("", _ARROW.sub("", reply)).strip()
    return "" if _COURTESY.fullmatch(reply) else reply


def _key(dialogue: Dialogue) -> int:
    folded = Dialogue("", _folded(dialogue.patient), _folded(dialogue.doctor))
    return int(folded.id, 16)


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
