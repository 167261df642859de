"""The rows that an index is built of, as a command's options name them.

Owns how they are read and cleaned, and that what is skipped is told. Does not know what is built.
"""

from __future__ import annotations

import sys

from index_store.cleaning import Cleaner
from index_store.columns import Columns
from index_store.dataset import read_rows
from index_store.faults import Faults
from index_store.hub import Part


class NewRows:
    """The rows of a source, and what cleans them."""

    def __init__(
        self,
        source: str,
        limit: int | None,
        columns: str | None,
        config: str | None,
        split: str | None,
        strict: bool,
        keep_as_is: bool,
    ) -> None:
        part = Part(config, split) if config or split else None
        self._faults = Faults()
        self.name = source + (part.options() if part else "")
        self.cleaner = Cleaner(as_is=keep_as_is, faults=self._faults)
        self.rows = read_rows(
            source,
            Columns.parse(columns) if columns else None,
            limit,
            faults=None if strict else self._faults,
            part=part,
        )

    def tell(self) -> None:
        """Say which rows were skipped."""
        for line in self._faults.told:
            print(f"skipped: {line}", file=sys.stderr)
        if (more := self._faults.counts.total() - len(self._faults.told)) > 0:
            print(f"skipped: {more} more", file=sys.stderr)
