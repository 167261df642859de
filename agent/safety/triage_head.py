"""A second opinion on a message: how much its words, weighed, sound like an emergency.

Owns the features (words, their openings, pairs of neighbours, with people and numbers reduced to
one word each), the weights beside this file and the sum. They are data as the red flags are: no
model is loaded and nothing is downloaded. Knows nothing of the red flags' rules;
`agent/safety/triage.py` joins both opinions, `agent/safety/triage_training.py` fits the weights.
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from math import sqrt
from pathlib import Path
from typing import NamedTuple

from agent.safety.look_alikes import frames
from agent.safety.red_flags import VOCABULARY
from agent.safety.wording import joined

HEAD = Path(__file__).parent / "data" / "triage_head.json"
_path = HEAD
# Words read at each end of a message: a longer one is a letter, or made to take long.
_READ = 150
# What the words must add to how common a kind is; "wheezy" is not of the commonest kind.
_EVIDENCE = 1.0
# The share of words ever seen below which a message is in another language.
_KNOWN = 0.6

_PEOPLE = {
    *(word for group in ("person", "child") for word in joined(VOCABULARY[group]).split("|")),
    *("auntie", "sons", "moms", "daughters", "wifes", "husbands", "sisters", "brothers"),
}
_NUMBERS = set(joined(VOCABULARY["number"]).split("|"))
_FILLERS = {"my", "the", "a", "an", "is", "and", "just", "so", "very", "really", "his", "her"}
_OPENING = 4
_ENDING = re.compile("(?:ing|ed|es|s|ly|e)$")
# What patients ask for whatever they have, and politeness: it speaks for neither side.
_PLEAS = re.compile(
    r"\b(?:(?:so |and |but )?what (?:should|do|can|shall|must) (?:i|we) do(?: now)?|what now|"
    r"please help(?: me| us)?|please advise|can it wait|(?:its )?probably nothing|"
    r"is (?:this|that|it) (?:normal|serious|bad|ok|dangerous)(?: or)?|"
    r"(?:or )?(?:should|shall|do|must) (?:i|we) (?:need to |have to )?(?:go to|see|call|ring|get) "
    r"(?:the |an? )?(?:hospital|doctor|ambulance|er|a e|gp|999|911|112)|"
    r"do i need an? (?:ambulance|doctor)|"
    r"(?:im )?sorry to (?:bother|trouble|disturb) you|thank(?:s| you)(?: in advance)?)(?= [,|]|$)"
)


class _Head(NamedTuple):
    """`features`: rarity (idf) and weight of each; `kinds`: a stem's weight for each kind."""

    bias: float
    features: dict[str, tuple[float, float]]
    kind_bias: dict[str, float]
    kinds: dict[str, dict[str, float]]


def weigh(message: str) -> float | None:
    """The log odds (natural logarithm) of an emergency in `message`, which is folded.

    TF-IDF on a unit vector, as in scikit-learn but without counting: a word is there or not. None
    where too few of the words were ever seen: another language, or no words at all.
    """
    head = _head()
    words = stems(message)[1:-1]
    if not words or sum(word in head.features for word in words) < _KNOWN * len(words):
        return None
    total = squares = 0.0
    for feature in features(message):
        if known := head.features.get(feature):
            rarity, weight = known
            total += rarity * weight
            squares += rarity * rarity
    return head.bias + (total / sqrt(squares) if squares else 0.0)


def read_from(path: Path) -> None:
    """Weigh by the weights in `path` from now on, as cross-validation does; HEAD's are the rule."""
    global _path
    _path = path
    _head.cache_clear()


def likeliest_kind(message: str) -> str | None:
    """The kind that the words of `message`, which is folded, speak for most; None if they hardly
    speak for any."""
    head = _head()
    score = dict(head.kind_bias)
    for stem in set(stems(message)):
        for kind, weight in head.kinds.get(stem, {}).items():
            score[kind] += weight
    likeliest = max(score, key=lambda kind: score[kind])
    return likeliest if score[likeliest] - head.kind_bias[likeliest] > _EVIDENCE else None


def stems(message: str) -> list[str]:
    """The words without their commonest endings, between "^" and "$"."""
    return [_stem(word) for word in _words(message)]


def features(message: str) -> set[str]:
    """Stems, openings ("swol~") and pairs of stems ("a b"); roles of words in pairs, up to two
    words apart ("P_stopp", "P*breath"); what the message speaks of besides ("@past")."""
    words = _words(message)
    return {*_features(words), *(f"@{frame}" for frame in frames(" ".join(words)))}


def _features(words: list[str]) -> Iterator[str]:
    stem = [_stem(word) for word in words]
    role = [_role(word) for word in words if word not in _FILLERS]
    yield from stem
    # Words never seen, and slips that nothing mends, often share their opening with known ones.
    for word in words:
        if len(word) > _OPENING:
            yield f"{word[:_OPENING]}~"
    for a, b in pairwise(stem):
        yield f"{a} {b}"
    for i, a in enumerate(role):
        following = role[i + 1 : i + 4]
        for gap, b in zip(("_", "*", "**"), following, strict=False):
            yield f"{a}{gap}{b}"


def _words(message: str) -> list[str]:
    words = message.split()
    pleading = _PLEAS.sub("", " ".join(words)).split() if len(words) <= 2 * _READ else words
    # What a plea leaves is a mark that ends nothing, or no word at all: then it is the message.
    if len(pleading) < len(words) and any(word.isalnum() for word in pleading):
        words = " ".join(pleading).strip(" ,|").split()
    if len(words) > 2 * _READ:
        words = [*words[:_READ], "|", *words[-_READ:]]
    return ["^", *words, "$"]


def _stem(word: str) -> str:
    return word if len(word) < 5 else _ENDING.sub("", word)


def _role(word: str) -> str:
    if word in _PEOPLE:
        return "P"
    return "0" if word[0].isdigit() or word in _NUMBERS else _stem(word)


@cache
def _head() -> _Head:
    return _Head(**json.loads(_path.read_text(encoding="utf-8")))
