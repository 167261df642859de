"""`medraft accounts` and `medraft feedback`: who may use the page, and what they thought of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from agent import settings as settings_module
from agent.cli.options import print_json
from agent.errors import AgentError
from agent.storage.passwords import Passwords

accounts = typer.Typer(
    no_args_is_help=True, help="Accounts of the page; with the first one it asks for a login."
)
feedback = typer.Typer(no_args_is_help=True, help="What patients thought of the answers.")

Name = Annotated[str, typer.Argument(help="As it is typed at the login.")]


@accounts.command("add")
def add(name: Name) -> None:
    """Add an account, or change its password, which is asked for (or read from standard input)."""
    passwords = _passwords()
    if sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        try:
            password = sys.stdin.buffer.readline().decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise AgentError("The password on standard input is not UTF-8.") from None
    first = not passwords.names()
    done = "added" if passwords.put(name, password) else "has a new password"
    print(f"{name} {done}. -> {passwords.path}")
    if first:
        print("The page asks for a login from its next start on.")


@accounts.command("remove")
def remove(name: Name) -> None:
    """Take an account away, and end its logins; its conversations stay in the history."""
    passwords = _passwords()
    passwords.remove(name)
    print(f"{name} removed. -> {passwords.path}")


@accounts.command("list")
def show() -> None:
    """The names of all accounts."""
    for name in _passwords().names():
        print(name)


@feedback.command("export")
def export(
    output: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="A .jsonl file; default: standard output."),
    ] = None,
) -> None:
    """Every feedback as a line of JSON: question, answer, behaviour, value, comment and more."""
    from agent.storage import database
    from agent.storage.feedback import rows
    from index_store.disk import write_private

    with database.reading(settings_module.load()) as connection:
        found = list(rows(connection))
    if output is None:
        for row in found:
            print_json(row)
        return
    try:
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in found)
        write_private(output, "".join(lines))
    except OSError as error:
        raise AgentError(f"{output} cannot be written ({error.strerror}).") from None
    print(f"{len(found)} rows. -> {output}")


def _passwords() -> Passwords:
    return Passwords(settings_module.load().home)
