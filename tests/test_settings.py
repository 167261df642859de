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


def test_an_answer_that_leaves_no_room_for_a_question_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MEDRAFT_MAX_TOKENS", "5000")
    with pytest.raises(AgentError, match=r"MEDRAFT_MAX_TOKENS=5000 .* set it to 3840 or less"):
        settings.load()
    assert settings.load(context_window=8192).max_tokens == 5000
    with pytest.raises(AgentError, match="doctor reads 5100 tokens"):
        settings.check_room(settings.load(context_window=8192), 5100, "doctor reads")


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    names = ("HOME", "INDEX_DIR", "EMBED_MODEL", "MODEL", "ADAPTER", "FINE_TUNED_MODEL")
    (tmp_path / ".env").write_text("".join(f"MEDRAFT_{name}=~/{name}\n" for name in names))
    loaded = settings.load()
    assert [loaded.home, loaded.index_dir] == [tmp_path / "HOME", tmp_path / "INDEX_DIR"]
    told = [loaded.embed_model, loaded.model, loaded.adapter, loaded.fine_tuned_model]
    assert told == [str(tmp_path / name) for name in names[2:]]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_a_file_that_is_not_utf8_is_one_sentence(tmp_path: Path, encoding: str) -> None:
    (tmp_path / ".env").write_text("# \u00e9\nMEDRAFT_SOURCES=3\n", encoding=encoding)
    with pytest.raises(AgentError, match=r"^\.env is not UTF-8: save it as UTF-8\.$"):
        settings.load()


@pytest.mark.parametrize("line", ['MEDRAFT_COUNTRY="ES', "MEDRAFT_COUNTRY: ES", "HF_TOKEN='x"])
def test_a_line_that_says_nothing_is_named(
    tmp_path: Path, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".env").write_text(f"# mine\nMEDRAFT_SOURCES=3\n\n{line}\nMEDRAFT_SLOTS=2\n")
    with pytest.raises(AgentError, match=r"^Line 4 of \.env is not NAME=value, or a quotation"):
        settings.load()
    assert not caplog.records


def test_a_mark_before_the_file_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MEDRAFT_SOURCES=3\n", encoding="utf-8-sig")
    assert settings.load().sources == 3


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "https://chat.example.org/",
        "https://*.example.org",
        "chat.example.org",
        "https://Chat.example.org",
        "https://chat.example.org:443",
        "null",
    ],
)
def test_a_website_that_could_never_match_is_refused(
    monkeypatch: pytest.MonkeyPatch, origin: str
) -> None:
    fine = "https://chat.example.org, http://localhost:3000 http://[::1]:80800 app://obsidian.md"
    monkeypatch.setenv("MEDRAFT_ALLOW_ORIGINS", fine)
    assert settings.load().allow_origins == fine
    monkeypatch.setenv("MEDRAFT_ALLOW_ORIGINS", f"{fine} {origin}")
    with pytest.raises(AgentError, match=r"MEDRAFT_ALLOW_ORIGINS .*, no \*\.$"):
        settings.load()


@pytest.mark.parametrize("key", ["sk-a\nb", "sk-\u00e9", "sk a", "sk\x7f"])
def test_a_key_that_fits_no_header_is_named_but_not_shown(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("MEDRAFT_API_KEY", key)
    with pytest.raises(AgentError, match="MEDRAFT_API_KEY does not take") as caught:
        settings.load()
    assert key not in str(caught.value) and "\n" not in str(caught.value)


def test_a_line_end_behind_a_key_is_no_part_of_it() -> None:
    key = settings.load(api_key="sk-1\r\n").api_key
    assert key is not None and key.get_secret_value() == "sk-1"


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
