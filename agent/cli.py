"""The console script `medraft`.

Owns arguments, exit codes and what is printed. Everything heavy is imported by the command that
needs it, so that `--help` answers at once. With --json, standard output is JSON and nothing else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from agent import settings as settings_module
from agent.behaviour import LLMChoice, Retrieval
from agent.errors import AgentError
from index_store.errors import StoreError

if TYPE_CHECKING:
    from agent.loading import Agent
    from agent.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A patient chat agent that answers from doctors' replies.",
)
index = typer.Typer(no_args_is_help=True, help="The persisted index of doctors' replies.")
app.add_typer(index, name="index")
finetune = typer.Typer(
    no_args_is_help=True, help="A fine-tuned LLM: examples, a LoRA adapter, other formats."
)
app.add_typer(finetune, name="finetune")

Source = Annotated[
    str, typer.Option(help="sample, a .jsonl, .csv or .parquet file, or a Hub data set.")
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Rows to read; 1,000 by default from the Hub.")
]
ColumnNames = Annotated[
    str | None, typer.Option("--columns", help="Description=title,Patient=question,Doctor=answer")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Dir = Annotated[Path | None, typer.Option("--dir", help="The index; default: MEDRAFT_INDEX_DIR.")]
Llm = Annotated[LLMChoice | None, typer.Option(help="Default: MEDRAFT_LLM.")]
Ret = Annotated[Retrieval | None, typer.Option(help="Default: MEDRAFT_RETRIEVAL.")]


@index.command("build")
def index_build(
    source: Source = "sample",
    limit: Limit = None,
    columns: ColumnNames = None,
    directory: Dir = None,
) -> None:
    """Embed the doctors' replies of a source and persist the index, all of it or nothing."""
    from index_store.build import build
    from index_store.cleaning import clean
    from index_store.dataset import Columns, read_rows

    settings = settings_module.load()
    names = Columns.parse(columns) if columns else None
    dialogues, cleaning = clean(read_rows(source, names, limit))
    target = directory or settings.index_dir
    built = build(dialogues, cleaning, target, settings.embed_model, source=source, limit=limit)
    print(f"{cleaning}.")
    print(
        f"{built.manifest.rows} replies in {target}: "
        f"{built.embedded} embedded, {built.reused} as they were."
    )


@index.command("info")
def index_info(directory: Dir = None, as_json: Json = False) -> None:
    """What is in the index, and where it came from."""
    from index_store import manifest

    settings = settings_module.load()
    found = manifest.read(directory or settings.index_dir)
    if as_json:
        _print_json(found.model_dump(mode="json"))
        return
    size = sum(file.bytes for file in found.files.values())
    print(f"{found.rows} replies from {found.source}, built {found.built_at:%Y-%m-%d %H:%M} UTC")
    print(f"{found.cleaning}.")
    print(f"{found.embed_model}, {found.dimension} dimensions; {size / 2**20:.1f} MiB on disk")


@index.command("search")
def index_search(
    question: str,
    k: Annotated[int, typer.Option("-k", min=1, help="How many replies.")] = 5,
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """The replies nearest to a question: dense and BM25, fused by reciprocal rank."""
    from index_store.embedding import embed_queries, load_embedding
    from index_store.store import IndexStore

    settings = settings_module.load()
    with IndexStore.open(directory or settings.index_dir, settings.embed_model) as store:
        vector = embed_queries(load_embedding(settings.embed_model), [question])[0]
        hits = store.search(question, vector, k)
    if as_json:
        _print_json([asdict(hit) for hit in hits])
        return
    for hit in hits:
        print(f"{hit.rank}. {hit.title}  (similarity {hit.score:.2f})\n   {hit.doctor}\n")


@app.command()
def ask(question: str, llm: Llm = None, retrieval: Ret = None, as_json: Json = False) -> None:
    """Answer one question."""
    import asyncio

    from agent.transcript import collect, show

    settings = _settings(llm, retrieval)
    agent = _load(settings)
    engine = agent.conversation()
    if as_json:
        _print_json(asyncio.run(collect(engine, question)))
    else:
        asyncio.run(show(engine, question))


@app.command()
def chat(llm: Llm = None, retrieval: Ret = None) -> None:
    """Talk with the agent in the terminal. Control-C stops an answer, Control-D leaves."""
    from agent.transcript import converse

    converse(_load(_settings(llm, retrieval)).conversation())


@app.command()
def route() -> None:
    """Read {"messages": [{"role", "content"}, ...]} lines; print the router's decision on each."""
    from agent import router
    from index_store.embedding import identity, load_embedding

    settings = settings_module.load()
    head = router.load(identity(settings.embed_model), settings.home)
    embedding = router.TurnEmbedding(load_embedding(settings.embed_model))
    for number, line in _lines():
        try:
            messages = line["messages"]
            turns = [str(m["content"]) for m in messages if m["role"] == "user"]
        except (KeyError, TypeError):
            raise AgentError(
                f"Line {number} of standard input has no messages: each line must be "
                '{"messages": [{"role": "user", "content": "..."}]}.'
            ) from None
        if not turns:
            raise AgentError(f"Line {number} of standard input has no message of a user.")
        decision, _ = head.route(turns, embedding.matrix(turns))
        _print_json(asdict(decision))


@app.command("triage")
def triage_command() -> None:
    """Read {"text": ...} lines; print for each whether it is an emergency, and of which kind."""
    from agent.triage import triage

    settings_module.load()
    for number, line in _lines():
        if not isinstance(line, dict) or not isinstance(line.get("text"), str):
            raise AgentError(
                f'Line {number} of standard input has no text: each line must be {{"text": "..."}}.'
            )
        kind = triage(line["text"])
        _print_json({"emergency": kind is not None, "kind": kind})


@app.command("train-router")
def train_router(
    output: Annotated[
        Path | None, typer.Option(help="Where the head goes; default: in MEDRAFT_HOME.")
    ] = None,
) -> None:
    """Train the router's head for the embedding model in use, from the labelled examples."""
    from agent.router import HEAD, TurnEmbedding
    from agent.router_training import train
    from index_store.embedding import identity, load_embedding

    settings = settings_module.load()
    target = output or settings.home / HEAD.name
    embedding = TurnEmbedding(load_embedding(settings.embed_model))
    report = train(embedding.matrix, identity(settings.embed_model), target)
    print(
        f"{report.examples} examples; in cross-validation {report.retrieved:.1%} of the health "
        f"questions are retrieved, {report.left_alone:.1%} of the others left alone. -> {target}"
    )


@finetune.command("examples")
def finetune_examples(
    source: Source = "sample",
    limit: Limit = None,
    columns: ColumnNames = None,
    rounds: Annotated[int, typer.Option(min=1, help="Examples of each dialogue.")] = 2,
    documents: Annotated[
        float, typer.Option(min=0, max=1, help="Share with documents (RAFT); the rest is SFT.")
    ] = 0.6,
    oracle: Annotated[
        float, typer.Option(min=0, max=1, help="P: share of those with a relevant document.")
    ] = 0.8,
    distractors: Annotated[int, typer.Option("--distractors", "-k", min=0)] = 1,
    multi_turn: Annotated[
        float, typer.Option(min=0, max=1, help="Share that follows an earlier exchange.")
    ] = 0.15,
    seed: int = 0,
    output: Annotated[
        Path | None, typer.Option(help="A folder; default: MEDRAFT_HOME/finetuning/examples.")
    ] = None,
) -> None:
    """Make SFT and RAFT examples: the prompts of a conversation, with the replies to learn."""
    import asyncio

    from agent.finetuning.examples import Recipe
    from agent.finetuning.prepare import prepare
    from index_store.cleaning import clean
    from index_store.dataset import Columns, read_rows

    settings = settings_module.load()
    folder = output or settings.home / "finetuning" / "examples"
    recipe = Recipe(rounds, documents, oracle, distractors, multi_turn, seed)
    names = Columns.parse(columns) if columns else None
    dialogues, cleaning = clean(read_rows(source, names, limit))
    made = asyncio.run(
        prepare(settings, dialogues, cleaning, recipe, folder, source=source, limit=limit)
    )
    print(f"Dialogues: {_counts(made.dialogues)}.")
    print(f"Examples: {_counts(made.examples)}; {_counts(made.held)}. -> {folder}")


@finetune.command("train")
def finetune_train(
    output: Annotated[Path, typer.Option(help="The adapter's folder; again, to go on.")],
    examples: Annotated[
        Path | None, typer.Option(help="A folder; default: MEDRAFT_HOME/finetuning/examples.")
    ] = None,
    epochs: Annotated[float, typer.Option(min=0.01)] = 1.0,
    rank: Annotated[int, typer.Option(help="Of the LoRA; its alpha is twice that.")] = 16,
    learning_rate: Annotated[float, typer.Option(min=0)] = 1.5e-3,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples of one step.")] = 8,
    at_once: Annotated[int, typer.Option(min=1, help="Of these, in memory at once.")] = 4,
    four_bit: Annotated[bool, typer.Option(help="QLoRA; CUDA only.")] = False,
    seed: int = 0,
) -> None:
    """Train a LoRA adapter of MEDRAFT_MODEL; a run that was killed goes on where it was."""
    from agent.finetuning.training import Training, train

    settings = settings_module.load()
    training = Training(epochs, rank, learning_rate, batch_size, at_once, four_bit, seed=seed)
    folder = examples or settings.home / "finetuning" / "examples"
    record = train(settings, training, folder, output)
    print(
        f"{record['steps']} steps in {record['minutes']} minutes, validation loss "
        f"{record['best_validation_loss']:.3f} at step {record['best_step']}. "
        f"-> MEDRAFT_ADAPTER={output}"
    )


@finetune.command("export")
def finetune_export(
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


@app.command()
def setup() -> None:
    """Prepare what the first conversation needs: the embedded model and the sample's index."""
    from agent.llms import choose, weights

    settings = settings_module.load()
    models = settings.home / "models"
    if settings.model in ("auto", "embedded") and choose(settings) == "llama_cpp":
        print(f"The model: {weights.llama_cpp_file(models)}")
    if not (settings.index_dir / "manifest.json").exists():
        print("The index: embedding the sample (about half a minute)")
        index_build()
    else:
        index_info()


def _settings(llm: LLMChoice | None, retrieval: Retrieval | None) -> Settings:
    chosen = {"llm": llm, "retrieval": retrieval}
    return settings_module.load(**{name: value for name, value in chosen.items() if value})


def _load(settings: Settings) -> Agent:
    if sys.stderr.isatty():
        print("Loading the models ...", file=sys.stderr)
    from agent import loading

    agent = loading.load(settings)
    agent.engine.llm(settings.llm)  # a choice that cannot be had is told before any question
    return agent


def _lines() -> Iterator[tuple[int, Any]]:
    """The JSON values of standard input with their line numbers; empty lines are passed over."""
    for number, line in enumerate(sys.stdin, start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except json.JSONDecodeError as error:
            raise AgentError(f"Line {number} of standard input is not JSON: {error.msg}.") from None


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False), flush=True)


def main() -> None:
    """Run a command; a known error is one sentence on standard error and exit code 2."""
    try:
        app()
    except (AgentError, StoreError) as error:
        print(f"medraft: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
