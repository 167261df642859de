"""Labelled messages from a JSONL file. Knows nothing of what their fields mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.errors import AgentError
from index_store.lines import json_line


def read(path: Path, needed: set[str]) -> list[dict[str, Any]]:
    """The rows of a file, each with the fields `needed`.

    Raises AgentError for a file that cannot be read or is empty, or a line that is not what it
    should be.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise AgentError(f"{path} cannot be read: {error.strerror}.") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json_line(line)
        except ValueError as error:
            raise AgentError(f"Line {number} of {path} {error}.") from None
        if not isinstance(row, dict) or not needed <= row.keys():
            fields = ", ".join(sorted(needed))
            raise AgentError(f"Line {number} of {path} needs the fields {fields}.")
        rows.append(row)
    if not rows:
        raise AgentError(f"{path} is empty: there is nothing to measure.")
    return rows
