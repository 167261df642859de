"""`medraft route`, `triage` and what trains them: the decisions before an answer."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from agent import settings as settings_module
from agent.cli.options import lines, print_json
from agent.errors import AgentError

app = typer.Typer()


@app.command()
def route() -> None:
    """Read {"messages": [{"role", "content"}, ...]} lines; print the router's decision on each."""
    from agent.routing import router
    from agent.routing.embedding import TurnEmbedding
    from index_store.embedding import identity, load_embedding

    settings = settings_module.load()
    head = router.load(identity(settings.embed_model), settings.home)
    embedding = TurnEmbedding(load_embedding(settings.embed_model))
    for number, line in lines():
        try:
            turns, answers = router.patient_turns(line["messages"])
        except (KeyError, TypeError):
            raise AgentError(
                f"Line {number} of standard input has no messages: each line must be "
                '{"messages": [{"role": "user", "content": "..."}]}.'
            ) from None
        if not turns:
            raise AgentError(f"Line {number} of standard input has no message of a user.")
        decision, _ = head.route(turns, embedding.matrix(turns), answers)
        print_json(asdict(decision))


@app.command("triage")
def triage_command() -> None:
    """Read {"text": ...} lines; print for each whether it is an emergency, and of which kind."""
    from agent.safety.triage import triage

    settings_module.load()
    for number, line in lines():
        if not isinstance(line, dict) or not isinstance(line.get("text"), str):
            raise AgentError(
                f'Line {number} of standard input has no text: each line must be {{"text": "..."}}.'
            )
        kind = triage(line["text"])
        print_json({"emergency": kind is not None, "kind": kind})


@app.command("train-router")
def train_router(
    output: Annotated[
        Path | None, typer.Option(help="Where the head goes; default: in MEDRAFT_HOME.")
    ] = None,
) -> None:
    """Train the router's head for the embedding model in use, from the labelled examples."""
    from functools import partial

    from agent.routing.router import HEAD
    from agent.routing.training import train
    from index_store.embedding import embed_queries, identity, load_embedding

    settings = settings_module.load()
    target = output or settings.home / HEAD.name
    embedding = load_embedding(settings.embed_model)
    report = train(partial(embed_queries, embedding), identity(settings.embed_model), target)
    print(
        f"{report.examples} examples; in cross-validation {report.retrieved:.1%} of the health "
        f"questions are retrieved, {report.left_alone:.1%} of the others left alone. -> {target}"
    )


@app.command("train-triage")
def train_triage(
    output: Annotated[Path, typer.Option(help="Where the weights of the words go.")],
) -> None:
    """Fit triage's second opinion to the labelled messages and the test set's development half."""
    from agent.safety.triage_training import examples, train

    rows = examples()
    print(f"{len(rows)} messages, {train(rows, output)} features. -> {output}")


@app.command("train-encoder")
def train_encoder(
    output: Annotated[Path, typer.Option(help="A folder for the LoRA, the heads and the record.")],
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the messages.")] = None,
) -> None:
    """Train an encoder that is to read messages for triage and router; neither uses it so far."""
    from agent.understanding.training import Training, train

    settings_module.load()
    record = train(Training() if epochs is None else Training(epochs=epochs), output)
    print(f"{record['rows']} messages, {record['minutes']} minutes. -> {output}")
