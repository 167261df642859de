"""What a build has embedded so far, so that a killed one goes on where it was.

Owns one append-only file of records: a row's id, its vector, and a checksum, by which a record
that was cut off or spoilt is known and left out. Does not know rows, nor what a build does next.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

PREFIX = "embedded-"


class Journal:
    """The vectors of one embedding model in a directory; read and appended to."""

    def __init__(self, directory: Path, embed_model: str) -> None:
        """Read what is there; `embed_model` is the identity."""
        self._directory = directory
        self._name = f"{PREFIX}{zlib.crc32(embed_model.encode()):08x}-"
        self._records: Any = None
        self.reread()

    @property
    def dimension(self) -> int:
        """Of the vectors; there must be one."""
        return int(self._records.dtype["vector"].shape[0])

    def rows_of(self, ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Where the vector of each id stands, (n,) int64; -1 for one that is not here."""
        import numpy as np

        known = np.empty(0, dtype="<u8") if self._records is None else self._records["id"]
        return places(known, ids)

    def vectors(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The vectors at `rows`, (n, d) float32."""
        found: np.ndarray[Any, Any] = self._records["vector"][rows]
        return found

    def append(self, ids: np.ndarray[Any, Any], vectors: np.ndarray[Any, Any]) -> None:
        """Write vectors (n, d) for ids (n,), on the disk when this returns. Raises OSError."""
        import numpy as np

        records = np.empty(len(ids), dtype=_record(vectors.shape[1]))
        records["id"], records["vector"] = ids, vectors
        records["checksum"] = [_checksum(record) for record in records]
        with (self._directory / f"{self._name}{vectors.shape[1]}").open("ab") as file:
            file.write(records.tobytes())
            file.flush()
            os.fsync(file.fileno())

    def reread(self) -> None:
        """See what has been appended."""
        import numpy as np

        for path in self._directory.glob(f"{self._name}*"):
            record = _record(int(path.name.removeprefix(self._name)))
            whole = path.stat().st_size // record.itemsize
            # Appending goes on behind the last whole record.
            os.truncate(path, whole * record.itemsize)
            if whole:
                records = np.memmap(path, dtype=record, mode="r")
                sound = np.array([each["checksum"] == _checksum(each) for each in records])
                self._records = records if sound.all() else records[sound]


def sweep(directory: Path) -> None:
    """Delete the journals: what they hold is in the index now, or no longer wanted."""
    for path in directory.glob(f"{PREFIX}*"):
        path.unlink(missing_ok=True)


def places(known: np.ndarray[Any, Any], ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Where each of `ids` stands in `known`, (n,) int64; -1 for one that is not there."""
    import numpy as np

    if len(known) == 0:
        return np.full(len(ids), -1, dtype=np.int64)
    order = np.argsort(known, kind="stable")
    slots = np.minimum(np.searchsorted(known, ids, sorter=order), len(known) - 1)
    found = order[slots]
    return np.where(known[found] == ids, found, -1)


def _record(dimension: int) -> np.dtype[Any]:
    import numpy as np

    return np.dtype([("id", "<u8"), ("vector", "<f4", (dimension,)), ("checksum", "<u4")])


def _checksum(record: Any) -> int:
    return zlib.crc32(record["vector"].tobytes(), int(record["id"]) & 0xFFFFFFFF)
