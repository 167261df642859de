"""A second opinion on a message: how much its words, weighed, sound like an emergency.

Owns the features (words, pairs and triples of neighbours, people and numbers reduced to one word
each), the weights beside this file and the sum. They are data as the red flags are: no model is
loaded and nothing is downloaded. Knows nothing of the red flags' rules; `agent/triage.py` joins
both opinions, `agent/triage_training.py` fits the weights.
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from math import sqrt
from pathlib import Path
from typing import NamedTuple

from agent.look_alikes import frames
from agent.red_flags import VOCABULARY
from agent.wording import joined

HEAD = Path(__file__).with_name("triage_head.json")
# Words read at each end of a message: a longer one is a letter, or made to take long.
_READ = 150
# The share of words ever seen below which a message is in another language.
_KNOWN = 0.6

_PEOPLE = {
    *(word for group in ("person", "child") for word in joined(VOCABULARY[group]).split("|")),
    *("auntie", "sons", "moms", "daughters", "wifes", "husbands", "sisters", "brothers"),
}
_NUMBERS = set(joined(VOCABULARY["number"]).split("|"))
_FILLERS = {"my", "the", "a", "an", "is", "and", "just", "so", "very", "really", "his", "her"}
_ENDING = re.compile("(?:ing|ed|es|s|ly|e)$")


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


def likeliest_kind(message: str) -> str:
    """The kind that the words of `message`, which is folded, speak for most."""
    head = _head()
    score = dict(head.kind_bias)
    for stem in set(stems(message)):
        for kind, weight in head.kinds.get(stem, {}).items():
            score[kind] += weight
    return max(score, key=lambda kind: score[kind])


def stems(message: str) -> list[str]:
    """The words without their commonest endings, between "^" and "$"."""
    return [_stem(word) for word in _words(message)]


def features(message: str) -> set[str]:
    """Stems and pairs of them ("a b"); roles of words in pairs and triples ("P_stopp_breath");
    what the message speaks of besides ("@past")."""
    words = _words(message)
    return {*_features(words), *(f"@{frame}" for frame in frames(" ".join(words)))}


def _features(words: list[str]) -> Iterator[str]:
    stem = [_stem(word) for word in words]
    role = [_role(word) for word in words if word not in _FILLERS]
    yield from stem
    for a, b in pairwise(stem):
        yield f"{a} {b}"
    for i, a in enumerate(role):
        following = role[i + 1 : i + 4]
        for gap, b in zip(("_", "*", "**"), following, strict=False):
            yield f"{a}{gap}{b}"
        if len(following) > 1:
            yield f"{a}_{following[0]}_{following[1]}"


def _words(message: str) -> list[str]:
    words = message.split()
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
    return _Head(**json.loads(HEAD.read_text(encoding="utf-8")))
