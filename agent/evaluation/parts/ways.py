"""The ways to search an index that are compared with the one that ships.

Owns the ways: what is embedded, how rankings are fused or done again, what a patient's later turns
search with. Knows nothing of what ought to be found, but for the case that it is handed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from agent.evaluation.parts.cases import Case, sentences
from agent.routing.embedding import TurnEmbedding
from agent.routing.query import queries
from agent.routing.router import route
from index_store.dataset import Dialogue
from index_store.embedding import embed_texts
from index_store.store import CANDIDATES, IndexStore

if TYPE_CHECKING:
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

SHIPPED = "question and reply, fused"
SHIPPED_OF_TURNS = "the last turn, or all that it goes on from where nothing fits"
WINDOW = 3  # sentences of a chunk
RRF_K = 60  # Cormack, Clarke, Buettcher 2009: reciprocal rank fusion
RERANKED = 20  # replies that are ranked again

# The ids of so many replies, best first.
Search = Callable[[Case, int], Sequence[str]]


class Ways:
    """The plain ways, the one that ships, and those that have to win before they do."""

    def __init__(
        self, store: IndexStore, model: HuggingFaceEmbedding, embedding: TurnEmbedding
    ) -> None:
        """Embed the replies alone, and their parts: what the index itself does not hold."""
        self._store, self._embedding = store, embedding
        self._ids = [f"{id_:016x}" for id_ in store.ids.tolist()]
        self._places = {id_: place for place, id_ in enumerate(self._ids)}
        rows = [dialogue for _, dialogue in store.rows()]
        chunks = [(place, chunk) for place, row in enumerate(rows) for chunk in _chunks(row)]
        self._replies = embed_texts(model, [row.doctor for row in rows])
        self._owners = np.array([place for place, _ in chunks])
        self._chunks = embed_texts(model, [chunk for _, chunk in chunks])

    def all(self) -> Mapping[str, Search]:
        """Each way by its name in the table."""
        return {
            "reply alone, dense": self.reply_only,
            "question and reply, dense": self.dense,
            "question and reply, BM25": self.bm25,
            SHIPPED: self.fused,
            "the same, fused by reciprocal rank": self.by_rank,
            "chunks of three sentences, dense": self.chunked,
            "fused, ranked again by their best chunk": self.reranked,
        }

    def reply_only(self, case: Case, depth: int) -> list[str]:
        return self._best(self._replies @ self._vector(case), depth)

    def dense(self, case: Case, depth: int) -> list[str]:
        found = self._store.nearest(self._vector(case), depth, exact=True)
        return [self._ids[place] for place in found]

    def bm25(self, case: Case, depth: int) -> list[str]:
        found = self._store.sharing_terms(case.turns[-1], depth)
        return [self._ids[place] for place in found]

    def fused(self, case: Case, depth: int) -> list[str]:
        hits = self._store.search(case.turns[-1], self._vector(case), depth)
        return [hit.id for hit in hits]

    def by_rank(self, case: Case, depth: int) -> list[str]:
        scores: dict[str, float] = {}
        for ranking in (self.dense(case, CANDIDATES), self.bm25(case, CANDIDATES)):
            for rank, id_ in enumerate(ranking, 1):
                scores[id_] = scores.get(id_, 0.0) + 1 / (RRF_K + rank)
        return sorted(scores, key=lambda id_: -scores[id_])[:depth]

    def chunked(self, case: Case, depth: int) -> list[str]:
        return self._best(self._best_chunks(case), depth)

    def reranked(self, case: Case, depth: int) -> list[str]:
        found = self.fused(case, max(depth, RERANKED))
        best = self._best_chunks(case)
        return sorted(found, key=lambda id_: -float(best[self._places[id_]]))

    def _vector(self, case: Case) -> np.ndarray:
        return self._embedding.matrix([case.turns[-1]])[0]

    def _best_chunks(self, case: Case) -> np.ndarray:
        """The cosine of the best chunk of each reply, (rows,)."""
        best = np.full(len(self._ids), -1.0, dtype=np.float32)
        np.maximum.at(best, self._owners, self._chunks @ self._vector(case))
        return best

    def _best(self, scores: np.ndarray, depth: int) -> list[str]:
        return [self._ids[place] for place in np.argsort(-scores)[:depth]]


def of_turns(store: IndexStore, embedding: TurnEmbedding, cut: float) -> Mapping[str, Search]:
    """What to search with when a patient goes on: what ships against two plainer ways. A reply of
    at least `cut` relevance fits."""

    def of_router(case: Case, depth: int) -> list[str]:
        _, turns = route([{"role": "user", "content": turn} for turn in case.turns])
        for asked in queries(turns):
            hits = store.search(asked, embedding.matrix([asked])[0], depth)
            if any(hit.relevance >= cut and hit.id not in case.hidden for hit in hits):
                break
        return [hit.id for hit in hits]

    def of(text: Callable[[Case], str]) -> Search:
        def search(case: Case, depth: int) -> list[str]:
            asked = text(case)
            return [hit.id for hit in store.search(asked, embedding.matrix([asked])[0], depth)]

        return search

    return {
        "the last turn alone": of(lambda case: case.turns[-1]),
        "all turns joined": of(lambda case: "\n".join(reversed(case.turns))),
        SHIPPED_OF_TURNS: of_router,
    }


def _chunks(row: Dialogue) -> list[str]:
    said = sentences(row.patient) + sentences(row.doctor)
    starts = range(0, max(1, len(said) - WINDOW + 1), WINDOW - 1)
    return [" ".join([row.title, *said[start : start + WINDOW]]) for start in starts]
