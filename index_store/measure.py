"""How well and how fast an index finds: its own way to the nearest against the exact one.

Owns the measurement; knows nothing of how either way works.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from index_store.store import IndexStore, evenly

DEPTH = 10  # of the recall
QUERIES = 200


@dataclass(frozen=True)
class Measured:
    """Recall at 10 of the index's factory, 0 to 1; milliseconds a search, at the 50th and 99th
    percentile, of its factory, of the exact one, and of the whole search with its texts."""

    queries: int
    recall: float
    nearest_ms: tuple[float, float]
    exact_ms: tuple[float, float]
    search_ms: tuple[float, float]


def measure(store: IndexStore, embed_model: str) -> Measured:
    """Search by the patients' questions of rows at even distances, as patients would ask them."""
    import numpy as np

    from index_store.embedding import embed_queries, load_embedding

    some = evenly(store.manifest.rows, QUERIES).tolist()
    questions = [store.read(position).patient for position in some]
    vectors = embed_queries(load_embedding(embed_model), questions)
    took: dict[str, list[float]] = {"nearest": [], "exact": [], "search": []}
    shares = []
    for question, vector in zip(questions, vectors, strict=True):
        begun = time.perf_counter()
        found = store.nearest(vector, DEPTH)
        took["nearest"].append(time.perf_counter() - begun)
        begun = time.perf_counter()
        true = store.nearest(vector, DEPTH, exact=True)
        took["exact"].append(time.perf_counter() - begun)
        begun = time.perf_counter()
        store.search(question, vector, DEPTH)
        took["search"].append(time.perf_counter() - begun)
        shares.append(len(set(found) & set(true)) / len(true))

    def percentiles(name: str) -> tuple[float, float]:
        middle, tail = np.percentile(took[name], [50, 99]) * 1000
        return float(middle), float(tail)

    return Measured(
        len(questions),
        float(np.mean(shares)),
        percentiles("nearest"),
        percentiles("exact"),
        percentiles("search"),
    )
