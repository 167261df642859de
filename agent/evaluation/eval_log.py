"""A file of rows that survives being killed: what was measured is not measured again.

Owns how rows are kept and found again, and that two runs are never mixed in one folder. Knows
nothing of what the rows hold.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.errors import AgentError
from index_store.disk import write_text

RUN = "run.json"


class Row(BaseModel):
    """One thing measured: a question's id, and the behaviour that it was asked through."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    question: str
    approach: str


Kind = TypeVar("Kind", bound=Row)


class EvalLog(Generic[Kind]):
    """Rows by question and behaviour: one JSON line each, on the disk when `append` returns.

    Raises AgentError if the file is damaged; half a line, which a killed run leaves, is dropped.
    """

    def __init__(self, path: Path, kind: type[Kind]) -> None:
        self._path = path
        self._rows: dict[tuple[str, str], Kind] = {}
        if not path.exists():
            return
        *lines, torn = path.read_text(encoding="utf-8", errors="replace").split("\n")
        for number, line in enumerate(lines, start=1):
            try:
                row = kind.model_validate_json(line)
            except ValidationError:
                raise AgentError(
                    f"Line {number} of {path} is damaged: delete the line, and its answer is "
                    "measured again."
                ) from None
            self._rows[row.question, row.approach] = row
        if torn:
            write_text(path, "".join(f"{line}\n" for line in lines))

    def append(self, row: Kind) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(row.model_dump_json() + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._rows[row.question, row.approach] = row

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._rows

    def __getitem__(self, key: tuple[str, str]) -> Kind:
        return self._rows[key]


def claim(folder: Path, run: dict[str, Any]) -> None:
    """Make `folder` that of a run, which `run` tells from others, or find it to be so.

    Raises AgentError if it holds another run, or something else.
    """
    path = folder / RUN
    try:
        if path.exists():
            held = json.loads(path.read_text(encoding="utf-8"))
            other = next((name for name in run if held.get(name) != run[name]), None)
            if other is not None:
                raise AgentError(
                    f"{folder} holds another run ({other} is {held.get(other)!r} there and "
                    f"{run[other]!r} here): choose another --output, or delete it."
                )
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise AgentError(
                f"{folder} holds something else than an evaluation: choose another --output."
            )
        else:
            write_text(path, json.dumps(run, indent=2) + "\n")
    except (OSError, ValueError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or f"{RUN} is damaged"
        raise AgentError(
            f"{folder} cannot be used ({reason}): choose another --output, or delete it."
        ) from None
