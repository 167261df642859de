"""The emergency notice: every kind, in both languages, with the numbers of a country."""

from __future__ import annotations

import json
import re
from typing import get_args

import pytest

from agent import settings
from agent.errors import AgentError
from agent.safety.emergency import countries, notice
from agent.safety.triage import triage
from agent.settings import ROOT
from agent.templates import Language
from agent.understanding.labels import Kind

KINDS: tuple[Kind, ...] = get_args(Kind)
LANGUAGES: tuple[Language, ...] = get_args(Language)
ALL_KINDS = pytest.mark.parametrize("kind", KINDS)
BOTH = pytest.mark.parametrize("language", LANGUAGES)
SPANISH = [
    json.loads(line)
    for line in (ROOT / "tests" / "data" / "triage_es.jsonl").read_text("utf-8").splitlines()
]


@ALL_KINDS
@BOTH
def test_every_kind_has_a_short_notice_of_its_own(kind: Kind, language: Language) -> None:
    call, meanwhile = notice(kind, language).split("\n\n")
    assert call.startswith("**")
    assert call.count("**") == 2
    assert "**" not in meanwhile
    # The first paragraph stays pinned to the top of a phone; the other is read at once.
    assert len(call.split()) <= 35
    assert len(meanwhile.split()) <= 70
    assert "112, 911" in call
    others = [notice(other, language) for other in KINDS if other != kind]
    assert notice(kind, language) not in others


@BOTH
@pytest.mark.parametrize("code", countries())
def test_a_country_has_its_own_numbers(code: str, language: Language) -> None:
    country = countries()[code]
    for kind in KINDS:
        call = notice(kind, language, code).split("\n\n")[0]
        assert all(number in call for number in country.emergency)
        assert "112, 911" not in call
    crisis = notice("suicide", language, code)
    assert all(number in crisis for number in country.crisis)
    assert ("findahelpline.com" in crisis) is (not country.crisis)
    assert all(number in notice("overdose", language, code) for number in country.poison)


def test_there_are_many_countries_and_their_numbers_can_be_dialled() -> None:
    assert len(countries()) >= 30
    for code, country in countries().items():
        assert re.fullmatch("[A-Z]{2}", code)
        assert country.emergency
        numbers = country.emergency + country.crisis + country.text + country.poison
        assert [number for number in numbers if not re.fullmatch(r"\d[\d -]*\d", number)] == []


@BOTH
def test_self_harm_is_told_a_crisis_line_before_anything_else(language: Language) -> None:
    for code, country in countries().items():
        told = notice("suicide", language, code)
        first = country.crisis[0] if country.crisis else "findahelpline.com"
        assert told.index(first) < told.index(f"{country.emergency[0]}")
        assert told.index(first) < told.index("**", 2)


def test_where_the_crisis_line_takes_text_messages_it_says_so() -> None:
    assert "call or text 988" in notice("suicide", "en", "US")
    assert "call 024" in notice("suicide", "en", "ES")


@pytest.mark.parametrize("code", ["", "ZZ"])
def test_elsewhere_it_is_the_local_emergency_number(code: str) -> None:
    assert "your local emergency number" in notice("cardiac", "en", code)
    assert "número de emergencias de su país" in notice("cardiac", "es", code)
    assert "findahelpline.com" in notice("suicide", "en", code)


def test_the_country_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.load(country="es").country == "ES"
    monkeypatch.setenv("MEDRAFT_COUNTRY", "Spain")
    with pytest.raises(AgentError, match="MEDRAFT_COUNTRY does not take 'Spain': a country has"):
        settings.load()
    monkeypatch.setenv("MEDRAFT_COUNTRY", "UK")  # which is GB there
    with pytest.raises(AgentError, match="MEDRAFT_COUNTRY does not take 'UK': a country has"):
        settings.load()


@pytest.mark.usefixtures("encoder")
def test_what_is_said_outright_in_spanish_is_recognised() -> None:
    assert {case["kind"] for case in SPANISH} == {*KINDS, None}
    told = [triage(case["text"]) for case in SPANISH]
    found = [
        v.emergency == (case["kind"] is not None) for v, case in zip(told, SPANISH, strict=True)
    ]
    assert sum(found) >= 0.75 * len(found)  # of 57, as measured: 44
