"""How good triage is on messages it never learned: found, flagged, of the right kind, and the time.

Owns the test sets (`data/letters_test.jsonl`, by authors of whom nothing was learned, and
`data/triage_test.jsonl`) and the counting. A case has `text`, and `degree` or `emergency`, and
`kind` (of the emergency, or a list of those that will do). Only totals were ever read of the
letters; of `triage_test.jsonl` the development half was learned from.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent.evaluation.parts.labelled import read
from agent.safety.triage import Verdict, verdicts
from agent.understanding.encoder import shipped
from agent.understanding.labels import Said

DATA = Path(__file__).parent.parent / "data"
LETTERS, SHORT, ORDINARY = (
    DATA / "letters_test.jsonl",
    DATA / "triage_test.jsonl",
    DATA / "router_test.jsonl",
)
LONG = 40  # words from which on a message is a letter
_ROUNDS = 3

Case = dict[str, Any]


@dataclass(frozen=True)
class Count:
    """So many of so many."""

    found: int
    of: int

    @property
    def share(self) -> float:
        return self.found / self.of if self.of else 0.0


@dataclass(frozen=True)
class Part:
    """Of the cases that are emergencies: found, and of these of the right kind. Of the ordinary
    ones: told to call now, and given any notice or line."""

    name: str
    recall: Count
    right_kind: Count
    call_now: Count
    any_notice: Count


@dataclass(frozen=True)
class Result:
    """A set of cases in total, and by length, language and kind; and which kinds are taken for
    which others (the right one, the told one, how often)."""

    total: Part
    parts: list[Part]
    confusions: list[tuple[str, str, int]]


@dataclass(frozen=True)
class Times:
    """Milliseconds a message: the fastest of three readings of each, as the machine is shared."""

    median: float
    percentile_99: float


def cases(path: Path) -> list[Case]:
    """Labelled messages. Raises AgentError for a file that is not what it should be."""
    found = []
    for row in read(path, {"text"}):
        degree = row.get("degree") or ("now" if row.get("emergency") else "none")
        kinds = row.get("kind") or []
        found.append(
            {
                "text": row["text"],
                "degree": degree,
                "kinds": [kinds] if isinstance(kinds, str) else kinds,
                "language": row.get("language", "en"),
                "split": row.get("split", ""),
            }
        )
    return found


def ordinary(path: Path = ORDINARY) -> list[Case]:
    """What most messages are like: the router's test set, short complaints and others."""
    return [
        {"text": row["messages"][-1]["content"], "degree": "none", "kinds": [], "language": "en"}
        for row in read(path, {"messages", "retrieve"})
        if len(row["messages"]) == 1
    ]


def questions(path: Path, field: str) -> list[Case]:
    """Other people's messages, none of them labelled: counted as ordinary. Raises AgentError."""
    texts = dict.fromkeys(row[field] for row in read(path, {field}))
    return [{"text": t, "degree": "none", "kinds": [], "language": "en"} for t in texts]


def measure(name: str, rows: Sequence[Case]) -> Result:
    """Triage every case and count."""
    told = list(zip(rows, verdicts([row["text"] for row in rows]), strict=True))
    parts = []
    for title, belongs in _divisions(rows).items():
        chosen = [(row, verdict) for row, verdict in told if belongs(row)]
        if 0 < len(chosen) < len(told):
            parts.append(_part(title, chosen))
    mistaken = Counter(
        (row["kinds"][0], str(verdict.kind))
        for row, verdict in told
        if _urgent(row) and verdict.emergency and verdict.kind not in row["kinds"]
    )
    confusions = [(right, wrong, times) for (right, wrong), times in mistaken.most_common()]
    return Result(_part(name, told), parts, confusions)


def times(texts: Iterable[str]) -> Times:
    """How long reading a message takes, once the encoder is loaded."""
    encoder = shipped()

    def once(text: str) -> float:
        encoder.forget()
        start = time.perf_counter()
        encoder.read([Said(text)])
        return time.perf_counter() - start

    taken = [min(once(text) for _ in range(_ROUNDS)) * 1000 for text in texts]
    return Times(float(np.median(taken)), float(np.percentile(taken, 99)))


def as_text(result: Result) -> str:
    """The table for a terminal."""
    head = f"{'':30}{'emergencies found':>22}{'right kind':>18}{'call now':>18}{'any notice':>18}"
    lines = [head]
    for part in [result.total, *result.parts]:
        indent = "" if part is result.total else "  "
        counts = (part.recall, part.right_kind, part.call_now, part.any_notice)
        lines.append(
            f"{indent + part.name:30}{_of(counts[0]):>22}"
            + "".join(f"{_of(count):>18}" for count in counts[1:])
        )
    lines += [f"  {right} taken for {wrong}: {times}" for right, wrong, times in result.confusions]
    return "\n".join(lines)


def _divisions(rows: Sequence[Case]) -> dict[str, Callable[[Case], bool]]:
    kinds = sorted({row["kinds"][0] for row in rows if row["kinds"]})
    languages = sorted({row["language"] for row in rows})
    divisions: dict[str, Callable[[Case], bool]] = {
        "letters": lambda row: len(row["text"].split()) >= LONG,
        "short messages": lambda row: len(row["text"].split()) < LONG,
    }
    for tag in languages:
        divisions[f"language {tag}"] = lambda row, tag=tag: row["language"] == tag  # type: ignore[misc]
    for degree in ("now", "soon"):
        divisions[f"degree {degree}"] = lambda row, degree=degree: row["degree"] == degree  # type: ignore[misc]
    for kind in kinds:
        divisions[f"kind {kind}"] = lambda row, kind=kind: row["kinds"][:1] == [kind]  # type: ignore[misc]
    return divisions


def _urgent(row: Case) -> bool:
    """Whether a case wants the notice: an emergency now, or a crisis of suicide."""
    return row["degree"] == "now" or (row["degree"] == "soon" and "suicide" in row["kinds"])


def _part(name: str, told: Sequence[tuple[Case, Verdict]]) -> Part:
    urgent = [(row, verdict) for row, verdict in told if _urgent(row)]
    calm = [verdict for row, verdict in told if row["degree"] == "none"]
    found = [(row, verdict) for row, verdict in urgent if verdict.emergency]
    return Part(
        name,
        Count(len(found), len(urgent)),
        Count(sum(verdict.kind in row["kinds"] for row, verdict in found), len(found)),
        Count(sum(verdict.emergency for verdict in calm), len(calm)),
        Count(sum(verdict.degree != "none" for verdict in calm), len(calm)),
    )


def _of(count: Count) -> str:
    return f"{count.share:.1%} of {count.of}" if count.of else "-"
