"""One generation of the index: everything that is searched, in a folder of its own.

Owns which files there are and the order in which they come to be, row by row and with bounded
memory. Does not know which rows are wanted, nor when a generation begins to serve.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from index_store import bm25, replies, vectors
from index_store.disk import sync
from index_store.embedding import embed_texts, load_embedding
from index_store.journal import Journal, places
from index_store.manifest import FileRecord
from index_store.node import searched_text
from index_store.replies import Kept, Replies

if TYPE_CHECKING:
    import numpy as np

VECTORS, NEAREST, BM25 = "vectors.faiss", "nearest.faiss", "bm25"
REPLIES, IDS = "replies.sqlite", "ids.u64"
CHUNK = 1024  # rows that a killed build embeds twice at most


class Embedded(Protocol):
    """Rows that have their vectors already: those of the index that is replaced."""

    @property
    def ids(self) -> np.ndarray[Any, Any]: ...

    @property
    def dimension(self) -> int: ...

    def vectors(self, positions: Any) -> np.ndarray[Any, Any]: ...


class Generation:
    """A folder that is being filled. Its steps are called once each, in their order.

    All raise OSError or sqlite3.Error if the disk is full, StoreError for what people can mend.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder

    def write_replies(self, rows: Iterable[Kept]) -> int:
        """Write the rows as they come; how many there are."""
        return replies.write(self.folder / REPLIES, self.folder / IDS, rows)

    def share(self, positions: Iterable[int], source: str) -> None:
        """Note that `source` holds the rows at `positions`, too."""
        replies.share(self.folder / REPLIES, positions, source)

    def write_vectors(
        self, embed_model: str, old: Embedded | None, journal: Journal, progress: bool
    ) -> tuple[int, int]:
        """Embed the rows that neither `old` nor the journal holds; the dimension, how many."""
        import numpy as np

        rows = Replies(self.folder / REPLIES, self.folder / IDS)
        try:
            known = np.empty(0, dtype="<u8") if old is None else old.ids
            in_old = places(known, rows.ids)
            new = np.flatnonzero((in_old < 0) & (journal.rows_of(rows.ids) < 0))
            self._embed(rows, new, embed_model, journal, progress)
            in_journal = journal.rows_of(rows.ids)
            dimension = journal.dimension if old is None else old.dimension

            def blocks() -> Iterator[np.ndarray[Any, Any]]:
                for start in range(0, len(rows.ids), vectors.BLOCK):
                    there = in_old[start : start + vectors.BLOCK]
                    block = np.empty((len(there), dimension), dtype=np.float32)
                    if old is not None and (there >= 0).any():
                        block[there >= 0] = old.vectors(there[there >= 0])
                    if (there < 0).any():
                        here = in_journal[start : start + vectors.BLOCK]
                        block[there < 0] = journal.vectors(here[there < 0])
                    yield block

            vectors.write(self.folder / VECTORS, blocks(), len(rows.ids), dimension)
            return dimension, len(new)
        finally:
            rows.close()

    def write_bm25(self) -> None:
        """Index the terms of the rows."""
        rows = Replies(self.folder / REPLIES, self.folder / IDS)
        try:
            bm25.write(self.folder / BM25, (searched_text(row) for _, row in rows.all()))
        finally:
            rows.close()

    def write_nearest(self, factory: str) -> None:
        """Index the vectors by a FAISS factory string, unless it is the exact one."""
        if factory != vectors.EXACT:
            exact = vectors.opened(self.folder / VECTORS)
            vectors.write_nearest(self.folder / NEAREST, exact, factory)

    def synced(self) -> dict[str, FileRecord]:
        """Flush everything to the disk; the files by their names."""
        records = {}
        for path in sorted(self.folder.rglob("*")):
            sync(path)
            if path.is_file():
                records[path.relative_to(self.folder).as_posix()] = FileRecord.of(path)
        sync(self.folder)
        return records

    def _embed(
        self,
        rows: Replies,
        new: np.ndarray[Any, Any],
        embed_model: str,
        journal: Journal,
        progress: bool,
    ) -> None:
        import numpy as np
        from tqdm import tqdm

        if len(new) == 0:
            return
        embedding = load_embedding(embed_model)
        lengths = rows.lengths()[new]
        # By length, so that a batch holds hardly any padding; the longest first, so that too
        # little memory shows at once. In characters, the time that is left is about right.
        by_length = new[np.argsort(-lengths, kind="stable")]
        with tqdm(
            total=int(lengths.sum()),
            desc=f"Embedding {len(new)} rows",
            unit="chars",
            unit_scale=True,
            disable=None if progress else True,
        ) as bar:
            for start in range(0, len(by_length), CHUNK):
                chunk = by_length[start : start + CHUNK]
                found = rows.read(chunk.tolist())
                texts = [searched_text(found[position]) for position in chunk.tolist()]
                journal.append(rows.ids[chunk], embed_texts(embedding, texts))
                bar.update(sum(map(len, texts)) - 2 * len(texts))
        journal.reread()


def opened_files(
    folder: Path, factory: str, search_on: str
) -> tuple[Any, Any, bm25.BM25Index, Replies]:
    """What a generation holds: all vectors, the way to the nearest, BM25, the replies."""
    exact = vectors.opened(folder / VECTORS)
    nearest = exact if factory == vectors.EXACT else vectors.open_nearest(folder / NEAREST)
    if search_on == "gpu":
        nearest = vectors.OnGpu(nearest)
    return exact, nearest, bm25.BM25Index(folder / BM25), Replies(folder / REPLIES, folder / IDS)
