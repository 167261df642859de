"""What of an LLM's stream may be shown already, word by word, and when a sentence has ended.

Owns that whole words go on at once, that a sentence with something to check waits for its end,
and that the citations which the LLM writes itself, [1], come out of the text. Does not know what is
checked, nor what becomes of a sentence that has ended.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from agent.chat.support import sentence_end, words_begin

# [1], [2, 3], and the space before; also one that is not whole yet, at the end of what there is.
_CITATION = re.compile(r"[ \t]?\[(\d{1,2}(?:\s?[,;]\s?\d{1,2})*)\]")
_BEGUN = re.compile(r"[ \t]?\[(?:\d[\d,; ]{0,10})?$")
BEHIND = 100  # characters that were shown and may belong to what comes


@dataclass(frozen=True)
class Words:
    """The next words, which may be shown."""

    text: str


@dataclass(frozen=True)
class Ended:
    """A sentence that has ended: all of it, what of it has not been shown, the space after it, and
    the sources that the LLM cited for it."""

    sentence: str
    rest: str
    space: str
    cited: tuple[int, ...]


@dataclass
class Gate:
    """Fed with an answer's text as it comes. `sentence` is the one that has not ended, as far as it
    has come; what there is of it at the beginning has been shown already. `holds` tells of the
    beginning of a sentence, behind the mark of a list's item, whether it has to wait for more."""

    holds: Callable[[str], bool]
    sentence: str = ""
    _shown: int = field(init=False)
    _cited: list[tuple[int, int]] = field(default_factory=list)  # where in `sentence`, and what
    _unread: str = ""

    def __post_init__(self) -> None:
        self._shown = len(self.sentence)

    @property
    def begun(self) -> str:
        """What has been shown of the sentence that has not ended."""
        return self.sentence[: self._shown]

    def push(self, text: str) -> Iterator[Words | Ended]:
        """What follows from the next piece of the stream."""
        self._read(text)
        while (end := sentence_end(self.sentence)) is not None:
            yield self._end(end)
        if words := self._go_on():
            yield Words(words)

    def close(self) -> Iterator[Ended]:
        """The stream has ended, and the sentence with it."""
        self.sentence += self._unread
        self._unread = ""
        while (end := sentence_end(self.sentence)) is not None:
            yield self._end(end)
        if self.sentence.strip() or self._cited:
            yield self._end(len(self.sentence))

    def _read(self, text: str) -> None:
        text = self.sentence[self._shown :] + self._unread + text
        place = self._shown
        for found in _CITATION.finditer(text):
            numbers = re.findall(r"\d+", found[1])
            self._cited += [(place + found.start(), int(number)) for number in numbers]
            place -= len(found[0])
        text = _CITATION.sub("", text)
        begun = _BEGUN.search(text)
        whole = begun.start() if begun else len(text)
        self.sentence = self.sentence[: self._shown] + text[:whole]
        self._unread = text[whole:]

    def _end(self, end: int) -> Ended:
        whole = self.sentence[:end]
        text = whole.rstrip()
        cited = tuple(number for place, number in self._cited if place <= end)
        ended = Ended(text, text[self._shown :], whole[len(text) :], cited)
        self.sentence = self.sentence[end:]
        self._shown = 0
        self._cited = [(place - end, number) for place, number in self._cited if place > end]
        return ended

    def _go_on(self) -> str:
        """The words that may be shown now. The space after them waits: a citation may come, and
        it would stand before a full stop."""
        whole = self.sentence[: self.sentence.rfind(" ") + 1].rstrip()
        if len(whole) <= self._shown:
            return ""
        begin = max(words_begin(f"{whole} "), self._shown - BEHIND)
        if self.holds(whole[begin:]):
            return ""
        words = whole[self._shown :]
        self._shown = len(whole)
        return words
