"""What medraft says itself in place of an LLM: of itself, and where the LLM lacks the language.

Owns these words and the facts in them. Does not know when they are said.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import TYPE_CHECKING

import httpx

from agent.chat.marks import citation
from agent.llms.interface import Engine
from agent.routing import about
from agent.settings import ROOT, Settings
from agent.templates import Language
from index_store import manifest

if TYPE_CHECKING:
    import numpy as np

UNWRITTEN = ROOT / "prompts" / "unwritten.toml"


def of_itself(
    question: str,
    embed: Callable[[Sequence[str]], np.ndarray],
    settings: Settings,
    engine: Engine,
    written: Collection[str] | None,
    language: Language,
) -> str:
    """The answer to a question about medraft: call it off the event loop. `written` are the LLM's
    languages, None if it writes any."""
    # httpx's place of a server, unlike urllib's, is without a password that the URL may hold.
    remote = engine.name == "openai_like"
    return about.words(
        about.matter(question, embed),
        language,
        model=engine.model,
        elsewhere=httpx.URL(settings.base_url).netloc.decode() if remote else "",
        languages=named(written, language) if written is not None else "",
        sample=manifest.read(settings.index_dir).is_sample,
    )


def unwritten(language: str, written: Collection[str], shown: int) -> str:
    """In `language`, that the LLM does not write it, with the first `shown` replies by number.

    It reads files: call it off the event loop.
    """
    told = _unwritten().get(language)
    if told is None:
        language, told = "en", _unwritten()["en"]
    marks = citation(range(1, shown + 1))
    kind = "found" if shown else "none"
    return told[kind].format(marks=marks, languages=named(written, language))


def named(languages: Collection[str], to: str) -> str:
    """The names of languages in one of them, from Babel's files: call it off the event loop."""
    from babel import Locale  # here: most turns are in English, and name none

    names = Locale(to).languages
    return ", ".join(names.get(each, each) for each in sorted(languages))


@cache
def _unwritten() -> dict[str, dict[str, str]]:
    return tomllib.loads(UNWRITTEN.read_text(encoding="utf-8"))
