"""Retrieve doctors' replies for this message, or not: one head on its embedding and its words.

Owns the decision, its score and its reason, and the vector that searches. The state is
nothing but the patient's turns, and whether the last one was asked for: each is judged together
with the health turns before it, and what results is again the context of the next. Knows nothing
of the index or of any LLM.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agent.errors import AgentError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import HashingVectorizer

HEAD = Path(__file__).parent / "data" / "router_head.npz"
# How a message stands in its conversation: it opens a subject, it follows a health turn ("and for
# my son?"), or it answers what the doctor asked after one ("yes").
OPENING, FOLLOWING, ANSWERING = range(3)
# Words and their pairs fall into so many bins, their parts of 3 and 4 letters into as many again.
BINS = 1 << 13
READ = 4000  # characters of a message whose words count: what is longer must not take longer
LEVELS = 63  # a number of a vector is kept as a whole number up to this
# A message of so many words speaks for itself, and what was said before weighs less in the search.
SELF_CONTAINED = 8
CONTEXT_WEIGHT, ELLIPTIC_CONTEXT_WEIGHT = 0.5, 1.5


class Reason(StrEnum):
    """Why a message is looked up, or not."""

    HEALTH = "a health question"
    FOLLOWS = "goes on about the patient's health"
    UNSURE = "perhaps a health question, so better looked up"
    OTHER = "not a health question"
    ALWAYS = "retrieval is set to always"
    NEVER = "retrieval is set to never"


@dataclass(frozen=True)
class Route:
    """What the router decided: `score` is the probability of a health question."""

    retrieve: bool
    score: float | None
    reason: Reason


@dataclass(frozen=True)
class Query:
    """What to search with: words for BM25, and a unit vector of shape (d,)."""

    text: str
    vector: np.ndarray


@dataclass(frozen=True)
class Router:
    """A trained head: logistic, on a Gaussian kernel over labelled examples and on words.

    `examples` are unit vectors of shape (n, d); `weights` (n, 3), `words` (2 * BINS, 3) and
    `biases` (3,) have a column each for a message that opens, follows or answers.
    """

    embed_model: str
    examples: np.ndarray
    weights: np.ndarray
    words: np.ndarray
    biases: np.ndarray
    gamma: float
    threshold: float

    def score(self, text: str, vector: np.ndarray, stands: int = OPENING) -> float:
        """Probability that a message, whose unit vector is (d,), is a health question."""
        near = np.exp(2 * self.gamma * (self.examples @ vector - 1))
        said = (wording([text]) @ self.words[:, stands])[0]
        margin = near @ self.weights[:, stands] + said + self.biases[stands]
        return float(1 / (1 + np.exp(-margin)))

    def route(
        self, turns: Sequence[str], vectors: np.ndarray, answers: bool = False
    ) -> tuple[Route, Query]:
        """Judge the last of the patient's turns, oldest first; their unit vectors are (n, d).

        `answers` tells whether the doctor had just asked something (see `asks`).
        The query joins the last turn with the health turns before it, whatever the decision,
        so that a patient who always wants retrieval gets it in context, too.
        """
        context: Query | None = None
        for text, vector in zip(turns[:-1], vectors[:-1], strict=True):
            stands = FOLLOWING if context else OPENING
            if self.score(text, vector, stands) >= self.threshold:
                context = _query(text, vector, context)
        stands = (ANSWERING if answers else FOLLOWING) if context else OPENING
        score = self.score(turns[-1], vectors[-1], stands)
        retrieve = score >= self.threshold
        reason = _reason(retrieve, score, context is not None)
        return Route(retrieve, score, reason), _query(turns[-1], vectors[-1], context)

    def save(self, path: Path) -> None:
        """Write the head; its vectors in whole numbers, which costs no accuracy."""
        scale = np.abs(self.examples).max() / LEVELS
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                embed_model=self.embed_model,
                examples=np.round(self.examples / scale).astype(np.int8),
                scale=scale,
                weights=self.weights.astype(np.float16),
                words=self.words.astype(np.float16),
                biases=self.biases,
                gamma=self.gamma,
                threshold=self.threshold,
            )


def wording(texts: Sequence[str]) -> csr_matrix:
    """Which words and parts of words the texts are made of, shape (n, 2 * BINS)."""
    from scipy.sparse import csr_matrix, hstack

    lower = [text[:READ].lower() for text in texts]
    return csr_matrix(hstack([each.transform(lower) for each in _vectorizers()]))


@cache
def _vectorizers() -> tuple[HashingVectorizer, HashingVectorizer]:
    from sklearn.feature_extraction.text import HashingVectorizer

    return (
        HashingVectorizer(n_features=BINS, token_pattern=r"[\w']+|[?!]", ngram_range=(1, 2)),
        HashingVectorizer(n_features=BINS, analyzer="char_wb", ngram_range=(3, 4)),
    )


def asks(reply: str) -> bool:
    """Whether a doctor's reply ends in a question, so that the next message answers it."""
    return reply.rstrip().endswith("?")


def patient_turns(messages: Sequence[Mapping[str, str]]) -> tuple[list[str], bool]:
    """What `Router.route` wants to know of {"role", "content"} messages: turns, and `answers`."""
    turns = [str(message["content"]) for message in messages if message["role"] == "user"]
    answers = len(messages) > 1 and messages[-2]["role"] == "assistant"
    return turns, answers and asks(str(messages[-2]["content"]))


def _reason(retrieve: bool, score: float, follows: bool) -> Reason:
    if not retrieve:
        return Reason.OTHER
    if score < 0.5:
        return Reason.UNSURE
    return Reason.FOLLOWS if follows else Reason.HEALTH


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
            with np.load(path) as head:
                if str(head["embed_model"]) == embed_model:
                    _vectorizers()  # their import takes longer than the first patient should wait
                    return Router(
                        embed_model,
                        head["examples"] * np.float32(head["scale"]),
                        head["weights"].astype(np.float32),
                        head["words"].astype(np.float32),
                        head["biases"],
                        float(head["gamma"]),
                        float(head["threshold"]),
                    )
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
            raise AgentError(
                f"The router's head {path} is damaged or of an older medraft: "
                "run `medraft train-router`."
            ) from None
    raise AgentError(
        f"The router was not trained for the embedding model {embed_model}: "
        "run `medraft train-router` once."
    )
