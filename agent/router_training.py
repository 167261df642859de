"""Train the router's head from the labelled examples beside this file.

    medraft train-router            # into MEDRAFT_HOME, for the embedding model in use
    make router                     # the head that ships, for the embedded model

Owns the examples' format and the fit: a support vector machine with a Gaussian kernel on the
embeddings, whose margins become probabilities by cross-validation (J. Platt, "Probabilistic Outputs
for Support Vector Machines", 1999). An example with a `context` follows a health turn, and with
`asked` it answers a question after one. Without, it opens a subject, and is seen once more, with
less weight, as if it followed one: "thank you" and "my knee hurts" mean the same there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.files import make_whole
from agent.router import ANSWERING, FOLLOWING, OPENING, Router

EXAMPLES = Path(__file__).with_name("router_examples.jsonl")
# For a message that opens, follows or answers. Chosen on router_dev.jsonl in agent/evaluation/data;
# below one half, because a needless search costs little and a missed one costs the sources.
THRESHOLDS = (0.4, 0.2, 0.2)
GAMMA, C = 1.0, 5.0  # likewise
AS_FOLLOWING = 0.5
ANSWERS = 3  # every third of these as an answer
SEED = 20
FOLDS = 3
# Two more dimensions of an example tell how it stands: whether it follows, whether it answers.
STANDS = np.array([[0, 0], [1, 0], [1, 1]], dtype=np.float32)

Embed = Callable[[list[str]], np.ndarray]


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
    from sklearn.svm import SVC

    rows = [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]
    vectors = embed([row["text"] for row in rows])
    labels: np.ndarray = np.array([row["retrieve"] for row in rows])
    stands: np.ndarray = np.array([_stands(row) for row in rows])

    def features(examples: np.ndarray, stands: np.ndarray) -> np.ndarray:
        return np.hstack([vectors[examples], STANDS[stands]])

    def fit(part: np.ndarray) -> tuple[SVC, np.ndarray, np.ndarray]:
        """The machine, and of each of its support vectors which example it is and how it stands."""
        opening = part[stands[part] == OPENING]
        again = np.where(np.arange(len(opening)) % ANSWERS == 0, ANSWERING, FOLLOWING)
        examples = np.concatenate([part, opening])
        standing = np.concatenate([stands[part], again])
        weight = np.concatenate([np.ones(len(part)), np.full(len(opening), AS_FOLLOWING)])
        machine = SVC(C=C, gamma=GAMMA, cache_size=1000)
        machine.fit(features(examples, standing), labels[examples], sample_weight=weight)
        return machine, examples[machine.support_], standing[machine.support_]

    margins = np.zeros(len(rows))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
    for seen, held_out in folds.split(vectors, labels):
        machine, _, _ = fit(seen)
        margins[held_out] = machine.decision_function(features(held_out, stands[held_out]))
    platt = LogisticRegression(C=1e6).fit(margins[:, None], labels)
    slope, offset = float(platt.coef_[0, 0]), float(platt.intercept_[0])
    scores = platt.predict_proba(margins[:, None])[:, 1]
    found = scores >= np.array(THRESHOLDS)[stands]

    machine, examples, standing = fit(np.arange(len(rows)))
    used, places = np.unique(examples, return_inverse=True)
    kernel = np.exp(-GAMMA * ((STANDS[:, None] - STANDS[None]) ** 2).sum(axis=2))
    weights = np.zeros((len(used), len(STANDS)))
    np.add.at(weights, places, slope * machine.dual_coef_[0][:, None] * kernel[standing])
    head = Router(
        embed_model=embed_model,
        examples=vectors[used],
        weights=weights,
        bias=slope * float(machine.intercept_[0]) + offset,
        gamma=GAMMA,
        thresholds=np.array(THRESHOLDS),
    )
    make_whole(target, head.save)
    return Report(len(rows), float(found[labels].mean()), float((~found[~labels]).mean()))


def _stands(row: dict[str, object]) -> int:
    if "context" not in row:
        return OPENING
    return ANSWERING if row.get("asked") else FOLLOWING
