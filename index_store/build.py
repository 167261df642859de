"""Building the index: embed, index, write, commit.

Owns the order in which files come to be, so that a build that is killed leaves the index that
was there before. Does not know where dialogues come from, nor how they are searched.
"""

from __future__ import annotations

import secrets
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from index_store import manifest as manifests
from index_store.cleaning import Cleaning
from index_store.dataset import Dialogue
from index_store.embedding import embed_texts, identity, load_embedding
from index_store.errors import StoreError, reason
from index_store.manifest import SCHEMA_VERSION, FileRecord, Manifest, sync
from index_store.store import REPLIES, VECTORS, WORDS, IndexStore, tokenize

if TYPE_CHECKING:
    import numpy as np

GENERATION, BUILDING, LOCK = "generation-", "building-", "build.lock"
BATCH = 128  # rows between two steps of the progress bar


@dataclass(frozen=True)
class Built:
    """A committed index, and how many of its rows were embedded now and taken over."""

    manifest: Manifest
    embedded: int
    reused: int


def build(
    dialogues: Sequence[Dialogue],
    cleaning: Cleaning,
    directory: Path,
    embed_model: str,
    *,
    source: str = "sample",
    limit: int | None = None,
    progress: bool = True,
) -> Built:
    """Replace the index in `directory` by one of `dialogues`, all of it or nothing.

    Rows that the index there holds already, with the same embedding model, are not embedded
    again. `cleaning`, `source` and `limit` are recorded. Progress is shown on standard error
    if that is a terminal.

    Raises StoreError if there is nothing to index, if another build is running there, if the
    embedding model is not to be had, or if the index cannot be written.
    """
    from filelock import FileLock, Timeout

    if not dialogues:
        raise StoreError(f"There are no usable rows in {source} ({cleaning}).")
    identity(embed_model)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with FileLock(directory / LOCK, timeout=0):
            _sweep(directory, (BUILDING,))
            name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
            folder = directory / (BUILDING + name)
            try:
                dimension, embedded = _write(folder, dialogues, directory, embed_model, progress)
                manifest = Manifest(
                    schema_version=SCHEMA_VERSION,
                    embed_model=identity(embed_model),
                    dimension=dimension,
                    source=source,
                    limit=limit,
                    built_at=datetime.now(UTC).replace(microsecond=0),
                    rows=len(dialogues),
                    cleaning=cleaning,
                    generation=GENERATION + name,
                    files=_sync_and_record(folder),
                )
                folder.rename(directory / manifest.generation)
                sync(directory)
                manifests.write(directory, manifest)  # from here on the new index serves
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            _sweep(directory, (BUILDING, GENERATION), keep=manifest.generation)
    except Timeout:
        raise StoreError(
            f"Another build is writing to {directory}: wait until it has finished."
        ) from None
    except (OSError, sqlite3.Error) as error:
        raise StoreError(
            f"The index cannot be written to {directory} ({reason(error)}): check the free space "
            "and the permissions, or choose another directory with --dir. What was there before "
            "is unchanged."
        ) from error
    return Built(manifest, embedded, len(dialogues) - embedded)


def _write(
    folder: Path, dialogues: Sequence[Dialogue], directory: Path, embed_model: str, progress: bool
) -> tuple[int, int]:
    """Fill `folder`; the vectors' dimension, and how many rows were embedded."""
    from index_store.node import searched_text

    texts = [searched_text(dialogue) for dialogue in dialogues]
    ids = [dialogue.id for dialogue in dialogues]
    folder.mkdir()
    vectors, embedded = _embed(texts, ids, directory, embed_model, progress)
    _write_vectors(folder / VECTORS, vectors)
    _write_words(folder / WORDS, texts)
    _write_replies(folder / REPLIES, dialogues)
    return vectors.shape[1], embedded


def _embed(
    texts: list[str], ids: list[str], directory: Path, embed_model: str, progress: bool
) -> tuple[np.ndarray[Any, Any], int]:
    """Unit vectors (rows, d), and how many of them were not in the index that lies there."""
    import numpy as np
    from tqdm import tqdm

    known, old = _known_vectors(directory, embed_model, ids)
    new = [row for row, id_ in enumerate(ids) if id_ not in known]
    parts = []
    if new:
        embedding = load_embedding(embed_model)
        with tqdm(
            total=len(new), desc="Embedding", unit="row", disable=None if progress else True
        ) as bar:
            for start in range(0, len(new), BATCH):
                batch = new[start : start + BATCH]
                parts.append(embed_texts(embedding, [texts[row] for row in batch]))
                bar.update(len(batch))
    dimension = (parts[0] if parts else old).shape[1]
    vectors = np.empty((len(ids), dimension), dtype=np.float32)
    if new:
        vectors[new] = np.concatenate(parts)
    for row, id_ in enumerate(ids):
        if id_ in known:
            vectors[row] = old[known[id_]]
    return vectors, len(new)


def _known_vectors(
    directory: Path, embed_model: str, ids: list[str]
) -> tuple[dict[str, int], np.ndarray[Any, Any]]:
    """Vectors of the index that lies in `directory`, and which of its rows holds which id."""
    import numpy as np

    try:
        old = IndexStore.open(directory, embed_model)
    except StoreError:  # none there, or none that can be used: everything is new
        return {}, np.empty((0, 0), dtype=np.float32)
    with old:
        positions = old.positions()
        common = [id_ for id_ in dict.fromkeys(ids) if id_ in positions]
        vectors = old.vectors([positions[id_] for id_ in common])
    return {id_: row for row, id_ in enumerate(common)}, vectors


def _write_vectors(path: Path, vectors: np.ndarray[Any, Any]) -> None:
    import faiss
    from llama_index.vector_stores.faiss import FaissVectorStore

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    try:
        FaissVectorStore(index).persist(str(path))
        # FAISS does not report a disk that fills up with the last block: read it back.
        written = FaissVectorStore.from_persist_path(str(path)).client.ntotal
    except RuntimeError as error:
        raise OSError(reason(error)) from error
    if written != len(vectors):
        raise OSError(f"{written} of {len(vectors)} vectors were written")


def _write_words(path: Path, texts: list[str]) -> None:
    import bm25s

    tokens = tokenize(texts)
    if not tokens.vocab:
        raise StoreError("There are no usable rows: none has a word that can be searched for.")
    index = bm25s.BM25()
    index.index(tokens, show_progress=False)
    index.save(path, show_progress=False)


def _write_replies(path: Path, dialogues: Sequence[Dialogue]) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "CREATE TABLE replies (position INTEGER PRIMARY KEY, id TEXT NOT NULL, "
            "title TEXT NOT NULL, patient TEXT NOT NULL, doctor TEXT NOT NULL)"
        )
        database.executemany(
            "INSERT INTO replies VALUES (?, ?, ?, ?, ?)",
            ((i, d.id, d.title, d.patient, d.doctor) for i, d in enumerate(dialogues)),
        )
        database.commit()


def _sync_and_record(folder: Path) -> dict[str, FileRecord]:
    """Flush everything below `folder` to the disk; the files by name relative to it."""
    records = {}
    for path in sorted(folder.rglob("*")):
        sync(path)
        if path.is_file():
            records[path.relative_to(folder).as_posix()] = FileRecord.of(path)
    sync(folder)
    return records


def _sweep(directory: Path, prefixes: tuple[str, ...], keep: str | None = None) -> None:
    """Delete what earlier builds left; what cannot be deleted now is deleted by the next."""
    for path in directory.iterdir():
        if path.name.startswith(prefixes) and path.name != keep:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
