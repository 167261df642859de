"""The index that serves now: opened again when a build has replaced it.

Owns when to look and what happens to searches meanwhile. Does not know how an index is opened or
searched.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from index_store import manifest as manifests
from index_store.dataset import Dialogue
from index_store.errors import StoreError
from index_store.store import Hit, IndexStore

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger("medraft")


class LiveIndex:
    """The newest index of a directory. Searching is safe from several threads.

    Who asked for a row to be removed must not wait for a restart: each search looks whether the
    manifest is still the same file, which costs microseconds, and the first that finds another
    one opens the new index, while the others go on in the old one. One that does not open is tried
    again at each search; one that the GPU has no room for is searched on the CPU.
    """

    def __init__(self, directory: Path, embed_model: str, search_on: str = "cpu") -> None:
        """Open the index as IndexStore.open does. Raises StoreError."""
        self._directory = directory
        self._embed_model = embed_model
        self._search_on = search_on
        self._seen = self._stamp()
        self._store = IndexStore.open(directory, embed_model, search_on)
        self._opening = threading.Lock()

    @property
    def store(self) -> IndexStore:
        """The index as it is on the disk; the one before, while the newest does not open."""
        if self._stamp() != self._seen and self._opening.acquire(blocking=False):
            try:
                seen = self._stamp()
                # The old one is closed by the last search that still holds it.
                self._store = self._newest()
                self._seen = seen
                log.info("The index was replaced; searching %s", self._store.manifest.generation)
            except StoreError as error:
                log.error("%s", error)
            finally:
                self._opening.release()
        return self._store

    def search(self, query_text: str, query_vector: np.ndarray[Any, Any], k: int) -> list[Hit]:
        """IndexStore.search, in the newest index."""
        return self.store.search(query_text, query_vector, k)

    def find(self, id: str) -> Dialogue | None:
        """IndexStore.find, in the newest index."""
        return self.store.find(id)

    def _newest(self) -> IndexStore:
        try:
            return IndexStore.open(self._directory, self._embed_model, self._search_on)
        except StoreError as error:
            if self._search_on == "cpu":
                raise
            # The old copy holds the GPU's memory while the new one is made: both may never fit.
            opened = IndexStore.open(self._directory, self._embed_model, "cpu")
            log.error("%s Meanwhile it is searched on the CPU.", error)
            return opened

    def _stamp(self) -> tuple[int, int]:
        try:
            found = (self._directory / manifests.NAME).stat()
        except OSError:
            return 0, 0
        return found.st_mtime_ns, found.st_ino
