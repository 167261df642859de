"""Which rows are worth keeping, and what is changed in those that are.

Owns the order of cleaning and the report of what it did. Does not know what an advertisement or
HTML is, where rows come from, nor what they are kept for.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator

from pydantic import BaseModel, ConfigDict

from index_store.boilerplate import is_courtesy, without_advertisements
from index_store.dataset import Dialogue
from index_store.faults import Faults
from index_store.markup import text_of

TITLE_WIDTH = 120  # characters of a question that stand in for a missing title

_LINE_END = re.compile(r"\r\n?|[\v\f\x85\u2028\u2029]")
# Control characters, halves of surrogate pairs, and marks that are invisible or turn text round.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069"
    r"\ufeff\ud800-\udfff]"
)
_MEANINGFUL = re.compile(r"\w")


class Cleaning(BaseModel):
    """How many rows were read, kept, changed and dropped, and for which reason."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    read: int
    kept: int
    dropped: dict[str, int]
    changed: dict[str, int] = {}

    def __str__(self) -> str:
        told = f"{self.read} read, {self.kept} kept"
        for what, counts in (("dropped", self.dropped), ("changed", self.changed)):
            if counts:
                told += f", {what}: " + ", ".join(f"{n} {why}" for why, n in counts.items())
        return told


class Cleaner:
    """Keeps the good rows of a stream, and counts why the others were dropped.

    A question without a title gets its own beginning as the title; a title without a question
    is the question. Two rows are duplicates when question and reply differ in case and spaces
    at most; the first one stays. With `as_is` no text is changed, and only what has no question,
    no reply or a double is dropped. `faults` are the rows that could not even be read.
    """

    def __init__(self, *, as_is: bool = False, faults: Faults | None = None) -> None:
        self._as_is = as_is
        self._faults = faults or Faults()
        self._read = 0
        self._kept = 0
        self._dropped: Counter[str] = Counter()
        self._changed: Counter[str] = Counter()
        self._seen: set[int] = set()
        self._known: dict[int, int] = {}  # by what makes a duplicate, the position
        self.shared: set[int] = set()  # positions of known rows that came again

    def know(self, dialogue: Dialogue, position: int) -> None:
        """Take note of a clean row that is kept already, at that position."""
        self._known[_key(dialogue)] = position

    def keep(self, rows: Iterable[Dialogue]) -> Iterator[Dialogue]:
        """Yield the good rows, cleaned, in their order."""
        for row in rows:
            self._read += 1
            texts, changes = [row.title, row.patient, row.doctor], []
            if not self._as_is:
                shown = [text_of(text) for text in texts]
                if shown != texts:
                    changes.append("HTML made text")
                texts = shown
            title, patient, reply = map(_storable if self._as_is else normalise, texts)
            doctor = reply if self._as_is else normalise(without_advertisements(reply))
            if doctor != reply:
                changes.append("advertisement cut")
            title = " ".join(title.split()) or _begun(patient)
            dialogue = Dialogue(title, patient or title, doctor)
            key = _key(dialogue)
            if why := self._unwanted(dialogue, reply):
                self._dropped[why] += 1
            elif (place := self._known.get(key)) is not None and place not in self.shared:
                self._dropped["held by another source already"] += 1
                self.shared.add(place)
            elif place is not None or key in self._seen:
                self._dropped["duplicate"] += 1
            else:
                self._seen.add(key)
                self._changed.update(changes)
                self._kept += 1
                yield dialogue

    def _unwanted(self, dialogue: Dialogue, reply: str) -> str | None:
        """Why a row is not to be kept. `reply` is what it had before advertisements were cut."""
        if not _MEANINGFUL.search(dialogue.patient):
            return "empty or missing question"
        if not _MEANINGFUL.search(reply):
            return "empty or missing reply"
        if not self._as_is and is_courtesy(dialogue.doctor):
            return "boilerplate only"
        return None

    def report(self) -> Cleaning:
        """What has been done so far."""
        unread = self._faults.counts
        return Cleaning(
            read=self._read + unread.total(),
            kept=self._kept,
            dropped=dict(self._dropped + unread),
            changed=dict(self._changed),
        )


def clean(
    rows: Iterable[Dialogue], faults: Faults | None = None
) -> tuple[list[Dialogue], Cleaning]:
    """The good rows of a source that fits in memory, and the report."""
    cleaner = Cleaner(faults=faults)
    return list(cleaner.keep(rows)), cleaner.report()


def normalise(text: str) -> str:
    """One kind of line end, single spaces, no unseen characters; paragraphs stay.

    A text without one letter or digit is "".
    """
    text = _UNSEEN.sub("", _LINE_END.sub("\n", text))
    text = "\n".join(" ".join(line.split()) for line in text.split("\n"))
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    return text if _MEANINGFUL.search(text) else ""


def _storable(text: str) -> str:
    """Halves of surrogate pairs are no text to a database."""
    return text.encode("utf-8", "replace").decode()


def _key(dialogue: Dialogue) -> int:
    folded = Dialogue("", _folded(dialogue.patient), _folded(dialogue.doctor))
    return int(folded.id, 16)


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _begun(text: str) -> str:
    """What stands for a title; some languages have no spaces between words."""
    cut = textwrap.shorten(text, TITLE_WIDTH, placeholder=" ...")
    return cut if cut != "..." else f"{text[: TITLE_WIDTH - 4]} ..."
