"""Which sentence of an answer is supported by which retrieved reply.

Owns what a sentence is and the measure. Knows neither who retrieved the replies nor who shows
what is found.

A sentence of the answer is held against each sentence of each reply: the share of its content
words that stand there (K-Precision, Adlakha et al. 2024, arXiv 2307.16877, of several word measures
the one that agrees best with people on whether an answer keeps to its source), and the cosine of
the two embeddings, which sees the same thing said in other words. The best one supports it if the
score reaches a threshold, if every number and every medicine of the sentence stands in that reply,
and if the two do not say yes and no of the same words, nor contrary ones (`data/opposites.txt`);
what follows a negation within five words is negated (NegEx, Chapman et al. 2001). `python -m
benchmarks.support` measures it.

What it cannot see: an opposite that is not listed, cause and effect exchanged, another food or part
of the body in an otherwise equal sentence, and a sentence that only two replies together support.
Negations and opposites are English.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bm25s.stopwords import STOPWORDS_EN_PLUS, STOPWORDS_SPANISH

from agent.chat.medicines import named_in
from index_store.embedding import Embed

if TYPE_CHECKING:
    import numpy as np

OPPOSITES = Path(__file__).parent / "data" / "opposites.txt"
THRESHOLD = 0.5
WORDS_WEIGHT = 0.25  # the cosine has the rest
ENOUGH_WORDS = 0.6  # so great a share of the words decides alone, and nothing is embedded
CONTENT_WORDS = 2  # that a sentence must have to say anything
FEWEST_WORDS = 0.1  # share from which on a passage is looked at,
NEAREST = 2  # and how many of them
OPPOSED = 0.25  # share of the common words from which on yes and no contradict each other
ALIKE = 0.4  # share of the words in common from which on contrary words are of the same thing
NEGATED = 5  # words after a negation
STEM = 5  # letters: as good as a stemmer here, and for any language

Span = tuple[int, int]

# A line ends a sentence, unless its last word is followed by a small letter or a number in the next
# one. So does a full stop before a capital letter: neither "e.g. rest" nor "5 p.m. today" has one.
# Citations, [1], stand behind it.
_END = re.compile(
    r"(?:^|(?<=[^\w,*)\s]))[^\S\n]*\n\s*"
    r"|(?<=[\w,*)])[^\S\n]*\n(?:[^\S\n]*\n\s*|[^\S\n]*(?=[^\s\da-zß-ÿ]|\d{1,2}[.)]\s))"
    r"|(?<=[.!?…])[\"'\u201d\u2019)\]*_]*(?<!\bDr\.)(?<!\bMr\.)(?<!\bMrs\.)"
    r"(?: \[\d{1,2}\])*\s+"
    r"(?=[\"'\u201c\u2018(\[*_¿¡]*[^\W\d_a-zß-ÿ])"
)
_ITEM = re.compile(r"\s*(?:(?:\d{1,2}[.)]|[-*•\u2013])\s+)*")  # the mark of a list's item
_WORD = re.compile(r"\w+|[,;:]")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_EMPTY = frozenset((*STOPWORDS_EN_PLUS, *STOPWORDS_SPANISH))
_NEGATION = re.compile(
    r"no|not|never|none|nor|neither|without|cannot|avoid|stop|instead|rather"
    r"|(?:ca|do|does|did|is|are|was|wo|would|should|could|need|must|has|have)nt"
)


_ASIDE = re.compile(
    r"^\W*(?:hello|hi|dear|thanks?|welcome|sorry|i am sorry|i'm sorry|i understand|i hope"
    r"|good luck|take care|get well|here is what|please (?:tell|write|let|ask)|let me know"
    r"|doctors have (?:told others with a similar|answered similar)"
    r"|the(?:se)? replies (?:that i found|went to)"
    r"|write again|best wishes|regards|hola|gracias|lo siento|entiendo|espero|cu[ií]dese"
    r"|por favor,? (?:d[ií]ga|escr))"
    r"|\b(?:see|visit|consult|ask|call|ring|phone|tell|contact|talk to|speak (?:to|with)|seen by"
    r"|examined by|consulte|acuda|vaya|visite|llame|pregunte)\b.{0,40}\b(?:doctors?|gp|physician"
    r"|specialist|pharmacist|nurse|midwife|dentist|clinic|hospital|emergency|somebody|someone"
    r"|m[eé]dic[oa]|farmac[eé]utic[oa]|enfermer[oa]|urgencias|centro de salud)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Supported:
    """A sentence of the answer, from `start` to `end`, and the source that supports it best.

    `source` is its number, from 1, and `passage` where its sentence begins and ends; both are
    None if none supports it. `score` is at most 1. `also` are other sources that support it and
    that the sentence cites.
    """

    start: int
    end: int
    source: int | None
    passage: Span | None
    score: float
    also: tuple[int, ...] = ()


class Sources:
    """The replies that an answer is held against, sentence by sentence, as it comes."""

    def __init__(self, texts: Sequence[str], embed: Embed) -> None:
        self._embed = embed
        self._passages = [
            _Sentence(text, span, number)
            for number, text in enumerate(texts, start=1)
            for span in sentences(text)
        ]

    def support(self, text: str, cited: Sequence[int] = ()) -> Supported | None:
        """What supports a sentence: the sources that it cites, as far as they do, or else any. None
        if it says nothing. `start` is 0.

        What is taken from a source in its own words costs nothing; otherwise it is embedded, with
        the sentences of the sources that share words with it: call it off the event loop.
        """
        said = _Sentence(text, (0, len(text)))
        if len(said.words) < CONTENT_WORDS:
            return None
        each = [self._of(said, number) for number in dict.fromkeys(cited)]
        if bearing := [found for found in each if found.source is not None]:
            also = tuple(found.source for found in bearing[1:] if found.source is not None)
            return replace(bearing[0], also=also)
        return self._of(said, None)

    def _of(self, said: _Sentence, number: int | None) -> Supported:
        passages = [p for p in self._passages if number in (None, p.source)]
        near = _nearest(said, passages)
        if not near or near[0][0] >= ENOUGH_WORDS:
            return _best(said, near, {})
        texts = list(dict.fromkeys([said.text, *(passage.text for _, passage in near)]))
        return _best(said, near, dict(zip(texts, self._embed(texts), strict=True)))


def support(answer: str, sources: Sequence[str], embed: Embed) -> list[Supported]:
    """Every sentence of `answer` that says something, in order."""
    held = Sources(sources, embed)
    found = []
    for start, end in sentences(answer):
        if told := held.support(answer[start:end]):
            found.append(replace(told, start=start, end=end))
    return found


def sentence_end(text: str) -> int | None:
    """Where the second sentence of a text begins, or None if the first has not ended in it."""
    found = _END.search(text)
    return found.end() if found else None


def words_begin(text: str) -> int:
    """Where the words of a text begin: behind its space and the mark of a list's item, if any."""
    mark = _ITEM.match(text)
    return mark.end() if mark else 0


def states(sentence: str) -> bool:
    """Whether a sentence states something of medicine, and is no question, no courtesy and no
    advice to have oneself looked at, which need no source."""
    return not sentence.rstrip("\"'\u201d\u2019)*_ ").endswith("?") and not _ASIDE.search(sentence)


def sentences(text: str) -> Iterator[Span]:
    """Where the sentences of a text begin and end: without space around them, or the mark of a
    list's item before."""
    start = 0
    for match in (*_END.finditer(text), None):
        # What closes the sentence, such as a quotation mark, stands before the space.
        end = match.end() if match else len(text)
        begin = start + words_begin(text[start:end])
        if re.search(r"\w", text[begin:end]):
            yield begin, begin + len(text[begin:end].rstrip())
        start = end


def content_words(text: str) -> dict[str, bool]:
    """Stems of a sentence's content words, and whether they are negated."""
    stems: dict[str, bool] = {}
    left = 0
    for word in _WORD.findall(re.sub(r"['\u2019]", "", text.lower())):
        if word in ",;:":
            left = 0
        elif _NEGATION.fullmatch(word):
            left = NEGATED
        else:
            if word not in _EMPTY:
                stems[word[:STEM]] = left > 0
            left -= 1
    return stems


@dataclass(frozen=True)
class _Sentence:
    """A sentence of a text, with what it is compared by; `source` is the text's number."""

    whole: str
    span: Span
    source: int | None = None

    @cached_property
    def text(self) -> str:
        return self.whole[slice(*self.span)]

    @cached_property
    def words(self) -> dict[str, bool]:
        """`content_words` of it."""
        return content_words(self.text)

    @cached_property
    def stems(self) -> dict[str, str]:
        """A word of each stem, of those without content, too: "before", "less"."""
        return {word[:STEM]: word for word in _WORD.findall(self.text.lower())}


def _nearest(sentence: _Sentence, passages: Sequence[_Sentence]) -> list[tuple[float, _Sentence]]:
    """The few that share most of its words, and which share of them, best first."""
    shares = (
        (len(sentence.words.keys() & passage.words.keys()) / len(sentence.words), passage)
        for passage in passages
    )
    near = [found for found in shares if found[0] >= FEWEST_WORDS]
    return sorted(near, key=lambda found: found[0], reverse=True)[:NEAREST]


def _best(
    sentence: _Sentence,
    near: Sequence[tuple[float, _Sentence]],
    vectors: Mapping[str, np.ndarray],
) -> Supported:
    best, score = None, 0.0
    for share, passage in near:
        scored = share
        if near[0][0] < ENOUGH_WORDS:
            cosine = float(vectors[sentence.text] @ vectors[passage.text])
            scored = WORDS_WEIGHT * share + (1 - WORDS_WEIGHT) * cosine
        if scored > score:
            best, score = passage, scored
    start, end = sentence.span
    if best is None or score < THRESHOLD or _contradicts(sentence, best):
        return Supported(start, end, None, None, round(score, 3))
    return Supported(start, end, best.source, best.span, round(score, 3))


def _contradicts(sentence: _Sentence, passage: _Sentence) -> bool:
    if not set(_NUMBER.findall(sentence.text)) <= set(_NUMBER.findall(passage.whole)):
        return True
    if not named_in(sentence.text) <= named_in(passage.whole):
        return True
    common = sentence.words.keys() & passage.words.keys()
    opposed = sum(sentence.words[word] != passage.words[word] for word in common)
    if opposed > 0 and opposed >= OPPOSED * len(common):
        return True
    others = passage.stems.keys() - sentence.stems
    own = [word for stem, word in sentence.stems.items() if stem not in passage.stems]
    contrary = any(_contraries(word) & others for word in own)
    return contrary and len(common) >= ALIKE * len(sentence.words)


def _contraries(word: str) -> set[str]:
    """Stems of the words that say the contrary of a word."""
    unlike = {word[2 : 2 + STEM]} if word.startswith("un") else set()
    return _opposites().get(word[:STEM], set()) | unlike


@cache
def _opposites() -> dict[str, set[str]]:
    """By the stem of a word, those of its contraries."""
    found: dict[str, set[str]] = {}
    for line in OPPOSITES.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            one, other = (word[:STEM] for word in line.split())
            found.setdefault(one, set()).add(other)
            found.setdefault(other, set()).add(one)
    return found
