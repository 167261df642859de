"""The page's words: the same in both languages but for the words."""

from __future__ import annotations

import string
import tomllib

import pytest

from agent.page.language import CATALOGS, number, say
from agent.templates import spoken


def entries(tag: str) -> dict[str, str]:
    """All entries of a language, by table.name, and by table.name.plural where there are such."""
    tables = tomllib.loads((CATALOGS / f"{tag}.toml").read_text(encoding="utf-8"))
    return {
        ".".join([table, name, *plural]): text
        for table in tables
        for name, said in tables[table].items()
        for plural, text in (
            [([key], text) for key, text in said.items()]
            if isinstance(said, dict)
            else [([], said)]
        )
    }


def names(text: str) -> set[str]:
    """The {names} that an entry must be given."""
    return {field for _, field, _, _ in string.Formatter().parse(text) if field}


def test_both_languages_say_the_same_things() -> None:
    english, spanish = entries("en"), entries("es")
    assert english.keys() == spanish.keys()
    assert {key: names(text) for key, text in english.items()} == {
        key: names(text) for key, text in spanish.items()
    }
    untranslated = [key for key in english if english[key] == spanish[key] and " " in english[key]]
    assert untranslated == []


@pytest.mark.parametrize(
    ("tag", "language"),
    [
        ("es", "es"),
        ("es-MX", "es"),
        ("ES-es", "es"),
        ("es,en;q=0.9", "es"),
        ("es;q=0.9, en;q=0.8", "es"),
        ("en,es;q=0.9", "en"),
        ("est", "en"),
        ("en-US", "en"),
        ("de-DE", "en"),
        (None, "en"),
    ],
)
def test_a_browser_gets_spanish_or_english(tag: str | None, language: str) -> None:
    assert spoken(tag) == language


def test_plurals_and_numbers_are_the_language_s_own() -> None:
    assert say("turn.waiting", "en", count=1) == "1 answer is before yours."
    assert say("turn.waiting", "es", count=3) == "Hay 3 respuestas antes de la suya."
    # Spanish has a plural for millions, which no catalog needs.
    assert say("turn.waiting", "es", count=1_000_000).startswith("Hay 1000000 respuestas")
    assert number(0.5, 2, "es") == "0,50"
    assert number(1234.6, 0, "en") == "1235"


def test_an_unknown_key_is_an_error() -> None:
    with pytest.raises(KeyError):
        say("app.nothing", "en")
