"""How good triage is on messages it never learned: found, flagged, of the right kind, and the time.

Owns the test sets (`data/letters_test.jsonl`, by authors of whom nothing was learned, and
`data/triage_test.jsonl`) and the counting. A case has `text`, and `degree` or `emergency`, and
`kind` (of the emergency, or a list of those that will do). Only totals were ever read of the
letters; what was `triage_test.jsonl`'s development half is learned from, and no longer there.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import AgentError
from agent.evaluation.parts.labelled import LONG, Times, numbered, read
from agent.safety.triage import Verdict, verdicts
from agent.understanding.encoder import shipped
from agent.understanding.labels import HEADS, Said

DATA = Path(__file__).parent.parent / "data"
LETTERS, SHORT, ORDINARY = (
    DATA / "letters_test.jsonl",
    DATA / "triage_test.jsonl",
    DATA / "router_test.jsonl",
)

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
    """Of the cases that are emergencies: found, and of these of the right kind. Of those for
    someone to look at soon: given the line or the notice. Of the ordinary ones: told to call now,
    and given any notice or line."""

    name: str
    recall: Count
    right_kind: Count
    soon: Count
    call_now: Count
    any_notice: Count


@dataclass(frozen=True)
class Result:
    """A set of cases in total, and by length, language and kind; which kinds are taken for which
    others (the right one, the told one, how often; "none" is ordinary, or calm); and of the
    crises of suicide that were told, how many are."""

    total: Part
    parts: list[Part]
    confusions: list[tuple[str, str, int]]
    suicide: Count


def cases(path: Path) -> list[Case]:
    """Labelled messages. Raises AgentError for a file that is not what it should be."""
    found: list[Case] = []
    for number, row in numbered(path, {"text"}, ("text", "language")):
        degree = row.get("degree") or ("now" if row.get("emergency") else "none")
        kinds = row.get("kind") or []
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if degree not in HEADS["degree"]:
            raise AgentError(
                f"Line {number} of {path}: {degree!r} is no degree: it is none, soon or now."
            )
        if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
            raise AgentError(f"Line {number} of {path} needs a text as kind, or a list of texts.")
        found.append(
            {
                "text": row["text"],
                "degree": degree,
                "kinds": kinds,
                "language": row.get("language", "en"),
            }
        )
    return found


def ordinary(path: Path = ORDINARY) -> list[Case]:
    """What most messages are like: the router's test set, short complaints and others.

    Left out is what one of two readers, who knew no verdict, said cannot wait (`degree`)."""
    return [
        {"text": row["messages"][-1]["content"], "degree": "none", "kinds": [], "language": "en"}
        for row in read(path, {"messages", "retrieve"})
        if len(row["messages"]) == 1 and "degree" not in row
    ]


def questions(path: Path, field: str) -> list[Case]:
    """Other people's messages, none of them labelled: counted as ordinary. Raises AgentError."""
    texts = dict.fromkeys(row[field] for row in read(path, {field}, {field}))
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
        (right, wrong)
        for row, verdict in told
        if (right := _kind(row)) != (wrong := str(verdict.kind) if verdict.emergency else "none")
        and wrong not in row["kinds"]
    )
    confusions = [(right, wrong, times) for (right, wrong), times in mistaken.most_common()]
    crises = [row for row, verdict in told if verdict.emergency and verdict.kind == "suicide"]
    suicide = Count(sum("suicide" in row["kinds"] for row in crises), len(crises))
    return Result(_part(name, told), parts, confusions, suicide)


def times(texts: Sequence[str]) -> Times:
    """How long reading a message takes, once the encoder is loaded."""
    encoder = shipped()

    def once(text: str) -> float:
        encoder.forget()
        start = time.perf_counter()
        encoder.read([Said(text)])
        return time.perf_counter() - start

    return Times.of(once, texts)


def as_text(result: Result) -> str:
    """The table for a terminal."""
    columns = ("emergencies found", "right kind", "soon: told", "call now", "any notice")
    head = f"{'':30}" + "".join(f"{column:>19}" for column in columns)
    lines = [head]
    for part in [result.total, *result.parts]:
        indent = "" if part is result.total else "  "
        counts = (part.recall, part.right_kind, part.soon, part.call_now, part.any_notice)
        lines.append(f"{indent + part.name:30}" + "".join(f"{_of(count):>19}" for count in counts))
    if result.suicide.of:
        lines.append(f"  of what was told to be about suicide, right: {_of(result.suicide)}")
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


def _kind(row: Case) -> str:
    return next(iter(row["kinds"]), "unnamed") if _urgent(row) else "none"


def _part(name: str, told: Sequence[tuple[Case, Verdict]]) -> Part:
    urgent = [(row, verdict) for row, verdict in told if _urgent(row)]
    calm = [verdict for row, verdict in told if row["degree"] == "none"]
    soon = [verdict for row, verdict in told if row["degree"] == "soon" and not _urgent(row)]
    found = [(row, verdict) for row, verdict in urgent if verdict.emergency]
    return Part(
        name,
        Count(len(found), len(urgent)),
        Count(sum(verdict.kind in row["kinds"] for row, verdict in found), len(found)),
        Count(sum(verdict.degree != "none" for verdict in soon), len(soon)),
        Count(sum(verdict.emergency for verdict in calm), len(calm)),
        Count(sum(verdict.degree != "none" for verdict in calm), len(calm)),
    )


def _of(count: Count) -> str:
    return f"{count.share:.1%} of {count.of}" if count.of else "-"
