"""Changing the index: build it, add to it, remove from it, compact it.

Owns which rows the next generation holds, and its commit: whatever the change, a new generation
is written beside the one that serves, and takes its place in one step. Hence a change that is
killed leaves the index as it was, and every index is compact. Does not know what a generation
consists of, nor where rows come from.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from index_store import manifest as manifests
from index_store.changing import BUILDING, GENERATION, changing, sweep, sweep_unfinished
from index_store.cleaning import Cleaner, Cleaning
from index_store.dataset import Dialogue
from index_store.disk import sync
from index_store.embedding import identity
from index_store.errors import StoreError, reason
from index_store.generation import Generation
from index_store.journal import Journal
from index_store.manifest import SCHEMA_VERSION, Manifest, Source
from index_store.replies import Damage, Kept
from index_store.store import IndexStore
from index_store.vectors import EXACT

log = logging.getLogger("medraft")

# Of the sources that hold a row, those that go on holding it; a row that none holds is gone.
Stays = Callable[[tuple[str, ...], Dialogue], tuple[str, ...]]
New = tuple[str, int | None, Iterable[Dialogue]]  # a source, its limit, its cleaned rows


@dataclass(frozen=True)
class Built:
    """A committed index; how many rows were embedded, were there before, and are gone; and how many
    that a source has let go of are still held by another (`released`).

    `cleaning` is what was done to the rows that came new, if any did.
    """

    manifest: Manifest
    embedded: int
    reused: int
    removed: int
    cleaning: Cleaning | None
    released: int = 0


def build(
    rows: Iterable[Dialogue],
    directory: Path,
    embed_model: str,
    *,
    source: str = "sample",
    limit: int | None = None,
    factory: str = EXACT,
    cleaner: Cleaner | None = None,
    progress: bool = True,
) -> Built:
    """Replace the index in `directory` by one of `rows`, cleaned: all of it or nothing.

    Rows that the index there holds already, or that a killed build had embedded, are not
    embedded again. `source` and `limit` are recorded; `factory` is FAISS's; `cleaner` is one that
    has not cleaned yet. Progress is shown on standard error if that is a terminal.

    Raises StoreError if there is nothing to index, if another change is running there, if the
    embedding model is not to be had, or if the index cannot be written.
    """
    change = _Change(directory, embed_model, progress, cleaner)
    # Nothing is created for a source that cannot be read, or has nothing to index.
    usable = change.cleaner.keep(rows)
    first = next(usable, None)
    if first is None:
        raise _nothing(source, change.cleaner.report())
    return change.run(lambda *_: (), (source, limit, chain([first], usable)), factory)


def add(
    rows: Iterable[Dialogue],
    directory: Path,
    embed_model: str,
    *,
    source: str,
    limit: int | None = None,
    cleaner: Cleaner | None = None,
    progress: bool = True,
) -> Built:
    """Add `rows`, cleaned, in place of those that came from the same source before. A row that
    another source holds, too, is held by both.

    Raises StoreError as `build` does, and if there is no index.
    """
    change = _Change(directory, embed_model, progress, cleaner)
    return change.run(
        lambda names, _: tuple(name for name in names if name != source),
        (source, limit, change.cleaner.keep(rows)),
    )


def remove(unwanted: Callable[[str, Dialogue], bool], directory: Path, embed_model: str) -> Built:
    """Remove the rows of which `unwanted(source, row)` is true for every source that holds them:
    text, vector and BM25 entry. Those of which it is true for some stay, as the others'.

    Raises StoreError as `build` does, if there is no index, if no row is unwanted, or if all
    are.
    """
    with IndexStore.open(directory, embed_model) as store:
        if not any(unwanted(name, row) for names, row in store.rows() for name in names):
            raise StoreError(f"Nothing was removed: no such reply is in {directory}.")
    change = _Change(directory, embed_model, progress=False)
    return change.run(lambda names, row: tuple(name for name in names if not unwanted(name, row)))


def compact(directory: Path, embed_model: str) -> Built:
    """Write the index anew as it is, and delete whatever else lies beside it.

    Raises StoreError as `build` does, and if there is no index.
    """
    return _Change(directory, embed_model, progress=False).run(lambda names, _: names)


class _Change:
    """From the index that lies in a directory to the next one."""

    def __init__(
        self, directory: Path, embed_model: str, progress: bool, cleaner: Cleaner | None = None
    ) -> None:
        self._directory = directory
        self._embed_model = embed_model
        self._progress = progress
        self.cleaner = cleaner or Cleaner()
        self._rows_of: Counter[str] = Counter()
        self._removed = 0
        self._released = 0

    def run(
        self,
        stays: Stays,
        new: New | None = None,
        factory: str | None = None,
    ) -> Built:
        """Write the rows that stay, and the new ones; without a factory, the old one's."""
        directory = self._directory
        model = identity(self._embed_model)
        if factory is None:
            manifests.read(directory, model)  # there must be an index
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with changing(directory):
                sweep_unfinished(directory)
                old = self._old(required=factory is None)
                with nullcontext() if old is None else closing(old):
                    built = self._written(old, stays, new, factory)
                sweep(directory, built.manifest)
        except Damage as error:
            raise manifests.damaged(directory, str(error)) from error
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"The index cannot be written to {directory} ({reason(error)}): check the free "
                "space and the permissions, or choose another directory with --dir. What was "
                "there before is unchanged."
            ) from error
        return built

    def _old(self, required: bool) -> IndexStore | None:
        try:
            return IndexStore.open(self._directory, self._embed_model)
        except StoreError:  # none there, or none that can be used: everything is new
            if required:
                raise
            return None

    def _written(
        self,
        old: IndexStore | None,
        stays: Stays,
        new: New | None,
        factory: str | None,
    ) -> Built:
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
        building = Generation(self._directory / (BUILDING + name))
        model = identity(self._embed_model)
        try:
            rows = building.write_replies(self._rows(old, stays, new))
            if new is not None and self.cleaner.shared:
                building.share(self.cleaner.shared, new[0])
                self._rows_of[new[0]] += len(self.cleaner.shared)
            self._check(rows, new)
            building.write_bm25()
            dimension, embedded = building.write_vectors(
                self._embed_model, old, Journal(self._directory, model), self._progress
            )
            factory = _nearest_of(building, factory, old)
            sources = [] if old is None else old.manifest.sources
            if new is not None:
                came = Source(name=new[0], limit=new[1], cleaning=self.cleaner.report())
                sources = [*(s for s in sources if s.name != came.name), came]
            manifest = Manifest(
                schema_version=SCHEMA_VERSION,
                embed_model=model,
                dimension=dimension,
                factory=factory,
                sources=[
                    source.model_copy(update={"rows": self._rows_of[source.name]})
                    for source in sources
                    if self._rows_of[source.name]
                ],
                built_at=datetime.now(UTC).replace(microsecond=0),
                rows=rows,
                generation=GENERATION + name,
                files=building.synced(),
            )
            building.folder.rename(self._directory / manifest.generation)
            sync(self._directory)
            manifests.write(self._directory, manifest)  # from here on the new index serves
        finally:
            shutil.rmtree(building.folder, ignore_errors=True)
        cleaning = None if new is None else self.cleaner.report()
        return Built(manifest, embedded, rows - embedded, self._removed, cleaning, self._released)

    def _rows(
        self,
        old: IndexStore | None,
        stays: Stays,
        new: New | None,
    ) -> Iterator[Kept]:
        position = 0
        for sources, row in [] if old is None else old.rows():
            if left := stays(sources, row):
                self._released += len(left) < len(sources)
                self.cleaner.know(row, position)
                self._rows_of.update(left)
                position += 1
                yield left, row
            else:
                self._removed += 1
        if new is not None:
            for row in new[2]:
                self._rows_of[new[0]] += 1
                yield (new[0],), row

    def _check(self, rows: int, new: New | None) -> None:
        if new is not None and self._rows_of[new[0]] == 0:
            raise _nothing(new[0], self.cleaner.report())
        if rows == 0:
            raise StoreError(
                f"This would remove all rows of the index: delete the folder {self._directory} "
                "if you mean that."
            )


def _nearest_of(building: Generation, factory: str | None, old: IndexStore | None) -> str:
    """Write the nearest vectors by a factory, or else the old one's; it is returned. Where too few
    rows are left for the old one, by none: what is to go must go."""
    wanted = factory or (old.manifest.factory if old else EXACT)
    try:
        building.write_nearest(wanted)
    except StoreError as error:
        if factory is not None:
            raise
        log.warning("%s Until then it is searched by Flat.", error)
        wanted = EXACT
        building.write_nearest(wanted)
    return wanted


def _nothing(source: str, cleaning: Cleaning) -> StoreError:
    return StoreError(f"There are no usable rows in {source} ({cleaning}).")
