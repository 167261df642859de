"""What a message is searched by, with the turns that it goes on from.

Owns how much each of them weighs. Knows nothing of how they were chosen, nor of the index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A message of so many words speaks for itself, and what was said before weighs less in the search.
SELF_CONTAINED = 8
CONTEXT_WEIGHT, ELLIPTIC_CONTEXT_WEIGHT = 0.5, 1.5


@dataclass(frozen=True)
class Query:
    """What to search with: words for BM25, and a unit vector of shape (d,)."""

    text: str
    vector: np.ndarray


def query(turns: Sequence[str], vectors: np.ndarray) -> Query:
    """Of the patient's turns, at least one, oldest first; their unit vectors are (n, d)."""
    made = Query(turns[0], vectors[0])
    for text, vector in zip(turns[1:], vectors[1:], strict=True):
        elliptic = len(text.split()) < SELF_CONTAINED
        weight = ELLIPTIC_CONTEXT_WEIGHT if elliptic else CONTEXT_WEIGHT
        mixed = vector + weight * made.vector
        joined = f"{made.text}\n{text}" if elliptic else text
        made = Query(joined, np.asarray(mixed / np.linalg.norm(mixed), dtype=np.float32))
    return made
