"""`medraft index`: build, info, search."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from agent import settings as settings_module
from agent.cli.options import ColumnNames, Dir, Json, Limit, Source, print_json

app = typer.Typer(no_args_is_help=True, help="The persisted index of doctors' replies.")


@app.command("build")
def build(
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


@app.command("info")
def info(directory: Dir = None, as_json: Json = False) -> None:
    """What is in the index, and where it came from."""
    from index_store import manifest

    settings = settings_module.load()
    found = manifest.read(directory or settings.index_dir)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    size = sum(file.bytes for file in found.files.values())
    print(f"{found.rows} replies from {found.source}, built {found.built_at:%Y-%m-%d %H:%M} UTC")
    print(f"{found.cleaning}.")
    print(f"{found.embed_model}, {found.dimension} dimensions; {size / 2**20:.1f} MiB on disk")


@app.command("search")
def search(
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
        print_json([asdict(hit) for hit in hits])
        return
    for hit in hits:
        print(f"{hit.rank}. {hit.title}  (similarity {hit.score:.2f})\n   {hit.doctor}\n")
