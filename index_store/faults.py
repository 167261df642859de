"""Rows that cannot be used: skipped, counted by reason, and told with their places.

Owns how many of them a source may have. Does not know what is wrong with one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from index_store.errors import StoreError

SHARE, FEW = 0.1, 20  # of the rows, and of any number of rows
TOLD = 5  # places for each reason


@dataclass(frozen=True)
class Fault:
    """A row that cannot be used. `reason` is what such rows are counted under; `place` and `told`
    make the sentence."""

    place: str
    reason: str
    told: str

    def error(self) -> StoreError:
        """For a source that may have none."""
        return StoreError(f"{self.place} {self.told}: mend it and build again.")


class Faults:
    """Those that were skipped so far."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.told: list[str] = []
        self._first: Fault | None = None

    def skip(self, fault: Fault, good: int) -> None:
        """Count one more, after so many `good` rows. Raises StoreError if they are too many."""
        self._first = self._first or fault
        self.counts[fault.reason] += 1
        if self.counts[fault.reason] <= TOLD:
            self.told.append(f"{fault.place} {fault.told}")
        if self.counts.total() > max(FEW, SHARE * (good + self.counts.total())):
            raise self._too_many(good)

    def judge(self, good: int) -> None:
        """When all is read: raise StoreError if there is more to mend than to use."""
        if self._first is not None and good == 0:
            raise self._first.error()
        if self.counts.total() > good:
            raise self._too_many(good)

    def _too_many(self, good: int) -> StoreError:
        assert self._first is not None
        bad = self.counts.total()
        return StoreError(
            f"{bad} of {good + bad} rows cannot be used, which is too many to skip; the first: "
            f"{self._first.place} {self._first.told}."
        )
