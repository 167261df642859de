"""What several commands share: the options that mean the same everywhere, and JSON in and out."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from agent.errors import AgentError
from agent.templates import Language
from index_store.files import KINDS


def _language(tag: str) -> Language:
    """Ours for a tag in any case, with a region or without. Raises AgentError for any other."""
    ours: dict[str, Language] = {each: each for each in get_args(Language)}
    found = ours.get(re.split(r"[-_.]", tag.lower())[0])
    if found is None:
        raise AgentError(f"--language {tag} is not known: medraft speaks {' and '.join(ours)}.")
    return found


def spoken_option(told: str) -> Any:
    """An option for the language of our words, with its help."""
    names = "|".join(get_args(Language))
    return typer.Option("--language", parser=_language, metavar=f"<{names}>", help=told)


FILES = f"a file ({KINDS})"
Source = Annotated[str, typer.Option(help=f"sample, {FILES}, or a Hub data set.")]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Rows to read; 1,000 by default from the Hub.")
]
ColumnNames = Annotated[
    str | None,
    typer.Option(
        "--columns",
        # In short words: a longer one is cut in a terminal of 80 columns.
        help="What the source calls them: Patient=input,Doctor=output; with Description=name there "
        "is a title, too. Dots lead into a column: answer.text, messages.user.",
    ),
]
Config = Annotated[str | None, typer.Option(help="Of a Hub data set: which configuration.")]
Split = Annotated[str | None, typer.Option(help="Of a Hub data set: which split; default: train.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse a source with a row that cannot be used.")
]
KeepAsIs = Annotated[
    bool, typer.Option("--keep-as-is", help="Change no text: keep HTML and advertisements.")
]
Spoken = Annotated[Language, spoken_option("Of the notice in an emergency, and our other words.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Dir = Annotated[Path | None, typer.Option("--dir", help="The index; default: MEDRAFT_INDEX_DIR.")]


def lines() -> Iterator[tuple[int, Any]]:
    """The JSON values of standard input with their line numbers; empty lines are passed over.
    Raises AgentError."""
    from index_store.lines import json_line

    for number, line in _lines():
        try:
            yield number, json_line(line)
        except ValueError as error:
            raise AgentError(f"Line {number} of standard input {error}.") from None


def text_lines() -> Iterator[str]:
    """The lines of standard input as they are; empty ones are passed over. Raises AgentError."""
    for number, line in _lines():
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            raise AgentError(f"Line {number} of standard input is not UTF-8.") from None
        if text:
            yield text


def _lines() -> Iterator[tuple[int, bytes]]:
    """The lines that are not empty. Raises AgentError if there is none."""
    empty = True
    for number, line in enumerate(sys.stdin.buffer, start=1):
        if line.strip():
            empty = False
            yield number, line
    if empty:
        raise AgentError("Standard input is empty: there must be a line for each message.")


def check_question(question: str) -> None:
    """Raise AgentError for a question without a word, as of a variable that is not set."""
    if not question.strip():
        raise AgentError("The question is empty: write it in quotation marks.")


def print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False), flush=True)
