"""The page's words: the same in both languages but for the words."""

from __future__ import annotations

import string
import tomllib

import pytest

from agent.page.language import WORDS, say, spoken


def entries(tag: str) -> dict[str, str]:
    """All entries of a language, by table.name."""
    tables = tomllib.loads((WORDS / f"{tag}.toml").read_text(encoding="utf-8"))
    return {f"{table}.{name}": text for table in tables for name, text in tables[table].items()}


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
        ("en-US", "en"),
        ("de-DE", "en"),
        (None, "en"),
    ],
)
def test_a_browser_gets_spanish_or_english(tag: str | None, language: str) -> None:
    assert spoken(tag) == language


def test_an_unknown_key_is_an_error() -> None:
    with pytest.raises(KeyError):
        say("app.nothing", "en")
