"""Train the router's head from the labelled examples beside this file.

    medraft train-router            # into MEDRAFT_HOME, for the embedding model in use
    make router                     # the head that ships, for the embedded model

Owns the examples' format and the fit. A message is judged with the context it came in, so
every example is seen alone or after the health turn it names, and once more after a turn
drawn from the others: "thank you" means the same after any complaint.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.files import write_text

EXAMPLES = Path(__file__).with_name("router_examples.jsonl")
# Below one half, because a needless search costs little and a missed one costs the sources.
THRESHOLD = 0.35
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
    contexts = np.zeros_like(vectors)
    named = [i for i, row in enumerate(rows) if "context" in row]
    contexts[named] = embed([rows[i]["context"] for i in named])
    labels: np.ndarray = np.array([row["retrieve"] for row in rows])

    drawn = random.Random(SEED).choices([i for i in range(len(rows)) if labels[i]], k=len(rows))
    features = np.hstack([vectors, contexts])
    augmented = np.hstack([vectors, vectors[drawn]])
    alone: np.ndarray = np.logical_not(contexts.any(axis=1))

    def fit(part: np.ndarray) -> LogisticRegression:
        extra = part[alone[part]]
        x = np.vstack([features[part], augmented[extra]])
        y = np.concatenate([labels[part], labels[extra]])
        weight = np.concatenate([np.ones(len(part)), np.full(len(extra), 0.5)])
        return LogisticRegression(C=10.0, max_iter=2000).fit(x, y, sample_weight=weight)

    found = np.zeros(len(rows), dtype=bool)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
    for seen, held_out in folds.split(features, labels):
        probability = fit(seen).predict_proba(features[held_out])[:, 1]
        found[held_out] = probability >= THRESHOLD

    head = fit(np.arange(len(rows)))
    width = vectors.shape[1]
    written = {
        "embed_model": embed_model,
        "threshold": THRESHOLD,
        "bias": round(float(head.intercept_[0]), 5),
        "message": [round(float(w), 5) for w in head.coef_[0][:width]],
        "context": [round(float(w), 5) for w in head.coef_[0][width:]],
    }
    write_text(target, json.dumps(written) + "\n")
    return Report(len(rows), float(found[labels].mean()), float((~found[~labels]).mean()))
