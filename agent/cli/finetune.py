"""`medraft finetune`: examples, train, export, retriever."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from agent import settings as settings_module
from agent.cli.options import ColumnNames, Limit, Source
from agent.errors import AgentError
from agent.finetuning.recipe import Recipe, RetrieverRecipe, Training

app = typer.Typer(
    no_args_is_help=True,
    help="A fine-tuned LLM: examples, a LoRA adapter, other formats; and a fine-tuned retriever.",
)


@app.command("examples")
def make_examples(
    source: Source = "sample",
    limit: Limit = None,
    columns: ColumnNames = None,
    rounds: Annotated[int, typer.Option(min=1, help="Examples of each dialogue.")] = Recipe.rounds,
    documents: Annotated[
        float, typer.Option(min=0, max=1, help="Share with documents (RAFT); the rest is SFT.")
    ] = Recipe.documents,
    oracle: Annotated[
        float, typer.Option(min=0, max=1, help="P: share of those with a relevant document.")
    ] = Recipe.oracle,
    distractors: Annotated[int, typer.Option("--distractors", "-k", min=0)] = Recipe.distractors,
    altered: Annotated[
        float, typer.Option(min=0, max=1, help="Share of those with other numbers and medicines.")
    ] = Recipe.altered,
    multi_turn: Annotated[
        float, typer.Option(min=0, max=1, help="Share that follows an earlier exchange.")
    ] = Recipe.multi_turn,
    by_hand: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the answers by hand that is added.")
    ] = Recipe.by_hand,
    seed: int = Recipe.seed,
    output: Annotated[
        Path | None, typer.Option(help="A folder; default: MEDRAFT_HOME/finetuning/examples.")
    ] = None,
) -> None:
    """Make SFT and RAFT examples: the prompts of a conversation, with the replies to learn."""
    import asyncio

    from agent.finetuning.prepare import prepare
    from index_store.cleaning import clean
    from index_store.columns import Columns
    from index_store.dataset import read_rows
    from index_store.faults import Faults

    settings = settings_module.load()
    folder = output or settings.home / "finetuning" / "examples"
    recipe = Recipe(
        rounds=rounds,
        documents=documents,
        oracle=oracle,
        distractors=distractors,
        altered=altered,
        multi_turn=multi_turn,
        by_hand=by_hand,
        seed=seed,
    )
    names = Columns.parse(columns) if columns else None
    faults = Faults()
    dialogues, cleaning = clean(read_rows(source, names, limit, faults=faults), faults)
    made = asyncio.run(
        prepare(settings, dialogues, cleaning, recipe, folder, source=source, limit=limit)
    )
    print(f"Rows: {cleaning}.")
    print(f"Dialogues: {_counts(made.dialogues)}.")
    print(f"Examples: {_counts(made.examples)}; {_counts(made.held)}. -> {folder}")


@app.command("train")
def train_adapter(
    output: Annotated[Path, typer.Option(help="The adapter's folder; again, to go on.")],
    examples: Annotated[
        Path | None, typer.Option(help="A folder; default: MEDRAFT_HOME/finetuning/examples.")
    ] = None,
    epochs: Annotated[float, typer.Option(min=0.01)] = Training.epochs,
    rank: Annotated[
        int, typer.Option(help="Of the LoRA; its alpha is twice that.")
    ] = Training.rank,
    learning_rate: Annotated[float, typer.Option(min=0)] = Training.learning_rate,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Examples of one step.")
    ] = Training.batch_size,
    at_once: Annotated[
        int, typer.Option(min=1, help="Of these, in memory at once.")
    ] = Training.at_once,
    four_bit: Annotated[bool, typer.Option(help="QLoRA; CUDA only.")] = Training.four_bit,
    seed: int = Training.seed,
    report_to: Annotated[
        str, typer.Option(help="tensorboard, mlflow, trackio ..., if it is installed.")
    ] = "none",
) -> None:
    """Train a LoRA adapter of MEDRAFT_MODEL; a run that was killed goes on where it was."""
    from agent.finetuning.training import train

    settings = settings_module.load()
    how = Training(
        epochs=epochs,
        rank=rank,
        learning_rate=learning_rate,
        batch_size=batch_size,
        at_once=at_once,
        four_bit=four_bit,
        seed=seed,
    )
    folder = examples or settings.home / "finetuning" / "examples"
    record = train(settings, how, folder, output, report_to)
    print(
        f"{record['steps']} steps in {record['minutes']} minutes, validation loss "
        f"{record['best_validation_loss']:.3f} at step {record['best_step']}. "
        f"-> MEDRAFT_ADAPTER={output}"
    )


@app.command("export")
def export_adapter(
    adapter: Path,
    output: Annotated[Path, typer.Option(help="A .gguf file, or a folder for a checkpoint.")],
    form: Annotated[
        Literal["gguf", "checkpoint"],
        typer.Option("--to", help="A LoRA for llama.cpp, or MEDRAFT_MODEL with it merged in."),
    ] = "gguf",
) -> None:
    """Write a PEFT adapter in a form that other programs read."""
    from agent.finetuning.export import export

    export(settings_module.load(), adapter, form, output)
    print(f"-> {output}")


@app.command("retriever")
def train_retriever(
    output: Annotated[Path, typer.Option(help="The model's folder; again, to go on.")],
    source: Source = "sample",
    limit: Limit = None,
    columns: ColumnNames = None,
    label: Annotated[
        str | None,
        typer.Option(help="A column that says which replies answer the same problem: condition."),
    ] = None,
    letters: Annotated[
        list[Path] | None,
        typer.Option(
            help="More patients' words for the labels, as JSON lines: not searched in. May come "
            "again."
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="Times that pairs are drawn of each dialogue.")
    ] = RetrieverRecipe.rounds,
    rank: Annotated[
        int, typer.Option(min=0, help="Of the LoRA; 0 trains all weights.")
    ] = RetrieverRecipe.rank,
    learning_rate: Annotated[float, typer.Option(min=0)] = RetrieverRecipe.learning_rate,
    batch_size: Annotated[int, typer.Option(help="Pairs of one step.")] = (
        RetrieverRecipe.batch_size
    ),
    tokens: Annotated[
        int, typer.Option(min=16, help="Of a text while training.")
    ] = RetrieverRecipe.tokens,
    negatives: Annotated[
        bool, typer.Option(help="Mine a negative for each pair, too.")
    ] = RetrieverRecipe.negatives,
    kept: Annotated[
        float, typer.Option(min=0, help="Weight of the distance to the old vectors.")
    ] = RetrieverRecipe.kept,
    scale: Annotated[
        float, typer.Option(help="Share of what was learned that is kept in the weights.")
    ] = RetrieverRecipe.scale,
    seed: int = RetrieverRecipe.seed,
) -> None:
    """Train MEDRAFT_EMBED_MODEL on questions and replies; a run that was killed goes on.

    Before and after are measured on held-out patients; the commands that use it are printed.
    """
    from agent.finetuning.retriever import folder, pairs, training
    from index_store.columns import Columns

    if letters and not label:
        raise AgentError("--letters are for labels: name their column by --label.")
    settings = settings_module.load()
    recipe = RetrieverRecipe(
        rounds=rounds,
        rank=rank,
        learning_rate=learning_rate,
        batch_size=batch_size,
        tokens=tokens,
        negatives=negatives,
        kept=kept,
        scale=scale,
        seed=seed,
    )
    base = training.base_of(settings.embed_model)
    names = Columns.parse(columns) if columns else Columns()
    parts, cleaning = pairs.read(source, names, limit, label)
    more = [each for path in letters or () for each in pairs.read_letters(path, label or "")]
    told = {"source": source, "limit": limit, "label": label}
    record = training.train(base, parts, recipe, output, letters=more, told=told)

    from agent.evaluation.parts import embedding, relevance, retrieval

    print(f"Rows: {cleaning}.")
    print(f"Held-out nDCG@10 {record['best_ndcg']:.3f} at step {record['best_step']}; measuring.")
    found, decided = embedding.compare(parts, base, str(output))
    tables = [retrieval.as_markdown(title, each) for title, each in found.items()]
    if decided:
        cases = found[embedding.SAME].cases
        tables.append(relevance.as_markdown("Held-out patients", cases, decided))
    folder.write_card(output, record, "\n\n".join(tables))
    print("\n\n".join([*tables, embedding.in_words(found)]))
    use = f"MEDRAFT_EMBED_MODEL={shlex.quote(str(output))}"
    build = ["medraft", "index", "build", "--source", source]
    build += ["--limit", str(limit)] if limit else []
    build += ["--columns", columns] if columns else []
    print(f"{record['minutes']} minutes. To use it:\n    export {use}\n    {shlex.join(build)}")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
