"""The patient's turns as vectors of the embedding that the index has, too.

Owns that each is embedded once, and by one thread at a time. Knows nothing of what they are for.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from index_store.embedding import embed_queries

if TYPE_CHECKING:
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding


class TurnEmbedding:
    """The patient's turns as vectors, each embedded once: what was said before is at hand."""

    def __init__(self, embedding: HuggingFaceEmbedding, remembered: int = 4096) -> None:
        self._embedding = embedding
        self._lock = threading.Lock()  # a tokenizer serves one thread at a time
        self._vector = lru_cache(remembered)(self._embed)

    def _embed(self, text: str) -> np.ndarray:
        with self._lock:
            return embed_queries(self._embedding, [text])[0]

    def matrix(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors, shape (n, d)."""
        return np.stack([self._vector(text) for text in texts])

    async def turns(self, texts: Sequence[str]) -> np.ndarray:
        """The same, off the event loop."""
        return await asyncio.to_thread(self.matrix, texts)
