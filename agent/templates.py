"""`prompts/*.j2`, one file a prompt or a notice, rendered; and the languages of what we say."""

from __future__ import annotations

import re
from functools import cache
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from agent.settings import ROOT

Language = Literal["en", "es"]


def spoken(tag: str | None) -> Language:
    """The language for a browser's or a client's tag, such as es-MX, or for the first of a list of
    them, such as es,en;q=0.9: Spanish, or else English."""
    return "es" if re.match(r"\s*es\b", tag or "", re.IGNORECASE) else "en"


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(ROOT / "prompts"),
        undefined=StrictUndefined,
        autoescape=False,  # prompts are plain text
        keep_trailing_newline=False,
    )


def render_text(text: str, **values: object) -> str:
    """A template that stands in another file."""
    return _templates().from_string(text).render(**values).strip()


def render(name: str, **values: object) -> str:
    """`prompts/NAME.j2` with its variables."""
    return _templates().get_template(f"{name}.j2").render(**values).strip()
