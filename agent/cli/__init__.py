"""The console script `medraft`.

Owns the tree of commands, and how an error ends one. Everything heavy is imported by the command
that needs it, so that `--help` answers at once. With --json, standard output is JSON and nothing
else.
"""

from __future__ import annotations

import sys

import typer

from agent import settings as settings_module
from agent.cli import evaluate, finetune, index, people, routing, serve, talk
from agent.errors import AgentError
from index_store.errors import StoreError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A patient chat agent that answers from doctors' replies.",
)
app.add_typer(talk.app)
app.add_typer(routing.app)
app.add_typer(serve.app)
app.add_typer(index.app, name="index")
app.add_typer(finetune.app, name="finetune")
app.add_typer(people.accounts, name="accounts")
app.add_typer(serve.keys, name="keys")
app.add_typer(people.feedback, name="feedback")
app.add_typer(evaluate.app, name="evaluate")


@app.command()
def setup() -> None:
    """Prepare what the first conversation needs: the embedded model and the sample's index."""
    from agent.llms import embedded
    from agent.llms.choice import decide
    from index_store import manifest
    from index_store.embedding import identity

    settings = settings_module.load()
    choice = decide(settings)
    if choice.engine == "llama_cpp" and choice.base.embedded:
        print(f"The model: {embedded.llama_cpp_file(settings.home / 'models')}")
    there = (settings.index_dir / manifest.NAME).exists()
    found = manifest.read(settings.index_dir) if there else None
    of_another = found is not None and found.embed_model != identity(settings.embed_model)
    if found is None or (of_another and found.is_sample):
        print("The index: embedding the sample (about half a minute)")
        index.build()
    else:
        index.info()


def main() -> None:
    """Run a command; a known error, or a file that is not to be had, is one sentence on standard
    error and exit code 2."""
    try:
        _check_arguments()
        app()
    except (AgentError, StoreError) as error:
        print(f"medraft: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:
            raise  # no file's
        print(f"medraft: {error.filename} cannot be used ({error.strerror}).", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _check_arguments() -> None:
    """Raise AgentError for one that is no text: what it was meant to be, nobody can tell."""
    for place, argument in enumerate(sys.argv[1:], start=1):
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise AgentError(f"Argument {place} is not UTF-8.") from None
