"""Answers written by hand from the replies in their prompt, and read by a second person.

Owns their file: a patient of the sample, the replies that a search found for that patient, and an
answer that takes from them what is true for this patient too, cited, or says that none fits. Knows
nothing of how examples are made.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from index_store.dataset import Dialogue, read_rows

ANSWERS = Path(__file__).parent / "data" / "grounded.jsonl"


@dataclass(frozen=True)
class Grounded:
    """An answer to `patient` from `replies`, which it cites by their place, from 1."""

    patient: Dialogue
    replies: tuple[Dialogue, ...]
    answer: str


def grounded() -> list[Grounded]:
    """All of them. The texts of the sample stand in its own files; here are their ids."""
    sample = {dialogue.id: dialogue for dialogue in read_rows("sample")}
    rows = map(json.loads, ANSWERS.read_text(encoding="utf-8").splitlines())
    return [
        Grounded(sample[row["patient"]], tuple(sample[i] for i in row["replies"]), row["answer"])
        for row in rows
    ]
