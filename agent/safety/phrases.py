"""The phrases that nobody may miss: `data/phrases.toml`, and whether a message has one; and the
messages that say nothing of how somebody is.

Owns how either is found. Does not know what weight one has.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

from agent.understanding.labels import Kind

PHRASES = Path(__file__).parent / "data" / "phrases.toml"
_APOSTROPHES = re.compile(r"['\u2018\u2019\u201b`\u00b4\u02bc\u2032\uff07]")
_BETWEEN = re.compile(r"[^a-z0-9]+")

_NUMBER = re.compile(
    r"\d+(?:[.,]\d+)?|\b(?:an?|one|una?)\s+(?:year|month|week|day|año|mes|semana|día)",
    re.IGNORECASE,
)
# Of these alone no message is an emergency.
_WHO = re.compile(
    r"(?:[\W\d_]|\b(?:i|im|am|is|he|she|he's|she's|hes|shes|it|we|they|are|was|my|our|his|her"
    r"|son|daughter|baby|child|boy|girl|dad|mum|mom|wife|husband|years?|yrs?|yr|y|months?|mos?"
    r"|weeks?|wks?|days?|old|yo|pregnant|along|male|female|man|woman|m|f|kg|lbs?|pounds|stone|cm|about|around"
    r"|nearly|almost|only|just|today|now|and|a|an|the|of|st|nd|rd|th|soy|estoy|es|tengo|tiene|mi|hijo"
    r"|hija|bebé|niñ[oa]|años?|mes(?:es)?|semanas?|días?|de|embarazo|embarazada|hombre|mujer|un|una|y"
    r"|kilos?|casi|solo|hoy)\b)++"  # possessive: what is read in one way is not read in another
)


def unmistakable(text: str) -> list[Kind]:
    """The kinds of emergency whose phrases stand in `text`."""
    plain = _plain(text)
    return [kind for kind, found in _patterns().items() if found.search(plain)]


def _plain(text: str) -> str:
    """Small letters without accents, one space between words, and no apostrophes."""
    # Before NFKD, of which an acute accent that stands alone comes out as a space.
    letters = unicodedata.normalize("NFKD", _APOSTROPHES.sub("", text)).casefold()
    # Cf: a soft hyphen, which nobody sees within a word.
    bare = (c for c in letters if not unicodedata.combining(c) and unicodedata.category(c) != "Cf")
    return _BETWEEN.sub(" ", "".join(bare))


@cache
def _patterns() -> dict[Kind, re.Pattern[str]]:
    table: dict[Any, list[str]] = tomllib.loads(PHRASES.read_text(encoding="utf-8"))
    return {
        kind: re.compile(rf"\b(?:{'|'.join(map(re.escape, map(_plain, phrases)))})\b")
        for kind, phrases in table.items()
    }


def tells_no_more_than_who(text: str) -> bool:
    """Whether a message is one number at most, an age and who somebody is, and nothing else: "he is
    2 years old", "16 weeks pregnant", "38,5"."""
    return len(_NUMBER.findall(text)) <= 1 and _WHO.fullmatch(text.lower()) is not None
