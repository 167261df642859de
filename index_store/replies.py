"""The dialogues of an index, on disk: written in one go, read few at a time.

Owns the SQLite file of texts and the file of their ids, by which every row that is read is known
to be the one that was written. Does not know vectors or searching.
"""

from __future__ import annotations

import sqlite3
import threading
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from index_store.dataset import Dialogue

if TYPE_CHECKING:
    import numpy as np

BATCH = 1000  # rows that are in memory at once

BETWEEN = "\n"  # names of sources

Kept = tuple[tuple[str, ...], Dialogue]  # the names of the sources that hold it; a dialogue


class Damage(ValueError):
    """A file that is not the one that was written; the message says which and how."""


def write(path: Path, ids: Path, rows: Iterable[Kept]) -> int:
    """Write `rows` as they come, and their ids; how many. Raises OSError or sqlite3.Error."""
    written = array("Q")
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        # The file is synced as a whole when it is complete; until then nobody reads it.
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.execute(
            "CREATE TABLE replies (position INTEGER PRIMARY KEY, id TEXT NOT NULL, "
            "source TEXT NOT NULL, title TEXT NOT NULL, patient TEXT NOT NULL, "
            "doctor TEXT NOT NULL)"
        )
        database.execute("BEGIN")
        unread = iter(rows)
        while batch := list(islice(unread, BATCH)):
            marked = [(row.id, BETWEEN.join(sources), row) for sources, row in batch]
            database.executemany(
                "INSERT INTO replies VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (position, id_, source, d.title, d.patient, d.doctor)
                    for position, (id_, source, d) in enumerate(marked, len(written))
                ),
            )
            written.extend(int(id_, 16) for id_, _, _ in marked)
        database.execute("COMMIT")
    ids.write_bytes(written.tobytes())
    return len(written)


def share(path: Path, positions: Iterable[int], source: str) -> None:
    """Note that `source` holds the rows at `positions`, too. Raises sqlite3.Error."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("BEGIN")
        database.executemany(
            "UPDATE replies SET source = source || ? WHERE position = ?",
            ((BETWEEN + source, position) for position in positions),
        )
        database.execute("COMMIT")


class Replies:
    """The dialogues in the order of their positions, from 0. Safe from several threads."""

    def __init__(self, path: Path, ids: Path) -> None:
        """Open what `write` wrote. Raises OSError or sqlite3.Error."""
        import numpy as np

        self.ids: np.ndarray[Any, Any] = np.fromfile(ids, dtype="<u8")
        # Immutable: the files of a generation never change, so no lock is taken and none is
        # left beside them, and the folder may be read-only.
        address = path.resolve().as_uri() + "?mode=ro&immutable=1"
        self._database = sqlite3.connect(address, uri=True, check_same_thread=False)
        self._reading = threading.Lock()

    def read(self, positions: Sequence[int]) -> dict[int, Dialogue]:
        """The dialogues at `positions`. Raises Damage if one is not what was written."""
        marks = ",".join("?" * len(positions))
        query = f"SELECT position, title, patient, doctor FROM replies WHERE position IN ({marks})"
        try:
            with self._reading:
                rows = self._database.execute(query, list(positions)).fetchall()
        except sqlite3.DatabaseError as error:
            raise Damage(f"replies.sqlite cannot be read: {error}") from error
        found = {position: Dialogue(*texts) for position, *texts in rows}
        for position in positions:
            self._check(position, found.get(position))
        return found

    def all(self) -> Iterator[Kept]:
        """Every dialogue with its sources, by position. Raises Damage like `read`."""
        for start in range(0, len(self.ids), BATCH):
            with self._reading:
                rows = self._database.execute(
                    "SELECT position, source, title, patient, doctor FROM replies "
                    "WHERE position >= ? ORDER BY position LIMIT ?",
                    (start, BATCH),
                ).fetchall()
            for expected, (position, sources, *texts) in enumerate(rows, start):
                dialogue = Dialogue(*texts)
                self._check(expected, dialogue if position == expected else None)
                yield tuple(sources.split(BETWEEN)), dialogue
            if len(rows) != min(BATCH, len(self.ids) - start):
                raise Damage("rows of replies.sqlite are missing")

    def lengths(self) -> np.ndarray[Any, Any]:
        """The characters of each dialogue, (rows,) int64."""
        import numpy as np

        with self._reading:
            rows = self._database.execute(
                "SELECT length(title) + length(patient) + length(doctor) FROM replies "
                "ORDER BY position"
            )
            return np.fromiter((length for (length,) in rows), dtype=np.int64)

    def close(self) -> None:
        """Let go of the file; reading is over."""
        self._database.close()

    def _check(self, position: int, dialogue: Dialogue | None) -> None:
        if dialogue is None or int(dialogue.id, 16) != int(self.ids[position]):
            raise Damage(f"row {position} of replies.sqlite is not what was written")
