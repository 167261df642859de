"""`medraft serve` and `medraft keys`: the agent behind OpenAI's protocol, and who may ask it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from agent import settings as settings_module
from agent.llms.choice import with_first_llm
from agent.storage.keys import Keys

app = typer.Typer()
keys = typer.Typer(
    no_args_is_help=True,
    help="Keys of the endpoint; once there is one, every request needs one.",
)

Name = Annotated[str, typer.Argument(help="Whose key it is, to take it back by.")]


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Beyond 127.0.0.1 a key is needed.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8001,
) -> None:
    """Serve the agent to OpenAI's clients: /v1, /health, /ready and /metrics."""
    from agent.serving import server

    server.serve(with_first_llm(settings_module.load()), host, port)


@keys.command("add")
def add(name: Name) -> None:
    """Make a key and print it; it is kept as a hash and can never be shown again."""
    kept = _keys()
    print(kept.add(name))
    print(f"A key for {name}. -> {kept.path}", file=sys.stderr)


@keys.command("remove")
def remove(name: Name) -> None:
    """Take a key back, from the next request on."""
    kept = _keys()
    kept.remove(name)
    print(f"{name} removed. -> {kept.path}")


@keys.command("list")
def show() -> None:
    """Whose keys there are."""
    for name in _keys().names():
        print(name)


def _keys() -> Keys:
    return Keys(settings_module.load().home)
