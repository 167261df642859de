"""What a patient's turns are searched by as vectors of the embedding that the index has, too.

Owns that each text is embedded once, and by one thread at a time. Knows nothing of what they are
for.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from index_store.embedding import Embed

REMEMBERED = 4096  # texts


class TurnEmbedding:
    """Texts as vectors, each embedded once: what was embedded before is at hand."""

    def __init__(self, embed: Embed) -> None:
        self._embed_queries = embed
        self._lock = threading.Lock()  # a tokenizer serves one thread at a time
        self._vector = lru_cache(REMEMBERED)(self._embed)

    def _embed(self, text: str) -> np.ndarray:
        with self._lock:
            return self._embed_queries([text])[0]

    def matrix(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors, shape (n, d)."""
        return np.stack([self._vector(text) for text in texts])

    async def turns(self, texts: Sequence[str]) -> np.ndarray:
        """The same, off the event loop."""
        return await asyncio.to_thread(self.matrix, texts)
