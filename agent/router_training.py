"""Train the router's head from the labelled examples beside this file.

    medraft train-router            # into MEDRAFT_HOME, for the embedding model in use
    make router                     # the head that ships, for the embedded model

Owns the examples' format and the fit. An example with a `context` follows a health turn; one
without opens a subject, and is seen once more, with less weight, as if it followed one: "thank
you" and "my knee hurts" mean the same there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.files import write_text

EXAMPLES = Path(__file__).with_name("router_examples.jsonl")
# Below one half, because a needless search costs little and a missed one costs the sources.
THRESHOLD = 0.3
AS_FOLLOWING = 0.5
SEED = 20
FOLDS = 5

Embed = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Report:
    """Cross-validated over the examples as they are written: shares of each label found."""

    examples: int
    retrieved: float
    left_alone: float


def train(embed: Embed, embed_model: str, target: Path) -> Report:
    """Fit, cross-validate and write the head; `embed` maps n texts to unit (n, d)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    rows = [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]
    vectors = embed([row["text"] for row in rows])
    follows = np.array([["context" in row] for row in rows], dtype=np.float32)
    labels: np.ndarray = np.array([row["retrieve"] for row in rows])

    def fit(part: np.ndarray) -> LogisticRegression:
        opening = part[follows[part, 0] == 0]
        x = np.vstack(
            [
                _features(vectors[part], follows[part]),
                _features(vectors[opening], np.ones((len(opening), 1), dtype=np.float32)),
            ]
        )
        y = np.concatenate([labels[part], labels[opening]])
        weight = np.concatenate([np.ones(len(part)), np.full(len(opening), AS_FOLLOWING)])
        return LogisticRegression(C=10.0, max_iter=2000).fit(x, y, sample_weight=weight)

    found = np.zeros(len(rows), dtype=bool)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
    for seen, held_out in folds.split(vectors, labels):
        features = _features(vectors[held_out], follows[held_out])
        found[held_out] = fit(seen).predict_proba(features)[:, 1] >= THRESHOLD

    head = fit(np.arange(len(rows)))
    width = vectors.shape[1]
    written = {
        "embed_model": embed_model,
        "threshold": THRESHOLD,
        "opening": [round(float(w), 5) for w in head.coef_[0][:width]],
        "opening_bias": round(float(head.intercept_[0]), 5),
        "following": [round(float(w), 5) for w in head.coef_[0][width:-1]],
        "following_bias": round(float(head.coef_[0][-1]), 5),
    }
    write_text(target, json.dumps(written) + "\n")
    return Report(len(rows), float(found[labels].mean()), float((~found[~labels]).mean()))


def _features(vectors: np.ndarray, follows: np.ndarray) -> np.ndarray:
    """Shape (n, 2 d + 1): the message, the message again if it follows, and whether it does."""
    return np.hstack([vectors, vectors * follows, follows])
