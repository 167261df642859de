"""What the page itself says, in the patient's language.

Owns the catalogs `data/en.toml` and `data/es.toml` (one table a module, the same keys in both; a
sentence that depends on `count` has one for each plural of CLDR's), the errors in other words than
the code's (`data/errors_TAG.toml`), numbers, and which language a browser gets. Does not know when
anything is said.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from babel import Locale
from babel.numbers import format_decimal
from starlette.types import ASGIApp, Receive, Scope, Send

from agent.errors import AgentError
from agent.page import chainlit_hooks, server_hooks
from agent.templates import Language, spoken
from index_store.errors import StoreError

CATALOGS = Path(__file__).with_name("data")
# By what Chainlit knows a language: `.chainlit/translations/NAME.json`, `chainlit_NAME.md`.
CHAINLITS: dict[Language, str] = {"en": "en-US", "es": "es"}


class Spoken:
    """ASGI middleware: Chainlit is asked for its own words in a language that ours are in, too.

    Otherwise a German page would be half German, half English; and a tag that Chainlit does not
    know (es-419, en-US@posix) would find no welcome, or be refused.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, one web socket or the lifespan."""
        if scope["type"] == "http" and scope["path"].startswith("/project/"):
            query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
            if "language" in query:
                query["language"] = CHAINLITS[spoken(query["language"])]
                scope = {**scope, "query_string": urlencode(query).encode("latin-1")}
        await self._app(scope, receive, send)


def speak() -> None:
    """Have Chainlit speak our languages."""
    server_hooks.add_middleware(Spoken)


def language() -> Language:
    """The language of this session's browser."""
    return spoken(chainlit_hooks.language_tag())


def say(key: str, to: Language | None = None, *, count: int = 0, **values: object) -> str:
    """`key` (table.name) in the session's language or in `to`; `values` fill its {names}, and
    `count`, which is one of them, chooses between plurals."""
    table, name = key.split(".")
    to = to or language()
    said: str | dict[str, str] = _catalog(to)[table][name]
    if isinstance(said, dict):
        said = said.get(Locale(to).plural_form(count), said["other"])
    return said.format(count=count, **values)


def number(value: float, digits: int, to: Language | None = None) -> str:
    """A number as the session's language or `to` writes it."""
    return format_decimal(value, f"0.{'0' * digits}", locale=to or language())


def error_sentence(error: AgentError | StoreError) -> str:
    """What to say to a person of an error, in the session's language.

    English is the error's own; another language has the sentences that a patient can do something
    about, and a general one for the rest.
    """
    if (to := language()) == "en":
        return str(error)
    sentences = _catalog(f"errors_{to}")["errors"]
    if isinstance(error, AgentError) and error.key:
        return sentences[error.key].format(**error.values)
    return sentences["index" if isinstance(error, StoreError) else "general"]


@cache
def _catalog(name: str) -> dict[str, dict[str, Any]]:
    return tomllib.loads((CATALOGS / f"{name}.toml").read_text(encoding="utf-8"))
