"""`medraft index`: build and change it, back it up, look into it, search it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent import settings as settings_module
from agent.cli.options import (
    FILES,
    ColumnNames,
    Config,
    Dir,
    Json,
    KeepAsIs,
    Limit,
    Source,
    Split,
    Strict,
    check_question,
    print_json,
    text_lines,
)
from agent.cli.rows import NewRows
from agent.errors import AgentError

if TYPE_CHECKING:
    from agent.settings import Settings
    from index_store.build import Built
    from index_store.dataset import Dialogue
    from index_store.measure import Measured

app = typer.Typer(no_args_is_help=True, help="The persisted index of doctors' replies.")


@app.command("build")
def build(
    source: Source = "sample",
    limit: Limit = None,
    columns: ColumnNames = None,
    config: Config = None,
    split: Split = None,
    strict: Strict = False,
    keep_as_is: KeepAsIs = False,
    directory: Dir = None,
    factory: Annotated[
        str, typer.Option(help="FAISS's: Flat is exact; HNSW32, IVF1024,PQ48 are approximate.")
    ] = "Flat",
) -> None:
    """Embed the doctors' replies of a source and persist the index, all of it or nothing.

    Rows that cannot be read are skipped, if they are few, and told. A build that was killed goes on
    where it was when it is called again.
    """
    from index_store.build import build
    from index_store.vectors import check

    settings = settings_module.load()
    check(factory, settings.search_on)
    target = directory or settings.index_dir
    new = NewRows(source, limit, columns, config, split, strict, keep_as_is)
    built = build(
        new.rows,
        target,
        settings.embed_model,
        source=new.name,
        limit=limit,
        factory=factory,
        cleaner=new.cleaner,
    )
    new.tell()
    _say(built, target)


@app.command("add")
def add(
    source: Annotated[str, typer.Option(help=f"{FILES.capitalize()}, or a Hub data set.")],
    limit: Limit = None,
    columns: ColumnNames = None,
    config: Config = None,
    split: Split = None,
    strict: Strict = False,
    keep_as_is: KeepAsIs = False,
    directory: Dir = None,
) -> None:
    """Add the replies of a source, in place of those that came from it before."""
    from index_store.build import add

    settings = settings_module.load()
    target = directory or settings.index_dir
    new = NewRows(source, limit, columns, config, split, strict, keep_as_is)
    built = add(
        new.rows,
        target,
        settings.embed_model,
        source=new.name,
        limit=limit,
        cleaner=new.cleaner,
    )
    new.tell()
    _say(built, target)


@app.command("remove")
def remove(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids, as `search --json` tells.")] = None,
    source: Annotated[
        list[str] | None, typer.Option(help="All replies of this source; may come again.")
    ] = None,
    containing: Annotated[
        list[str] | None,
        typer.Option(help="Replies with these words, say a name, in any text; may come again."),
    ] = None,
    directory: Dir = None,
) -> None:
    """Remove replies: their text, their vectors and their words."""
    from index_store import manifest
    from index_store.build import remove

    settings = settings_module.load()
    target = directory or settings.index_dir
    wanted, sources = set(ids or ()), source or []
    phrases = [phrase for each in containing or [] if (phrase := " ".join(each.casefold().split()))]
    if not wanted and not sources and not phrases:
        raise AgentError("Nothing is named to be removed: give ids, --source or --containing.")
    known = [each.name for each in manifest.read(target).sources]
    if strange := [each for each in sources if each not in known]:
        raise AgentError(
            f"There is no source {', '.join(strange)} in {target}: it has {', '.join(known)}."
        )
    met: set[str] = set()

    def unwanted(name: str, row: Dialogue) -> bool:
        texts = " ".join(f"{row.title} {row.patient} {row.doctor}".casefold().split())
        if row.id in wanted:
            met.add(row.id)
            return True
        return name in sources or any(phrase in texts for phrase in phrases)

    built = remove(unwanted, target, settings.embed_model)
    verb = "is" if built.removed == 1 else "are"
    print(
        f"{_replies(built.removed)} {verb} removed from {target}, with text, vectors and words; "
        f"{built.manifest.rows} are left. A page that runs uses the new index from its next "
        "search on. What backups, the source itself and stored conversations hold is not touched."
    )
    if built.released:
        print(f"{_replies(built.released)} stayed, because another source holds them, too.")
    if unknown := sorted(wanted - met):
        print(f"There is no reply {', '.join(unknown)}.", file=sys.stderr)


@app.command("compact")
def compact(directory: Dir = None) -> None:
    """Write the index anew and delete whatever else lies beside it."""
    from index_store.build import compact

    settings = settings_module.load()
    target = directory or settings.index_dir
    _say(compact(target, settings.embed_model), target)


@app.command("backup")
def backup(archive: Path, directory: Dir = None) -> None:
    """Write the index to one file, a .tar."""
    from index_store.backup import backup

    target = directory or settings_module.load().index_dir
    print(f"{_replies(backup(target, archive).rows)} of {target} -> {archive}")


@app.command("restore")
def restore(archive: Path, directory: Dir = None) -> None:
    """Replace the index by that of a backup, all of it or nothing."""
    from index_store.backup import restore

    target = directory or settings_module.load().index_dir
    print(f"{_replies(restore(archive, target).rows)} of {archive} -> {target}")


@app.command("info")
def info(
    directory: Dir = None,
    as_json: Json = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Search it: recall against exact, and times.")
    ] = False,
) -> None:
    """What is in the index, and where it came from."""
    from index_store import manifest

    settings = settings_module.load()
    target = directory or settings.index_dir
    found = manifest.read(target)
    measured = _measured(target, settings) if measure else None
    if as_json:
        told = {"measured": asdict(measured)} if measured else {}
        print_json(found.model_dump(mode="json") | told)
        return
    size = sum(file.bytes for file in found.files.values())
    print(f"{_replies(found.rows)}, built {found.built_at:%Y-%m-%d %H:%M} UTC")
    for source in found.sources:
        left = "" if source.rows is None else f"{source.rows} "
        print(f"{left}from {source.name}: {source.cleaning}.")
    print(
        f"{found.embed_model}, {found.dimension} dimensions, {found.factory}; "
        f"{size / 2**20:.1f} MiB on disk"
    )
    if measured:
        print(
            f"{found.factory} finds {measured.recall:.1%} of the ten nearest "
            f"({measured.queries} questions), in {_ms(measured.nearest_ms)}; "
            f"exactly in {_ms(measured.exact_ms)}; "
            f"a search with BM25 and texts takes {_ms(measured.search_ms)}"
        )


@app.command("search")
def search(
    question: Annotated[str, typer.Argument(help="`-` reads one a line from standard input.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many replies.")] = 5,
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """The replies nearest to a question: by vectors and by BM25."""
    from index_store.embedding import question_embedder
    from index_store.store import IndexStore

    check_question(question)
    settings = settings_module.load()
    questions = text_lines() if question == "-" else iter([question])
    target = directory or settings.index_dir
    with IndexStore.open(target, settings.embed_model, settings.search_on) as store:
        embed = question_embedder(settings.embed_model)
        for asked in questions:
            hits = store.search(asked, embed([asked])[0], k)
            if as_json:
                print_json([asdict(hit) for hit in hits])
                continue
            if question == "-":
                print(f"> {asked}\n")
            for hit in hits:
                print(f"{hit.rank}. {hit.title}  (similarity {hit.score:.2f})\n   {hit.doctor}\n")


def _replies(count: int) -> str:
    return "1 reply" if count == 1 else f"{count} replies"


def _say(built: Built, directory: Path) -> None:
    if built.cleaning:
        print(f"{built.cleaning}.")
    print(
        f"{_replies(built.manifest.rows)} in {directory}: "
        f"{built.embedded} embedded, {built.reused} as they were."
    )


def _measured(directory: Path, settings: Settings) -> Measured:
    from index_store.measure import measure
    from index_store.store import IndexStore

    with IndexStore.open(directory, settings.embed_model, settings.search_on) as store:
        return measure(store, settings.embed_model)


def _ms(percentiles: tuple[float, float]) -> str:
    return "{:.1f} ms (99th percentile {:.1f})".format(*percentiles)
