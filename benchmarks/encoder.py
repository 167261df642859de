"""A trained encoder against what triage and router do today, on messages by other authors.

    medraft train-encoder --output my-encoder
    python -m benchmarks.encoder my-encoder

Prints, for triage: emergencies found, of these the kind that was right, and ordinary messages that
were flagged; for the router: health questions retrieved and others left alone; and what a reading
costs. An emergency is one from a probability of 0.5 on, as is a health question. Of the letters,
what a person should only look at soon is left out, but for talk of suicide.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from agent.evaluation.parts import router, triage
from agent.safety.triage import triage as by_rules
from agent.understanding.encoder import Encoder, load
from agent.understanding.labels import Said

EVALUATION = triage.LETTERS.parent
Judge = Callable[[Sequence[str]], list[str | None]]


def by_encoder(encoder: Encoder) -> Judge:
    """The kind of each text that is an emergency: now, or about suicide."""

    def judge(texts: Sequence[str]) -> list[str | None]:
        kinds: list[str | None] = []
        for reading in encoder.read([Said(text) for text in texts]):
            kind = max(reading.kind, key=lambda name: reading.kind[name])
            urgent = 1 - reading.degree["none"] if kind == "suicide" else reading.degree["now"]
            kinds.append(kind if urgent >= 0.5 else None)
        return kinds

    return judge


def share(found: Sequence[bool]) -> str:
    return f"{sum(found) / len(found):6.1%} of {len(found):3}" if found else f"{'-':>13}"


def judged(name: str, rows: Sequence[dict[str, Any]], judge: Judge) -> None:
    told = list(zip(rows, judge([row["text"] for row in rows]), strict=True))
    found = [(row, kind) for row, kind in told if row["emergency"]]
    right = [kind in row["kind"] for row, kind in found if kind is not None]
    flagged = [kind is not None for row, kind in told if not row["emergency"]]
    print(
        f"  {name:24} found {share([kind is not None for _, kind in found])}   "
        f"right kind {share(right)}   flagged {share(flagged)}"
    )


def routed(name: str, rows: Sequence[dict[str, Any]], encoder: Encoder) -> None:
    health = [
        r.topic["health"] >= 0.5
        for r in encoder.read([Said.last_of(row["messages"]) for row in rows])
    ]
    wanted = list(zip(rows, health, strict=True))
    print(
        f"  {name:24} retrieved {share([h for row, h in wanted if row['retrieve']])}   "
        f"left alone {share([not h for row, h in wanted if not row['retrieve']])}"
    )


def main() -> None:
    encoder = load(Path(sys.argv[1]))
    letters = [json.loads(line) for line in triage.LETTERS.read_text("utf-8").splitlines()]
    language = {row["text"]: row["language"] for row in letters}
    sets = {"letters and lines": triage.letters()}
    for tag in ("en", "es"):
        sets[f"  of these {tag}"] = [r for r in triage.letters() if language[r["text"]] == tag]
    sets["short, held-out half"] = [r for r in triage.cases() if r["split"] == "held-out"]
    sets["ordinary short messages"] = [
        {"text": row["messages"][-1]["content"], "emergency": False, "kind": "-"}
        for row in router.cases()
        if len(row["messages"]) == 1
    ]
    rules: Judge = lambda texts: [by_rules(text) for text in texts]  # noqa: E731
    for title, judge in (("triage by rules", rules), ("by the encoder", by_encoder(encoder))):
        print(title)
        for name, rows in sets.items():
            judged(name, rows, judge)
    print("retrieve or not, by the encoder")
    for name, cases in {
        "single messages": [row for row in router.cases() if len(row["messages"]) == 1],
        "conversations": [row for row in router.cases() if len(row["messages"]) > 1],
        "other author's turns": router.cases(EVALUATION / "turns_test.jsonl"),
        "letters": [
            {"messages": [{"role": "user", "content": r["text"]}], "retrieve": r["health"]}
            for r in letters
        ],
    }.items():
        routed(name, cases, encoder)
    for name, texts in (
        ("a short message", [row["text"] for row in sets["short, held-out half"]]),
        ("a letter", [row["text"] for row in letters if len(row["text"].split()) >= 40]),
    ):
        print(f"{name}: {median(milliseconds(encoder, text) for text in texts[:60]):.1f} ms")


def milliseconds(encoder: Encoder, text: str) -> float:
    taken = []
    for _ in range(3):
        encoder.forget()
        start = time.perf_counter()
        encoder.read([Said(text)])
        taken.append((time.perf_counter() - start) * 1000)
    return min(taken)


if __name__ == "__main__":
    main()
