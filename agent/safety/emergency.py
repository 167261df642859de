"""The notice that stands before any answer to an emergency: what to do, and whom to call.

Owns the numbers by country (`data/emergency_numbers.toml`), the notice's languages
(`prompts/emergency.LANGUAGE.j2`), the line to see someone soon (`prompts/soon.LANGUAGE.j2`) and the
words in place of an answer (`prompts/held_back.LANGUAGE.j2`). Does not know what is an emergency
(`agent/safety/triage.py`), nor where the notice is shown.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

from pydantic import BaseModel

from agent.templates import Language, render
from agent.understanding.labels import Kind

NUMBERS = Path(__file__).parent / "data" / "emergency_numbers.toml"


class Country(BaseModel, frozen=True, extra="forbid"):
    """A country's phone numbers as people there write them; none: not known."""

    emergency: tuple[str, ...] = ()
    crisis: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    poison: tuple[str, ...] = ()


@cache
def countries() -> dict[str, Country]:
    """The countries whose numbers are known, by ISO 3166 alpha-2 code."""
    rows = tomllib.loads(NUMBERS.read_text(encoding="utf-8"))
    return {code: Country(**row) for code, row in rows.items()}


def notice(kind: Kind, language: Language = "en", country: str = "") -> str:
    """The notice as Markdown of two paragraphs: whom to call now, and what to do until then.

    `country` is an ISO 3166 alpha-2 code; one that is empty or not known gets "your local
    emergency number".
    """
    return render(f"emergency.{language}", kind=kind, numbers=countries().get(country))


def soon(language: Language = "en", country: str = "") -> str:
    """The line above the answer to what a person should look at within a day or two."""
    return render(f"soon.{language}", numbers=countries().get(country))


def held_back(kind: Kind, language: Language = "en") -> str:
    """What is said below the notice in place of a model's answer."""
    return render(f"held_back.{language}", kind=kind)
