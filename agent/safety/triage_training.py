"""Fit the weights of triage's second opinion from the labelled messages beside this file.

    make triage                         # the weights that ship
    python -m agent.triage_training     # recall and false alarms by cross-validation

Owns the examples' format, the fit and its cross-validation; the features are
`triage_head.py`'s. An example is an emergency of a `kind` (or of the first of several), or
not one; `fresh` marks those that were written before anything was scored on them, and for which
no rule was made.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from agent.safety.triage import red_flag, triage
from agent.safety.triage_head import HEAD, features, read_from, stems
from agent.safety.wording import fold
from agent.settings import ROOT
from index_store.disk import write_text

EXAMPLES = Path(__file__).parent / "data" / "triage_examples.jsonl"
ROUTER_EXAMPLES = ROOT / "agent" / "routing" / "data" / "router_examples.jsonl"
TEST_SET = ROOT / "agent" / "evaluation" / "data" / "triage_test.jsonl"
# Chosen as the constants of `agent/safety/triage.py` are.
_STRENGTH = 20.0
_SEEN = 2
_SEED = 6
_PAIRS = 250
_FOLDS = 5
# Two messages are near duplicates if so much of the words of either are words of both.
_ALIKE = 0.6


def train(rows: Sequence[dict], target: Path) -> int:
    """Fit and write the weights; return how many features have one.

    Besides each example the fit sees pairs of them as one message: an emergency beside anything is
    one, so that what stands around does not decide. And it sees ordinary messages: most that are
    written look nothing like an emergency.
    """
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    messages = [fold(row["text"]) for row in rows]
    combined = list(_combined(rows))
    words = TfidfVectorizer(analyzer=features, min_df=_SEEN).fit(messages)
    head = LogisticRegression(C=_STRENGTH, max_iter=3000, class_weight="balanced")
    usual = ordinary()
    told = [*messages, *(fold(row["text"]) for row in combined), *usual]
    head.fit(
        words.transform(told),
        np.array([row["emergency"] for row in [*rows, *combined]] + [False] * len(usual)),
    )

    urgent = [number for number, row in enumerate(rows) if row["emergency"]]
    kinds = [_first(rows[number]["kind"]) for number in urgent]
    single = CountVectorizer(analyzer=stems, binary=True, min_df=_SEEN)
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


def cross_validate(rows: Sequence[dict]) -> Iterator[tuple[dict, bool]]:
    """Yield each row, and whether triage raises an alarm by weights fit without it and its like.

    Messages that share most of their words stay in one fold. The rules are not fit anew: only rows
    that none was made for (`fresh`) say how good they are.
    """
    from sklearn.model_selection import GroupKFold

    with TemporaryDirectory() as folder:
        folds = GroupKFold(_FOLDS, shuffle=True, random_state=_SEED)
        for learned, left in folds.split(rows, groups=_near_duplicates(rows)):
            weights = Path(folder) / "head.json"
            train([rows[number] for number in learned], weights)
            read_from(weights)
            yield from ((rows[number], triage(rows[number]["text"]) is not None) for number in left)
    read_from(HEAD)


def _near_duplicates(rows: Sequence[dict]) -> np.ndarray:
    """The group of each row: (n,) integers."""
    from scipy.sparse.csgraph import connected_components
    from sklearn.feature_extraction.text import CountVectorizer

    words = CountVectorizer(analyzer=stems, binary=True, dtype=np.float32)
    has = words.fit_transform([fold(row["text"]) for row in rows])
    sizes = np.asarray(has.sum(axis=1)).ravel()
    common = (has @ has.T).tocoo()
    either = sizes[common.row] + sizes[common.col] - common.data
    common.data = (common.data > _ALIKE * either).astype(np.float32)
    common.eliminate_zeros()
    return np.asarray(connected_components(common, directed=False)[1])


def examples() -> list[dict]:
    """The labelled messages (`text`, `emergency`, `kind`), and the test set's development half."""
    learned = [case for case in _read(TEST_SET) if case["split"] == "development"]
    return [*_read(EXAMPLES), *learned]


def ordinary() -> list[str]:
    """The router's messages in which the rules find no red flag, folded: but for health messages
    that follow another, whose words alone ("now in my arm, too") may be of an emergency."""
    rows = _read(ROUTER_EXAMPLES)
    alone = [row["text"] for row in rows if not ("context" in row and row["retrieve"])]
    return [message for message in map(fold, alone) if red_flag(message) is None]


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


if __name__ == "__main__":
    told = [
        (bool(row.get("fresh")), row["emergency"], alarm)
        for row, alarm in cross_validate(examples())
    ]
    for name, which in (("all", (False, True)), ("fresh", (True,))):
        recall = [alarm for fresh, urgent, alarm in told if fresh in which and urgent]
        alarms = [alarm for fresh, urgent, alarm in told if fresh in which and not urgent]
        print(
            f"{name}: recall {np.mean(recall):.1%} of {len(recall)}, "
            f"false alarms {np.mean(alarms):.1%} of {len(alarms)}"
        )
