"""Labelled messages from a JSONL file, and how long each takes. Knows nothing of their fields."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from agent.errors import AgentError
from index_store.errors import StoreError
from index_store.lines import json_lines

LONG = 40  # words from which on a message is a letter
_ROUNDS, _TIMED = 3, 100
Case = TypeVar("Case")


@dataclass(frozen=True)
class Times:
    """Milliseconds a message: the fastest of three readings of each, as the machine is shared."""

    median: float
    percentile_99: float

    @classmethod
    def of(cls, once: Callable[[Case], float], cases: Sequence[Case]) -> Times:
        """What `once`, which says the seconds of one reading, takes for some hundred of the cases,
        evenly chosen."""
        chosen = cases[:: max(1, len(cases) // _TIMED)]
        taken = [min(once(case) for _ in range(_ROUNDS)) * 1000 for case in chosen]
        return cls(float(np.median(taken)), float(np.percentile(taken, 99)))


def read(path: Path, needed: set[str], texts: Collection[str] = ()) -> list[dict[str, Any]]:
    """The rows of a file, each with the fields `needed`; where there are fields `texts`, they are
    text.

    Raises AgentError for a file that cannot be read or is empty, or a line that is not what it
    should be.
    """
    return [row for _, row in numbered(path, needed, texts)]


def numbered(
    path: Path, needed: set[str], texts: Collection[str] = ()
) -> list[tuple[int, dict[str, Any]]]:
    """The same, each with the number of its line. Raises as above."""
    try:
        lines = [*json_lines(path)]
    except StoreError as error:
        raise AgentError(str(error)) from None
    rows = []
    for number, row in lines:
        if not isinstance(row, dict) or not needed <= row.keys():
            fields = ", ".join(sorted(needed))
            raise AgentError(f"Line {number} of {path} needs the fields {fields}.")
        for field in texts:
            if field in row and not isinstance(row[field], str):
                kind = type(row[field]).__name__
                raise AgentError(f"Line {number} of {path} needs a text as {field}, not {kind}.")
        rows.append((number, row))
    if not rows:
        raise AgentError(f"{path} is empty: there is nothing to measure.")
    return rows
