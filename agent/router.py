"""Retrieve doctors' replies for this message, or not: one logistic head on its embedding.

Owns the decision, its score and its reason, and the vector that searches. The state is
nothing but the patient's turns: each is judged together with the health turns before it, and
what results is again the context of the next. Knows nothing of the index or of any LLM.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agent.errors import AgentError
from index_store.embedding import embed_queries

if TYPE_CHECKING:
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

HEAD = Path(__file__).with_name("router_head.json")
# A message of so many words speaks for itself, and what was said before weighs less in the search.
SELF_CONTAINED = 8
CONTEXT_WEIGHT, ELLIPTIC_CONTEXT_WEIGHT = 0.25, 0.5


@dataclass(frozen=True)
class Route:
    """What the router decided: `score` is the probability of a health question."""

    retrieve: bool
    score: float | None
    reason: str


@dataclass(frozen=True)
class Query:
    """What to search with: words for BM25, and a unit vector of shape (d,)."""

    text: str
    vector: np.ndarray


@dataclass(frozen=True)
class Router:
    """A trained head: weights of shape (d,) and a bias for a message that opens a subject,
    and what is added to both when it follows a health turn ("yes, for three days")."""

    embed_model: str
    opening: np.ndarray
    opening_bias: float
    following: np.ndarray
    following_bias: float
    threshold: float

    def score(self, vector: np.ndarray, follows: bool) -> float:
        """Probability that a unit vector of shape (d,) is a health question."""
        logit = float(self.opening @ vector) + self.opening_bias
        if follows:
            logit += float(self.following @ vector) + self.following_bias
        return float(1 / (1 + np.exp(-logit)))

    def route(self, turns: Sequence[str], vectors: np.ndarray) -> tuple[Route, Query]:
        """Judge the last of the patient's turns, oldest first; their unit vectors are (n, d).

        The query joins the last turn with the health turns before it, whatever the decision,
        so that a patient who always wants retrieval gets it in context, too.
        """
        context: Query | None = None
        for text, vector in zip(turns[:-1], vectors[:-1], strict=True):
            if self.score(vector, context is not None) >= self.threshold:
                context = _query(text, vector, context)
        score = self.score(vectors[-1], context is not None)
        retrieve = score >= self.threshold
        reason = self._reason(score, context is not None)
        return Route(retrieve, score, reason), _query(turns[-1], vectors[-1], context)

    def _reason(self, score: float, follows: bool) -> str:
        if score < self.threshold:
            return "not a health question"
        if score < 0.5:
            return "perhaps a health question, so better looked up"
        return "goes on about the patient's health" if follows else "a health question"


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


def _query(text: str, vector: np.ndarray, context: Query | None) -> Query:
    if context is None:
        return Query(text, vector)
    elliptic = len(text.split()) < SELF_CONTAINED
    weight = ELLIPTIC_CONTEXT_WEIGHT if elliptic else CONTEXT_WEIGHT
    mixed = vector + weight * context.vector
    joined = f"{context.text}\n{text}" if elliptic else text
    return Query(joined, np.asarray(mixed / np.linalg.norm(mixed), dtype=np.float32))


def load(embed_model: str, home: Path) -> Router:
    """The head for an embedding model: the one that ships, or one trained into MEDRAFT_HOME.

    Raises AgentError if neither was trained on this embedding model.
    """
    for path in (home / HEAD.name, HEAD):
        if not path.is_file():
            continue
        try:
            head = json.loads(path.read_text(encoding="utf-8"))
            if head["embed_model"] == embed_model:
                return Router(
                    embed_model,
                    np.asarray(head["opening"], dtype=np.float32),
                    head["opening_bias"],
                    np.asarray(head["following"], dtype=np.float32),
                    head["following_bias"],
                    head["threshold"],
                )
        except (ValueError, KeyError, TypeError):
            raise AgentError(
                f"The router's head {path} is damaged or of an older medraft: "
                "run `medraft train-router`."
            ) from None
    raise AgentError(
        f"The router was not trained for the embedding model {embed_model}: "
        "run `medraft train-router` once."
    )
