"""Write what the code says of itself: `.env.example`, docs/cli.md and docs/emergency-numbers.md.

    make reference                         # all anew
    python -m docs.reference --check       # exit code 1 if one of them is stale

Owns their layout. Their words stand in agent/settings.py, agent/cli/ and agent/safety/data/.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import typer
from babel import Locale
from typer.core import TyperGroup

from agent.cli import app
from agent.safety.emergency import countries
from agent.settings import PREFIX, ROOT, Settings
from index_store.disk import write_text

WIDTH = 100
HEAD_OF_SETTINGS = """\
# Every setting with its default. Copy to .env, or set the variable of the same name, which wins.
# A name that is not here is refused. Written by `make reference` from agent/settings.py.
"""
HEAD_OF_COMMANDS = """\
# Commands

Written by `make reference` from agent/cli/. `--help` tells the same; `--json` prints JSON and
nothing else. What went wrong is one sentence on standard error, and exit code 2.

"""
HEAD_OF_NUMBERS = """\
# Emergency numbers

What a notice tells to call, by country ([safety.md](safety.md#whom-to-call)). Written by
`make reference` from agent/safety/data/emergency_numbers.toml; from general knowledge, checked
against no register: who serves patients checks those of their country.

| country | ambulance | crisis line | by text message | poison centre |
|---|---|---|---|---|
"""


def env_example() -> str:
    """Each setting: what it is, in comments, and its default, commented out."""
    blocks = [HEAD_OF_SETTINGS]
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, Path):
            default = default.relative_to(ROOT).as_posix()
        said = textwrap.fill(
            field.description or "",
            WIDTH,
            initial_indent="# ",
            subsequent_indent="# ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        value = "" if default is None else default
        blocks.append(f"{said}\n# {PREFIX}{name.upper()}={value}\n")
    return "\n".join(blocks)


def cli() -> str:
    """Every command: how it is called, what it does, its arguments and options."""
    root = typer.main.get_command(app)
    return HEAD_OF_COMMANDS + "\n".join(_command(typer.Context(root, info_name="medraft")))


def numbers() -> str:
    """Every country's numbers, as a table."""
    names = Locale("en").territories
    rows = [
        " | ".join(
            [
                f"| {names[code]} ({code})",
                *(", ".join(each) for each in (told.emergency, told.crisis, told.text)),
                f"{', '.join(told.poison)} |",
            ]
        )
        for code, told in sorted(countries().items(), key=lambda row: str(names[row[0]]))
    ]
    return HEAD_OF_NUMBERS + "\n".join(rows) + "\n"


def _command(context: typer.Context) -> Iterator[str]:
    """The lines of a command, and of those below it."""
    command = context.command
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"## {context.command_path}\n\n    {usage}\n"
    yield f"{(command.help or '').strip()}\n"
    records = [each.get_help_record(context) for each in command.params]
    options = [
        f"- `{name}`: {said}" if said else f"- `{name}`" for name, said in filter(None, records)
    ]
    if options:
        yield "\n".join(options) + "\n"
    if isinstance(command, TyperGroup):
        for name in command.list_commands(context):
            if below := command.get_command(context, name):
                yield from _command(typer.Context(below, parent=context, info_name=name))


def stale() -> dict[Path, str]:
    """The files that do not say what the code says, each with what it should say."""
    wanted = {
        ROOT / ".env.example": env_example(),
        ROOT / "docs" / "cli.md": cli(),
        ROOT / "docs" / "emergency-numbers.md": numbers(),
    }
    return {
        path: text
        for path, text in wanted.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    }


def main() -> None:
    found = stale()
    if "--check" in sys.argv[1:]:
        for path in found:
            print(f"{path.relative_to(ROOT)} is stale: run `make reference`.", file=sys.stderr)
        sys.exit(bool(found))
    for path, text in found.items():
        write_text(path, text)
        print(f"-> {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
