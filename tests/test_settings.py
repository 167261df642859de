"""Settings: the environment wins over the file, unknown ones are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent import settings
from agent.behaviour import behaviour
from agent.errors import AgentError
from agent.llms import choice
from agent.llms.embedded import EMBEDDED


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_variable_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MEDRAFT_SOURCES=3\nMEDRAFT_SLOTS=2\nHF_TOKEN=x\n")
    monkeypatch.setenv("MEDRAFT_SOURCES", "5")
    loaded = settings.load()
    assert (loaded.sources, loaded.slots) == (5, 2)


def test_an_unknown_name_is_refused_wherever_it_stands(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MEDRAFT_SOURCE=3\n")
    with pytest.raises(AgentError, match="did you mean MEDRAFT_SOURCES"):
        settings.load()


def test_a_value_out_of_range_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDRAFT_TEMPERATURE", "9")
    with pytest.raises(AgentError, match="MEDRAFT_TEMPERATURE"):
        settings.load()


def test_the_four_behaviours() -> None:
    assert [
        behaviour("base", False),
        behaviour("base", True),
        behaviour("fine-tuned", False),
        behaviour("fine-tuned", True),
    ] == ["base", "RAG", "fine-tuned", "RAFT"]


@pytest.mark.parametrize(
    ("given", "first"),
    [
        ({"model": "embedded"}, "fine-tuned"),
        ({"model": "embedded", "adapter": "none"}, "base"),
        ({"model": "embedded", "llm": "base"}, "base"),
        ({"model": "other.gguf"}, "base"),
        ({"model": "other.gguf", "adapter": "doctor.gguf"}, "fine-tuned"),
        ({"model": "other.gguf", "fine_tuned_model": "doctor.gguf"}, "fine-tuned"),
        ({"engine": "openai_like", "model": "llama"}, "base"),
        ({"engine": "openai_like", "model": "llama", "fine_tuned_model": "doctor"}, "fine-tuned"),
    ],
)
def test_a_conversation_starts_with_the_fine_tuned_llm_if_there_is_one(
    given: dict[str, Any], first: str
) -> None:
    assert choice.with_first_llm(settings.load(**given)).llm == first


SHIPPED = choice.SHIPPED_ADAPTER


@pytest.mark.parametrize(
    ("given", "engine", "base", "fine_tuned", "adapter"),
    [
        ({}, "llama_cpp", EMBEDDED, None, SHIPPED),
        ({"adapter": "none"}, "llama_cpp", EMBEDDED, None, None),
        ({"model": "embedded"}, "huggingface", EMBEDDED, None, SHIPPED),
        ({"model": "other.gguf"}, "llama_cpp", "other.gguf", None, None),
        ({"model": "a/b", "adapter": "doctor"}, "huggingface", "a/b", None, Path("doctor")),
        ({"fine_tuned_model": "c/d"}, "llama_cpp", EMBEDDED, "c/d", None),
        ({"model": "embedded"}, "openai_like", "embedded", None, None),
    ],
)
def test_engine_and_weights_are_one_decision(
    given: dict[str, Any],
    engine: choice.EngineName,
    base: str,
    fine_tuned: str | None,
    adapter: Path | None,
) -> None:
    made = choice.decide(settings.load(**given), engine)
    assert made.engine == engine == choice.decide(settings.load(engine=engine, **given)).engine
    assert made.base.name == base
    assert made.base.embedded == (engine != "openai_like" and base == EMBEDDED)
    assert (made.fine_tuned.name if made.fine_tuned else None) == fine_tuned
    assert made.adapter == adapter
    assert made.first == ("fine-tuned" if fine_tuned or adapter else "base")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "nowhere.gguf"}, "There is no model at nowhere.gguf"),
        ({"adapter": "nowhere"}, "There is no adapter at nowhere"),
    ],
)
def test_what_no_engine_could_load_is_refused_at_once(given: dict[str, Any], said: str) -> None:
    with pytest.raises(AgentError, match=said):
        choice.check(settings.load(**given))
