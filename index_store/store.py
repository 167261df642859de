"""The persisted index, opened: verified, searched, read.

Owns how a question is searched, how the two rankings are fused, and that nothing is served that
is not what was written. Does not know how the index is built, nor what the hits are for.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from index_store import generation
from index_store import manifest as manifests
from index_store.bm25 import BM25Index
from index_store.dataset import Dialogue
from index_store.embedding import folder, identity
from index_store.errors import StoreError
from index_store.manifest import FileRecord, Manifest
from index_store.relevance import SAMPLE, Background, Relevance
from index_store.replies import Damage, Kept, Replies

if TYPE_CHECKING:
    import numpy as np

CANDIDATES = 50  # of each ranking, at least
# A convex combination of cosine and BM25 (Bruch, Gai, Ingber 2023, "An Analysis of Fusion Functions
# for Hybrid Retrieval"); `medraft evaluate retrieval` compares it with reciprocal rank fusion.
BM25_WEIGHT = 0.1
ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Hit:
    """A reply that was found. `rank` counts from 1; `score` is the cosine, -1 to 1; `relevance` is
    how likely the reply concerns the question's problem, 0 to 1."""

    id: str
    rank: int
    score: float
    relevance: float
    title: str
    patient: str
    doctor: str


class IndexStore:
    """An open index. Searching and reading are safe from several threads."""

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        files: tuple[Any, Any, BM25Index, Replies],
        relevance: Relevance,
    ) -> None:
        """Take what `open` has opened."""
        self.manifest = manifest
        self._relevance = relevance
        self._directory = directory
        self._exact, self._nearest, self._bm25, self._replies = files

    @classmethod
    def open(cls, directory: Path, embed_model: str, search_on: str = "cpu") -> IndexStore:
        """Open the index in `directory`, built with the model that `embed_model` names.

        Every file is compared with the manifest first. The nearest vectors are searched on the
        "cpu", or in a copy on the first "gpu". Raises StoreError if there is no index, if it is
        damaged, if it is of another schema or another model, or if there is no GPU.
        """
        expected, relevance = identity(embed_model), Relevance.of(folder(embed_model))
        manifest = manifests.read(directory, expected)
        while True:
            files_in = directory / manifest.generation
            try:
                verify(files_in, manifest)
                files = generation.opened_files(files_in, manifest.factory, search_on)
                return cls(directory, manifest, files, relevance)
            except PermissionError as error:
                raise StoreError(
                    f"The index in {directory} cannot be read by this user ({error.filename}): "
                    "give them the right to."
                ) from error
            except (OSError, ValueError, RuntimeError, sqlite3.Error) as error:
                newest = manifests.read(directory, expected)
                if newest.generation == manifest.generation:
                    what = str(error) if isinstance(error, Damage) else "a file does not open"
                    raise manifests.damaged(directory, what, manifest) from error
                # A rebuild has replaced the generation since its name was read.
                manifest = newest

    def search(self, query_text: str, query_vector: np.ndarray[Any, Any], k: int) -> list[Hit]:
        """Find the `k` best replies for a question: its text, and its unit vector (d,).

        The order is by cosine plus BM25_WEIGHT times the BM25 score as a share of the best one; the
        score is the cosine of question and reply. Hence scores need not fall with the rank.
        Fewer than `k` hits if the index is smaller. Raises ValueError for a vector of another
        dimension, StoreError if a reply is not what was written.
        """
        import numpy as np

        query = np.asarray(query_vector, dtype=np.float32).reshape(self.dimension)
        depth = min(self.manifest.rows, max(CANDIDATES, 5 * k))
        shared = self._bm25.scores(query_text)
        found = list({*self.nearest(query, depth), *_largest(shared, depth)})
        cosine = self.vectors(found) @ query
        best_shared = float(shared.max())
        fused = cosine + (BM25_WEIGHT * shared[found] / best_shared if best_shared else 0.0)
        best = np.argsort(-fused, kind="stable")[:k].tolist()
        try:
            rows = self._replies.read([found[each] for each in best])
        except Damage as error:
            raise manifests.damaged(self._directory, str(error), self.manifest) from error
        standing = self._background.standing(query, cosine[best])
        likely = self._relevance.probability(cosine[best], standing)
        hits = zip(cosine[best].tolist(), likely, (rows[found[each]] for each in best), strict=True)
        return [
            Hit(row.id, rank, score, relevance, row.title, row.patient, row.doctor)
            for rank, (score, relevance, row) in enumerate(hits, 1)
        ]

    @cached_property
    def _background(self) -> Background:
        return Background(self.vectors(evenly(self.manifest.rows, SAMPLE)))

    def nearest(
        self, query_vector: np.ndarray[Any, Any], depth: int, *, exact: bool = False
    ) -> list[int]:
        """The positions of the `depth` vectors nearest to a unit vector (d,), best first.

        They are those that the index's factory finds, which may be fewer, or the true ones.
        """
        index = self._exact if exact else self._nearest
        _, found = index.search(query_vector.reshape(1, -1), depth)
        return [position for position in found[0].tolist() if position >= 0]

    def sharing_terms(self, query_text: str, depth: int) -> list[int]:
        """The positions of at most `depth` texts that share a term with the query, by BM25."""
        return _largest(self._bm25.scores(query_text), depth)

    @property
    def dimension(self) -> int:
        """Of the vectors."""
        return self.manifest.dimension

    @property
    def ids(self) -> np.ndarray[Any, Any]:
        """The ids of the replies by position, (rows,) uint64: their hexadecimal digits."""
        return self._replies.ids

    def read(self, position: int) -> Dialogue:
        """The dialogue at a position. Raises Damage."""
        return self._replies.read([position])[position]

    def find(self, id: str) -> Dialogue | None:
        """The dialogue of an id, if there is one. Raises StoreError if it was changed."""
        import numpy as np

        if not ID.fullmatch(id):
            return None
        found = np.flatnonzero(self.ids == np.uint64(int(id, 16)))
        if not len(found):
            return None
        try:
            return self.read(int(found[0]))
        except Damage as error:
            raise manifests.damaged(self._directory, str(error), self.manifest) from error

    def rows(self) -> Iterator[Kept]:
        """Every dialogue with the names of its sources, by position. Raises Damage."""
        return self._replies.all()

    def vectors(self, positions: Any) -> np.ndarray[Any, Any]:
        """The unit vectors at `positions`, (len(positions), d) float32."""
        import numpy as np

        found: np.ndarray[Any, Any] = self._exact.reconstruct_batch(
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


def evenly(count: int, most: int) -> np.ndarray[Any, Any]:
    """At most so many of `count` places, at even distances, the first and the last among them."""
    import numpy as np

    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(int))


def _largest(scores: np.ndarray[Any, Any], depth: int) -> list[int]:
    """The places of the `depth` largest scores above 0, largest first."""
    import numpy as np

    depth = min(depth, len(scores))
    some = np.argpartition(-scores, depth - 1)[:depth]
    ordered: list[int] = some[np.argsort(-scores[some], kind="stable")].tolist()
    return [place for place in ordered if scores[place] > 0]


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
