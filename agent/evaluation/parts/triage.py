"""How good triage is: recall, false alarms and the time, on labelled messages it never learned.

Owns the test set beside it (`data/triage_test.jsonl`) and the counting. A case has `text`,
`emergency`, `kind` (of the emergency, or a list of those that will do; otherwise how it only looks
like one) and `split`: the errors of the development half were looked at and its messages are
learned from, of the held-out half only totals were ever read. Nothing was learned from the authors
of `data/letters_test.jsonl`, and only its totals were read.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent.evaluation.parts.labelled import read
from agent.safety.triage import triage

CASES = Path(__file__).parent.parent / "data" / "triage_test.jsonl"
ORDINARY = CASES.with_name("router_dev.jsonl")
LETTERS = CASES.with_name("letters_test.jsonl")
_ROUNDS = 5


@dataclass(frozen=True)
class Count:
    """So many messages raised an alarm, of so many."""

    alarms: int
    of: int

    @property
    def share(self) -> float:
        return self.alarms / self.of if self.of else 0.0


@dataclass(frozen=True)
class Result:
    """Counts over one set of cases, in total and by kind; `kind_right` among the alarms raised."""

    name: str
    recall: Count
    false_alarms: Count
    kind_right: Count
    recall_by_kind: dict[str, Count]
    false_alarms_by_kind: dict[str, Count]


@dataclass(frozen=True)
class Times:
    """Milliseconds a message: the fastest of five rounds over each, as the machine is shared."""

    median: float
    percentile_99: float


def cases(path: Path = CASES) -> list[dict[str, Any]]:
    """The labelled messages. Raises AgentError for a file that is not what it should be."""
    return [
        {**row, "kind": row.get("kind") or "other"} for row in read(path, {"text", "emergency"})
    ]


def letters(path: Path = LETTERS) -> list[dict[str, Any]]:
    """Letters and lines by authors of whom nothing was learned, in English and Spanish. A crisis of
    suicide is an emergency whether there is a plan or not; what else is for a person to look at
    soon is neither asked for nor an alarm, and left out."""
    rows = read(path, {"text", "degree"})
    return [
        {
            "text": row["text"],
            "emergency": row["degree"] != "none",
            "kind": row.get("kind") or row["language"],
        }
        for row in rows
        if row["degree"] != "soon" or row.get("kind") == "suicide"
    ]


def ordinary(path: Path = ORDINARY) -> list[dict[str, Any]]:
    """What most messages are like: the router's development set, health complaints and others."""
    return [
        {
            "text": row.get("text") or row["messages"][-1]["content"],
            "emergency": False,
            "kind": "health" if row["retrieve"] else "other",
        }
        for row in read(path, {"retrieve"})
    ]


def xstest(path: Path) -> list[dict[str, Any]]:
    """XSTest's prompts (Röttger et al. 2024): none is an emergency, the safe ones least of all.

    Raises AgentError for a file that is not what it should be.
    """
    return [
        {"text": row["prompt"], "emergency": False, "kind": f"{row['label']}: {row['type']}"}
        for row in read(path, {"prompt", "type", "label"})
    ]


def measure(name: str, rows: Iterable[dict[str, Any]]) -> Result:
    """Triage every case and count."""
    found: defaultdict[tuple[bool, str], list[bool]] = defaultdict(list)
    kinds_right = []
    for row in rows:
        accepted = [row["kind"]] if isinstance(row["kind"], str) else row["kind"]
        kind = triage(row["text"])
        found[row["emergency"], accepted[0]].append(kind is not None)
        if row["emergency"] and kind is not None:
            kinds_right.append(kind in accepted)

    def by_kind(emergency: bool) -> dict[str, Count]:
        return {
            kind: Count(sum(alarms), len(alarms))
            for (urgent, kind), alarms in sorted(found.items())
            if urgent == emergency
        }

    recall, false_alarms = by_kind(True), by_kind(False)
    return Result(
        name,
        _total(recall),
        _total(false_alarms),
        Count(sum(kinds_right), len(kinds_right)),
        recall,
        false_alarms,
    )


def times(texts: Iterable[str]) -> Times:
    """How long triage takes a message, once its rules are compiled."""

    def once(text: str) -> float:
        start = time.perf_counter()
        triage(text)
        return time.perf_counter() - start

    taken = [min(once(text) for _ in range(_ROUNDS)) * 1000 for text in texts]
    return Times(float(np.median(taken)), float(np.percentile(taken, 99)))


def _total(counts: dict[str, Count]) -> Count:
    return Count(sum(c.alarms for c in counts.values()), sum(c.of for c in counts.values()))
