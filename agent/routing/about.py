"""What medraft says of itself, instead of a model, to questions about the program.

Owns which matter a question means, and our own words on it: `prompts/about.toml`, in English and
Spanish. Does not know how a message is found to be such a question (`router.py`), but for one that
is asked in the file's own words, as the page's first questions are.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from pydantic import BaseModel

from agent.settings import ROOT
from agent.templates import Language, render_text

if TYPE_CHECKING:
    import numpy as np

WORDS = ROOT / "prompts" / "about.toml"
NEAREST = 0.45  # cosine to a question from which on it is that one's matter
GENERAL = "what"


class Matter(BaseModel, frozen=True, extra="forbid"):
    """Questions that mean it, and the words on it."""

    asked: tuple[str, ...]
    en: str
    es: str


@cache
def matters() -> dict[str, Matter]:
    """Those of the file, by name."""
    tables = tomllib.loads(WORDS.read_text(encoding="utf-8"))
    return {name: Matter(**table) for name, table in tables.items()}


def is_asked(text: str) -> bool:
    """Whether `text` is one of the file's questions, word for word."""
    return _plain(text) in _word_for_word()


def matter(text: str, embed: Callable[[Sequence[str]], np.ndarray]) -> str:
    """The matter that a question means, or what medraft is if it comes near none.

    `embed` gives unit vectors: call it off the event loop.
    """
    if name := _word_for_word().get(_plain(text)):
        return name
    asked = [(question, name) for name, each in matters().items() for question in each.asked]
    vectors = embed([text, *(question for question, _ in asked)])
    cosines = vectors[1:] @ vectors[0]
    best = int(cosines.argmax())
    return asked[best][1] if cosines[best] >= NEAREST else GENERAL


def words(name: str, language: Language, **facts: object) -> str:
    """Our words on a matter; `facts` are the file's `model`, `elsewhere`, `languages`, `sample`."""
    told = matters()[name]
    return render_text(told.es if language == "es" else told.en, **facts)


@cache
def _word_for_word() -> dict[str, str]:
    """The matter of each of the file's questions, by its words."""
    return {_plain(q): name for name, each in matters().items() for q in each.asked}


def _plain(text: str) -> str:
    """Its words, without the accents that many leave out."""
    parts = unicodedata.normalize("NFD", text.lower())
    return " ".join(re.findall(r"\w+", re.sub(r"[\u0300-\u036f]", "", parts)))
