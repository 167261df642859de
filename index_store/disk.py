"""Writing to disk so that a crash leaves the old file or the new one, never half of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def make_once(target: Path, make: Callable[[Path], None]) -> Path:
    """`target`, a file or a folder, made by `make(temporary path)` unless it is there already.

    Two processes make it one after the other; a killed one leaves no target.
    """
    if target.exists():
        return target
    from filelock import FileLock

    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / ".lock"):
        if not target.exists():
            for left in target.parent.glob(f".making-{target.name}-*"):  # by one that was killed
                shutil.rmtree(left, ignore_errors=True)
            make_whole(target, make)
    return target


def make_whole(target: Path, make: Callable[[Path], None]) -> None:
    """`target`, a file or a folder, made by `make(temporary path)`: all of it or nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".making-{target.name}-", dir=target.parent))
    try:
        make(folder / target.name)
        for path in folder.rglob("*"):
            sync(path)
        (folder / target.name).rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sync(target.parent)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step."""
    _write(path, text, 0o666)


def write_private(path: Path, text: str) -> None:
    """As `write_text`, to a file that nobody but its owner can read, at no time."""
    _write(path, text, 0o600)


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)  # of a process that was killed: its mode may be another
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)  # else a key that was taken back could be there again after a power cut


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
