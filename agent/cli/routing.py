"""`medraft route`, `triage` and `train-encoder`: the decisions before an answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent import settings as settings_module
from agent.cli.options import lines, print_json, spoken_option
from agent.errors import AgentError
from agent.templates import Language

if TYPE_CHECKING:
    from agent.safety.triage import Verdict

app = typer.Typer()


@app.command("route")
def route_command() -> None:
    """Read {"messages": [{"role", "content"}, ...]} lines of standard input; print the router's
    decision on each."""
    from agent.routing.router import route

    settings_module.load()
    for number, line in lines():
        decision, _ = route(_messages(number, line))
        print_json(asdict(decision))


@app.command("triage")
def triage_command(
    language: Annotated[
        Language | None,
        spoken_option("Print what the patient is told, too: `notice`, in this language."),
    ] = None,
) -> None:
    """Read {"text": ...} lines of standard input; print how urgent each is, and of which kind of
    emergency."""
    from agent.safety.triage import triage

    country = settings_module.load().country
    for text in _texts():
        verdict = triage(text)
        told = {"emergency": verdict.emergency, **asdict(verdict)}
        if language is not None:
            told["notice"] = _notice(verdict, language, country)
        print_json(told)


def _notice(verdict: Verdict, language: Language, country: str) -> str | None:
    """What a patient is told before any answer."""
    from agent.safety.emergency import notice, soon

    if verdict.emergency and verdict.kind is not None:
        return notice(verdict.kind, language, country)
    return soon(language, country) if verdict.degree == "soon" else None


@app.command("train-encoder")
def train_encoder(
    output: Annotated[Path, typer.Option(help="A folder for the LoRA, the heads and the record.")],
    begin_with: Annotated[
        Path | None,
        typer.Option(help="A trained one to go on from; what it misjudges is seen most."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the messages: 3, or 1 more.")
    ] = None,
) -> None:
    """Train the encoder that triage and router read a message with, from the labelled messages."""
    from agent.understanding.training import GOING_ON, Training, train

    settings_module.load()
    how = Training() if begin_with is None else GOING_ON
    record = train(replace(how, epochs=epochs or how.epochs), output, begin_with)
    print(f"{record['rows']} messages, {record['minutes']} minutes. -> {output}")


def _messages(number: int, line: Any) -> list[dict[str, str]]:
    """The messages of a line, to the last of a user. Raises AgentError."""
    messages = line.get("messages") if isinstance(line, dict) else None
    read = [_message(each) for each in messages] if isinstance(messages, list) else []
    found = [message for message in read if message is not None]
    if not found or len(found) < len(read):
        raise AgentError(
            f"Line {number} of standard input has no messages, or one without a role or a text: "
            'each line must be {"messages": [{"role": "user", "content": "..."}]}.'
        )
    if not any(message["role"] == "user" for message in found):
        raise AgentError(f"Line {number} of standard input has no message of a user.")
    while found[-1]["role"] != "user":
        found.pop()
    return found


def _message(given: Any) -> dict[str, str] | None:
    """A message as OpenAI means it: its content may be a list of parts, of which those that are
    text are read; only the user's must have a text."""
    if not isinstance(given, dict) or not isinstance(given.get("role"), str):
        return None
    role, content = given["role"], given.get("content")
    if isinstance(content, list):
        texts = [p.get("text") for p in content if isinstance(p, dict) and p.get("type") == "text"]
        content = "\n".join(text for text in texts if isinstance(text, str))
    if role != "user":
        content = content or ""
    if not isinstance(content, str) or (role == "user" and not content.strip()):
        return None
    return {"role": role, "content": content}


def _texts() -> Iterator[str]:
    for number, line in lines():
        text = line.get("text") if isinstance(line, dict) else None
        if not isinstance(text, str) or not text.strip():
            raise AgentError(
                f'Line {number} of standard input has no text: each line must be {{"text": "..."}}.'
            )
        yield text
