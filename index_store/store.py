"""The persisted index, opened: verified, searched, read.

Owns what lies in a generation's folder, how a question is searched there and how the two
rankings are fused. Does not know how the index is built, nor what the hits are for.
"""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from index_store import manifest as manifests
from index_store.embedding import identity
from index_store.manifest import FileRecord, Manifest

if TYPE_CHECKING:
    import numpy as np

VECTORS, WORDS, REPLIES = "vectors.faiss", "bm25", "replies.sqlite"
CANDIDATES = 50  # of each ranking, at least
RRF_K = 60  # Cormack, Clarke, Buettcher 2009: reciprocal rank fusion


@dataclass(frozen=True)
class Hit:
    """A reply that was found. `rank` counts from 1; `score` is the cosine, -1 to 1."""

    id: str
    rank: int
    score: float
    title: str
    patient: str
    doctor: str


class Damage(ValueError):
    """A file that is not the one that was written; the message says which and how."""


class IndexStore:
    """An open index. Searching and reading are safe from several threads."""

    def __init__(
        self, manifest: Manifest, vectors: Any, words: Any, replies: sqlite3.Connection
    ) -> None:
        """Take what `open` has read: a FAISS index, a BM25 index and the replies' database."""
        self.manifest = manifest
        self._vectors = vectors
        self._words = words
        self._replies = replies
        self._reading = threading.Lock()

    @classmethod
    def open(cls, directory: Path, embed_model: str) -> IndexStore:
        """Open the index in `directory`, built with the model that `embed_model` names.

        Every file's size and SHA-256 is checked first. Raises StoreError if there is no index,
        if it is damaged, or if it is of another schema or another model.
        """
        expected = identity(embed_model)
        manifest = manifests.read(directory, expected)
        while True:
            try:
                return cls._open(directory / manifest.generation, manifest)
            except (OSError, ValueError, RuntimeError, sqlite3.Error) as error:
                newest = manifests.read(directory, expected)
                if newest.generation == manifest.generation:
                    what = str(error) if isinstance(error, Damage) else "a file does not open"
                    raise manifests.damaged(directory, what, manifest) from error
                # A rebuild has replaced the generation since its name was read.
                manifest = newest

    @classmethod
    def _open(cls, folder: Path, manifest: Manifest) -> IndexStore:
        import bm25s
        from llama_index.vector_stores.faiss import FaissVectorStore

        verify(folder, manifest)
        vectors = FaissVectorStore.from_persist_path(str(folder / VECTORS)).client
        words = bm25s.BM25.load(folder / WORDS, show_progress=False)
        # Immutable: the files of a generation never change, so no lock is taken and none is
        # left beside them, and the folder may be read-only.
        address = (folder / REPLIES).resolve().as_uri() + "?mode=ro&immutable=1"
        replies = sqlite3.connect(address, uri=True, check_same_thread=False)
        return cls(manifest, vectors, words, replies)

    def search(self, query_text: str, query_vector: np.ndarray[Any, Any], k: int) -> list[Hit]:
        """Find the `k` best replies for a question: its text, and its unit vector (d,).

        The order is by reciprocal rank fusion of inner product and BM25, equals by cosine; the
        score is the cosine of question and reply. Hence scores need not fall with the rank.
        Fewer than `k` hits if the index is smaller. Raises ValueError for a vector of another
        dimension.
        """
        import numpy as np

        query = np.asarray(query_vector, dtype=np.float32).reshape(1, self.manifest.dimension)
        depth = min(self.manifest.rows, max(CANDIDATES, 5 * k))
        fused: dict[int, float] = {}
        _, nearest = self._vectors.search(query, depth)
        for ranking in (nearest[0].tolist(), self._words_ranking(query_text, depth)):
            for rank, position in enumerate(ranking, 1):
                fused[position] = fused.get(position, 0.0) + 1 / (RRF_K + rank)
        found = list(fused)
        cosine = dict(zip(found, (self.vectors(found) @ query[0]).tolist(), strict=True))
        best = sorted(found, key=lambda position: (-fused[position], -cosine[position]))[:k]
        rows = self._rows(best)
        return [Hit(rows[p][0], rank, cosine[p], *rows[p][1:]) for rank, p in enumerate(best, 1)]

    def positions(self) -> dict[str, int]:
        """Where each reply's vector stands, by the reply's id."""
        with self._reading:
            return dict(self._replies.execute("SELECT id, position FROM replies"))

    def vectors(self, positions: list[int]) -> np.ndarray[Any, Any]:
        """The unit vectors at `positions`, (len(positions), d) float32."""
        import numpy as np

        found: np.ndarray[Any, Any] = self._vectors.reconstruct_batch(
            np.asarray(positions, dtype=np.int64)
        )
        return found

    def close(self) -> None:
        """Let go of the database; searching is over."""
        self._replies.close()

    def __enter__(self) -> IndexStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _words_ranking(self, query_text: str, depth: int) -> list[int]:
        found, scores = self._words.retrieve(
            tokenize([query_text]), k=depth, show_progress=False, backend_selection="numpy"
        )
        # A score of 0 shares no word with the question, and its place is an accident.
        return [int(p) for p, score in zip(found[0], scores[0], strict=True) if score > 0]

    def _rows(self, positions: list[int]) -> dict[int, list[str]]:
        marks = ",".join("?" * len(positions))
        with self._reading:
            rows = self._replies.execute(
                "SELECT position, id, title, patient, doctor FROM replies "
                f"WHERE position IN ({marks})",
                positions,
            ).fetchall()
        return {position: texts for position, *texts in rows}


def verify(folder: Path, manifest: Manifest) -> None:
    """Compare every file with the manifest. Raises Damage, or OSError if one does not open."""
    for name, record in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise Damage(f"{name} is missing")
        if path.stat().st_size != record.bytes:
            raise Damage(f"{name} has {path.stat().st_size} bytes instead of {record.bytes}")
        if FileRecord.of(path) != record:
            raise Damage(f"{name} has changed")


def tokenize(texts: list[str]) -> Any:
    """Words as BM25 counts them: lower case, English stop words left out."""
    import bm25s

    return bm25s.tokenize(texts, stopwords="en", show_progress=False)
