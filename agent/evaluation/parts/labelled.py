"""Labelled messages from a JSONL file. Knows nothing of what their fields mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agent.errors import AgentError


def read(path: Path, needed: set[str]) -> list[dict[str, Any]]:
    """The rows of a file, each with the fields `needed`.

    Raises AgentError for a file that cannot be read, or a line that is not what it should be.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AgentError(f"{path} cannot be read: {error}.") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise AgentError(f"Line {number} of {path} is not JSON: {error.msg}.") from None
        if not isinstance(row, dict) or not needed <= row.keys():
            fields = ", ".join(sorted(needed))
            raise AgentError(f"Line {number} of {path} needs the fields {fields}.")
        rows.append(row)
    return rows
