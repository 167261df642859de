"""Standard input, files of cases and arguments that are not what they should be: one sentence."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from agent import cli
from agent.cli import talk, terminal
from agent.cli.routing import _messages, _notice
from agent.errors import AgentError
from agent.evaluation.parts.labelled import read
from agent.safety.triage import CALM, Verdict

LINES = {
    "a byte order mark": (b'\xef\xbb\xbf{"text": "hi"}', "byte order mark"),
    "UTF-16": ('{"text": "hi"}'.encode("utf-16"), "byte order mark"),
    "latin-1": ('{"text": "\u00e9"}'.encode("latin-1"), "is not UTF-8"),
    "half a character": (b'{"text": "\\ud83d", "messages": []}', "half a character"),
    "brackets": (b"[" * 100_000, "is not JSON (nested too deeply)"),
    "digits": (b'{"text": ' + b"9" * 6_000 + b"}", "is not JSON (a number of 6,000 characters)."),
    "no JSON": (b"hello", "is not JSON"),
    "an empty object": (b"{}", "Line 1"),
    "null": (b"null", "Line 1"),
    "no word": (b'{"text": " ", "messages": [{"role": "user", "content": " "}]}', "Line 1"),
}
CONTENTS = {
    "null": None,
    "a number": 3,
    "an object": {"text": "hi"},
    "no parts": [],
    "no word": "  ",
    "a refusal": [{"type": "refusal", "refusal": "No."}],
    "a picture alone": [{"type": "image_url", "image_url": {"url": "x"}}],
}


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str, stdin: bytes = b"") -> None:
    """`medraft` with these, expected to end in exit code 2."""
    monkeypatch.setattr(sys, "argv", ["medraft", *arguments])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2


def sentence(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said: one line on standard error, nothing elsewhere."""
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("medraft: ") and len(said.err.splitlines()) == 1
    return said.err


@pytest.mark.parametrize("command", ["route", "triage"])
@pytest.mark.parametrize(("line", "told"), LINES.values(), ids=LINES.keys())
def test_a_line_that_cannot_be_read_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    line: bytes,
    told: str,
) -> None:
    run(monkeypatch, command, stdin=line + b"\n")
    assert told in sentence(capsys)


@pytest.mark.parametrize("stdin", [b"", b"\n \n"])
@pytest.mark.parametrize("command", ["route", "triage"])
def test_empty_standard_input_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, stdin: bytes
) -> None:
    run(monkeypatch, command, stdin=stdin)
    assert "Standard input is empty" in sentence(capsys)


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
def test_a_content_that_is_no_text_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: object
) -> None:
    line = json.dumps({"messages": [{"role": "user", "content": content}]}).encode()
    run(monkeypatch, "route", stdin=line)
    assert "without a role or a text" in sentence(capsys)


def test_messages_are_read_as_openai_means_them() -> None:
    parts: list[Any] = [
        {"type": "text", "text": "My knee"},
        {"type": "image_url", "image_url": {"url": "x"}},
        {"type": "text", "text": "hurts."},
    ]
    said = [
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "assistant", "content": []},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "Since when?"},
    ]
    assert _messages(1, {"messages": said}) == [
        *[{"role": "assistant", "content": ""}] * 3,
        {"role": "user", "content": "My knee\nhurts."},
    ]
    with pytest.raises(AgentError, match="no message of a user"):
        _messages(1, {"messages": said[:1]})


def test_an_argument_that_is_no_text_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "ask", "my knee \udcff")
    assert "Argument 2 is not UTF-8" in sentence(capsys)


@pytest.mark.parametrize(("content", "told"), [(b"", "is empty"), (b"\n \n", "is empty")])
@pytest.mark.parametrize("command", ["triage", "router"])
def test_an_empty_file_of_cases_is_named(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    command: str,
    content: bytes,
    told: str,
) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_bytes(content)
    run(monkeypatch, "evaluate", command, "--cases", str(path))
    assert f"{path} {told}" in sentence(capsys)


@pytest.mark.parametrize(("line", "told"), LINES.values(), ids=LINES.keys())
def test_a_case_that_cannot_be_read_is_one_sentence(tmp_path: Path, line: bytes, told: str) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_bytes(line + b"\n")
    with pytest.raises(AgentError, match="Line 1") as caught:
        read(path, {"text", "emergency"})
    assert "\n" not in str(caught.value)


def test_line_ends_inside_a_text_end_no_case(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(json.dumps({"text": "a\u2028b"}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read(path, {"text"}) == [{"text": "a\u2028b"}]


SAID = {
    Verdict("now", "cardiac"): ("emergencia", "emergency"),
    Verdict("soon", "suicide"): ("usted importa", "you matter"),
    Verdict("soon", "burn"): ("m\u00e9dic", "doctor"),
}


@pytest.mark.parametrize("verdict", SAID)
def test_the_notice_is_in_the_language_that_is_asked_for(verdict: Verdict) -> None:
    spanish, english = (_notice(verdict, language, "") for language in ("es", "en"))
    assert spanish and english and spanish != english
    assert SAID[verdict][0] in spanish.lower() and SAID[verdict][1] in english.lower()
    assert _notice(CALM, "es", "") is None


@pytest.mark.parametrize("tag", ["es", "ES", "es-MX", "es_ES.UTF-8"])
@pytest.mark.parametrize("command", [["ask", "hola"], ["chat"]])
def test_the_terminal_speaks_the_language_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    tag: str,
) -> None:
    class Conversation:
        language = "en"

        def conversation(self) -> Conversation:
            return self

    made = Conversation()
    seen = []
    monkeypatch.setattr(talk, "_conversation", lambda settings: made)
    monkeypatch.setattr(talk, "_load", lambda settings: made)

    async def show(engine: Conversation, question: str) -> None:
        seen.append(engine.language)

    monkeypatch.setattr(terminal, "show", show)
    monkeypatch.setattr(sys, "argv", ["medraft", *command, "--language", tag])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"hola\n")))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0 and seen == ["es"]
    assert ("No soy m\u00e9dico" in capsys.readouterr().out) == (command == ["chat"])


@pytest.mark.parametrize("command", [["ask", "hola"], ["chat"], ["triage"]])
def test_a_language_that_we_do_not_speak_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    run(monkeypatch, *command, "--language", "de-AT")
    assert "--language de-AT is not known: medraft speaks en and es." in sentence(capsys)
