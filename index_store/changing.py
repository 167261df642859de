"""One change of an index at a time, and what changes leave beside the index that serves.

Owns the lock in an index's folder, how what lies there is named, and its deletion. Does not know
what is changed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from index_store import journal
from index_store.errors import StoreError
from index_store.manifest import Manifest

GENERATION, BUILDING, LOCK = "generation-", "building-", "build.lock"


@contextmanager
def changing(directory: Path) -> Iterator[None]:
    """One change at a time. Raises StoreError if another one is running, or OSError."""
    from filelock import FileLock, Timeout

    try:
        lock = FileLock(directory / LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise StoreError(
            f"Another build or backup is at {directory}: wait until it has finished."
        ) from None
    try:
        yield
    finally:
        lock.release()


def sweep(directory: Path, manifest: Manifest) -> None:
    """Delete everything but the generation that serves."""
    _sweep(directory, (BUILDING, GENERATION), keep=manifest.generation)
    journal.sweep(directory)


def sweep_unfinished(directory: Path) -> None:
    """Delete what changes that were killed had begun, but for what they had embedded."""
    _sweep(directory, (BUILDING,))


def _sweep(directory: Path, prefixes: tuple[str, ...], keep: str | None = None) -> None:
    """Delete what earlier changes left; what cannot be deleted now is deleted by the next."""
    for path in directory.iterdir():
        if path.name.startswith(prefixes) and path.name != keep:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
