"""What the page itself says, in the patient's language.

Owns the catalogs `words/en.toml` and `words/es.toml` (one table a module, the same keys in both),
and which of them a browser gets. Does not know when anything is said.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Literal

import chainlit as cl
from chainlit.session import WebsocketSession

Language = Literal["en", "es"]
WORDS = Path(__file__).with_name("words")


def spoken(tag: str | None) -> Language:
    """The language for a browser's tag, such as es-MX: Spanish, or else English."""
    return "es" if (tag or "").lower().split("-")[0] == "es" else "en"


def language() -> Language:
    """The language of this session's browser."""
    session = cl.context.session
    return spoken(session.language if isinstance(session, WebsocketSession) else None)


def say(key: str, to: Language | None = None, **values: object) -> str:
    """`key` (table.name) in the session's language or in `to`; `values` fill its {names}."""
    table, name = key.split(".")
    return _catalog(to or language())[table][name].format(**values)


@cache
def _catalog(to: Language) -> dict[str, dict[str, str]]:
    return tomllib.loads((WORDS / f"{to}.toml").read_text(encoding="utf-8"))
