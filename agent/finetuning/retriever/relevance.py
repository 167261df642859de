"""Fitting the probability that a reply concerns a question's problem, to labelled rows.

Owns which pairs it is fitted to. Knows nothing of the measure itself (`index_store.relevance`), nor
of what is done with a reply that is unlikely.

Each question is asked twice: of all rows but its own, and of those without its label, as a patient
asks whose problem the index does not have; there, nothing that is found is right.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent.finetuning.retriever.pairs import Letter, Question, Row, questions
from index_store.disk import write_text
from index_store.embedding import embed_queries, embed_texts, load_embedding
from index_store.relevance import FILE, SAMPLE, Background, Relevance
from index_store.split import Split
from index_store.store import evenly

DEPTH = 10  # replies that a question finds
LEAST = 20  # labelled questions, without which nothing is fitted
MOST = 500  # questions that are asked

Values = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Found:
    """What questions find: cosine, standing, and whether the label is theirs, (questions, DEPTH)
    each."""

    cosines: Values
    standing: Values
    right: Values


def write(output: Path, parts: dict[Split, list[Row]], letters: Sequence[Letter]) -> None:
    """Fit it for the finished model in `output` and lay it there, if enough questions that it did
    not learn from have a label: of the patients by whom training was stopped, and of the letters
    that are held out."""
    rows = [*parts["train"], *parts["validation"]]
    asking = asked(questions(parts["validation"], letters), rows)
    if len(asking) < LEAST:
        return
    found = search(load_embedding(str(output)), asking, rows)
    if not found[0].right.any():  # no label comes twice
        return
    fitted = fit(found)
    write_text(output / FILE, json.dumps(asdict(fitted), indent=2) + "\n")


def asked(asking: Sequence[Question], rows: Sequence[Row]) -> list[Question]:
    """Some of the questions, always the same; of those whose label leaves DEPTH rows without it."""
    of = Counter(row.label for row in rows)
    able = [question for question in asking if len(rows) - of[question.label] >= DEPTH]
    return able if len(able) <= MOST else random.Random(0).sample(able, MOST)


def search(embedding: Any, asking: Sequence[Question], rows: Sequence[Row]) -> tuple[Found, Found]:
    """What the nearest of `rows` are for each question: with its label and without. Each has DEPTH
    rows at least."""
    texts = embed_texts(embedding, [row.text for row in rows])
    queries = embed_queries(embedding, [question.text for question in asking])
    labels = np.array([row.label for row in rows])
    ids = np.array([row.dialogue.id for row in rows])
    with_label: list[tuple[Values, ...]] = []
    without: list[tuple[Values, ...]] = []
    for question, query in zip(asking, queries, strict=True):
        cosines, right = texts @ query, labels == question.label
        others = np.flatnonzero(ids != question.row)
        for found, among in ((with_label, others), (without, others[~right[others]])):
            best = among[np.argsort(-cosines[among])[:DEPTH]]
            background = Background(texts[among[evenly(len(among), SAMPLE)]])
            found.append((cosines[best], background.standing(query, cosines[best]), right[best]))
    return _stacked(with_label), _stacked(without)


def _stacked(found: Sequence[tuple[Values, ...]]) -> Found:
    return Found(*(np.stack(parts) for parts in zip(*found, strict=True)))


def fit(both: Sequence[Found]) -> Relevance:
    """A logistic regression on cosine and standing, over all that was found."""
    from sklearn.linear_model import LogisticRegression

    features = np.stack(
        [
            np.concatenate([found.cosines.ravel() for found in both]),
            np.concatenate([found.standing.ravel() for found in both]),
        ],
        axis=1,
    )
    right = np.concatenate([found.right.ravel() for found in both])
    # Scaled, so that the penalty weighs both alike, and scaled back.
    mean, spread = features.mean(0), features.std(0)
    fitted = LogisticRegression().fit((features - mean) / spread, right)
    weights = fitted.coef_[0] / spread
    return Relevance(
        round(float(weights[0]), 4),
        round(float(weights[1]), 4),
        round(float(fitted.intercept_[0] - weights @ mean), 4),
    )
