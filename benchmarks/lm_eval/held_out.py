"""The held-out patients of the index's source as a data set of lm-evaluation-harness.

Read by `medraft_held_out.yaml`; docs/evaluation.md has the command.
"""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from agent import settings
from agent.evaluation.questions import read_questions


def held_out(**_: Any) -> dict[str, Dataset]:
    """`patient` and `doctor` of each; without the messages that need no doctor."""
    found = read_questions(settings.load(), None, None, None).dialogues
    rows = [{"patient": d.patient, "doctor": d.doctor} for d in found if d.doctor]
    return {"test": Dataset.from_list(rows)}
