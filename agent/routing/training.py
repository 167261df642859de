"""Train the router's head from the labelled examples beside this file.

    medraft train-router            # into MEDRAFT_HOME, for the embedding model in use
    make router                     # the head that ships, for the embedded model

Owns the examples' format and the fit: a support vector machine with a Gaussian kernel on the
embeddings, and a logistic regression on the words. Their margins are weighed and become one
probability by cross-validation (D. Wolpert, "Stacked Generalization", 1992; J. Platt,
"Probabilistic Outputs for Support Vector Machines", 1999). An example with a `context` follows a
health turn, and with `asked` it answers a question after one. Without, it opens a subject, and is
seen once more, with less weight, as if it followed one: "thank you" and "my knee hurts" mean the
same there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agent.routing.router import ANSWERING, FOLLOWING, OPENING, Router, wording
from index_store.disk import make_whole

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

EXAMPLES = Path(__file__).parent / "data" / "router_examples.jsonl"
# Below one half, because a needless search costs little and a missed one costs the sources.
THRESHOLD = 0.4
GAMMA, C = 1.0, 5.0  # by cross-validation over the examples
C_WORDS = 3.0  # likewise
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


@dataclass(frozen=True)
class _Fit:
    """Both parts, and of each support vector which example it is and how that stands."""

    machine: SVC
    words: LogisticRegression
    examples: np.ndarray
    standing: np.ndarray


def train(embed: Embed, embed_model: str, target: Path) -> Report:
    """Fit, cross-validate and write the head; `embed` maps n texts to unit (n, d)."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.svm import SVC

    rows = [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]
    vectors = embed([row["text"] for row in rows])
    labels: np.ndarray = np.array([row["retrieve"] for row in rows])
    stands: np.ndarray = np.array([_stands(row) for row in rows])

    said = wording([row["text"] for row in rows])

    def features(examples: np.ndarray, standing: np.ndarray) -> np.ndarray:
        return np.hstack([vectors[examples], STANDS[standing]])

    def word_features(examples: np.ndarray, standing: np.ndarray) -> csr_matrix:
        """What was said; again if it follows, and again if it answers; and how it stands."""
        follows, answers = (csr_matrix(column[:, None]) for column in STANDS[standing].T)
        words = said[examples]
        again = [words.multiply(follows), words.multiply(answers)]
        return csr_matrix(hstack([words, *again, follows, answers]))

    def fit(part: np.ndarray) -> _Fit:
        opening = part[stands[part] == OPENING]
        again = np.where(np.arange(len(opening)) % ANSWERS == 0, ANSWERING, FOLLOWING)
        examples = np.concatenate([part, opening])
        standing = np.concatenate([stands[part], again])
        weight = np.concatenate([np.ones(len(part)), np.full(len(opening), AS_FOLLOWING)])
        machine = SVC(C=C, gamma=GAMMA, cache_size=1000)
        machine.fit(features(examples, standing), labels[examples], sample_weight=weight)
        by_words = LogisticRegression(C=C_WORDS, max_iter=500)
        by_words.fit(word_features(examples, standing), labels[examples], sample_weight=weight)
        support = machine.support_
        return _Fit(machine, by_words, examples[support], standing[support])

    def margins(fitted: _Fit, part: np.ndarray) -> np.ndarray:
        """Shape (n, 4): of the machine and of the words, then how each stands."""
        machine = fitted.machine.decision_function(features(part, stands[part]))
        words = fitted.words.decision_function(word_features(part, stands[part]))
        return np.column_stack([machine, words, STANDS[stands[part]]])

    held_out = np.zeros((len(rows), 4))
    # What follows on one and the same complaint stays together.
    subjects = [row.get("context", row["text"]) for row in rows]
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=SEED)
    for seen, unseen in folds.split(vectors, labels, subjects):
        held_out[unseen] = margins(fit(seen), unseen)
    joint = LogisticRegression(C=1e6).fit(held_out, labels)
    scores = joint.predict_proba(held_out)[:, 1]
    found = scores >= THRESHOLD
    slope, word_slope, *by_stand = joint.coef_[0]

    whole = fit(np.arange(len(rows)))
    used, places = np.unique(whole.examples, return_inverse=True)
    kernel = np.exp(-GAMMA * ((STANDS[:, None] - STANDS[None]) ** 2).sum(axis=2))
    weights = np.zeros((len(used), len(STANDS)))
    machine_weights = slope * whole.machine.dual_coef_[0]
    np.add.at(weights, places, machine_weights[:, None] * kernel[whole.standing])
    coefficients = whole.words.coef_[0]
    words = coefficients[: -len(STANDS) + 1].reshape(len(STANDS), -1).cumsum(axis=0).T
    word_biases = whole.words.intercept_[0] + STANDS @ coefficients[-len(STANDS) + 1 :]
    bias = slope * whole.machine.intercept_[0] + joint.intercept_[0] + STANDS @ by_stand
    head = Router(
        embed_model=embed_model,
        examples=vectors[used],
        weights=weights,
        words=word_slope * words,
        biases=bias + word_slope * word_biases,
        gamma=GAMMA,
        threshold=THRESHOLD,
    )
    make_whole(target, head.save)
    return Report(len(rows), float(found[labels].mean()), float((~found[~labels]).mean()))


def _stands(row: dict[str, object]) -> int:
    if "context" not in row:
        return OPENING
    return ANSWERING if row.get("asked") else FOLLOWING
