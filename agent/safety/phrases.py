"""The phrases that nobody may miss: `data/phrases.toml`, and whether a message has one.

Owns how a phrase is found. Does not know what weight one has.
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
_APOSTROPHES = re.compile(r"['\u2018\u2019`\u00b4]")
_BETWEEN = re.compile(r"[^a-z0-9]+")


def unmistakable(text: str) -> list[Kind]:
    """The kinds of emergency whose phrases stand in `text`."""
    plain = _plain(text)
    return [kind for kind, found in _patterns().items() if found.search(plain)]


def _plain(text: str) -> str:
    """Small letters without accents, one space between words, and no apostrophes."""
    letters = unicodedata.normalize("NFKD", text).casefold()
    bare = "".join(c for c in letters if not unicodedata.combining(c))
    return _BETWEEN.sub(" ", _APOSTROPHES.sub("", bare))


@cache
def _patterns() -> dict[Kind, re.Pattern[str]]:
    table: dict[Any, list[str]] = tomllib.loads(PHRASES.read_text(encoding="utf-8"))
    return {
        kind: re.compile(rf"\b(?:{'|'.join(map(re.escape, map(_plain, phrases)))})\b")
        for kind, phrases in table.items()
    }
