"""Fit the weights of triage's second opinion from the labelled messages beside this file.

    make triage                 # the weights that ship

Owns the examples' format and the fit; the features are `agent/triage_head.py`'s. An example is an
emergency of a `kind` (or of the first of several), or not one.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from agent.files import write_text
from agent.triage_head import features, stems
from agent.wording import fold

EXAMPLES = Path(__file__).with_name("triage_examples.jsonl")
TEST_SET = Path(__file__).parent / "evaluation" / "data" / "triage_test.jsonl"
# Chosen as the constants of `agent/triage.py` are.
_STRENGTH = 50.0
_SEEN_TWICE = 2
_SEED = 6
_PAIRS = 400
_PLEAS = [
    ", what should i do", ", what do i do?", " what now", " please help", ", is that normal?",
    ", should we go to the hospital?", ". do i need an ambulance", ", can it wait?",
]  # fmt: skip


def train(rows: Sequence[dict], target: Path) -> int:
    """Fit and write the weights; return how many features have one.

    Besides each example the fit sees pairs of them as one message (an emergency beside anything is
    one), and both sorts with a plea at the end, so that what stands around does not decide.
    """
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    messages = [fold(row["text"]) for row in rows]
    combined = list(_combined(rows))
    words = TfidfVectorizer(analyzer=features, min_df=_SEEN_TWICE).fit(messages)
    head = LogisticRegression(C=_STRENGTH, max_iter=3000, class_weight="balanced")
    head.fit(
        words.transform([*messages, *(fold(row["text"]) for row in combined)]),
        np.array([row["emergency"] for row in [*rows, *combined]]),
    )

    urgent = [number for number, row in enumerate(rows) if row["emergency"]]
    kinds = [_first(rows[number]["kind"]) for number in urgent]
    single = CountVectorizer(analyzer=stems, binary=True, min_df=_SEEN_TWICE)
    by_kind = LogisticRegression(C=1.0, max_iter=3000)
    by_kind.fit(single.fit_transform([messages[number] for number in urgent]), kinds)

    written = {
        "bias": round(float(head.intercept_[0]), 3),
        "features": {
            feature: (round(float(words.idf_[place]), 3), round(float(head.coef_[0][place]), 3))
            for feature, place in sorted(words.vocabulary_.items())
        },
        "kind_bias": dict(
            zip(by_kind.classes_.tolist(), by_kind.intercept_.round(2).tolist(), strict=True)
        ),
        "kinds": {
            stem: _rounded(by_kind.classes_, by_kind.coef_[:, place])
            for stem, place in sorted(single.vocabulary_.items())
        },
    }
    write_text(target, json.dumps(written, ensure_ascii=False, separators=(",", ":")) + "\n")
    return len(words.vocabulary_)


def _combined(rows: Sequence[dict]) -> Iterator[dict]:
    chance = random.Random(_SEED)
    urgent = [row for row in rows if row["emergency"]]
    others = [row for row in rows if not row["emergency"]]
    for _ in range(_PAIRS):
        flag, other, another = chance.choice(urgent), chance.choice(others), chance.choice(others)
        parts = [other, flag] if chance.random() < 0.7 else [flag, other]
        yield {**flag, "text": ". ".join(part["text"] for part in parts)}
        yield {**other, "text": f"{other['text']}. {another['text']}"}
        for row in (chance.choice(urgent), chance.choice(others)):
            yield {**row, "text": f"{row['text']}{chance.choice(_PLEAS)}"}


def examples() -> list[dict]:
    """The labelled messages (`text`, `emergency`, `kind`), and the test set's development half."""
    learned = [case for case in _read(TEST_SET) if case["split"] == "development"]
    return [*_read(EXAMPLES), *learned]


def _read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _first(kind: str | list[str]) -> str:
    return kind if isinstance(kind, str) else kind[0]


def _rounded(kinds: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    return {
        str(kind): round(float(weight), 2)
        for kind, weight in zip(kinds, weights, strict=True)
        if abs(weight) >= 0.1
    }
