"""An index in one file, and back.

Owns the archive: a tar of the manifest and the generation it names. Does not know what is in the
files, only how to know them again.
"""

from __future__ import annotations

import lzma
import secrets
import shutil
import tarfile
import zlib
from pathlib import Path

from index_store import manifest as manifests
from index_store.changing import BUILDING, GENERATION, LOCK, changing, sweep
from index_store.disk import sync
from index_store.errors import StoreError, reason
from index_store.manifest import Manifest
from index_store.replies import Damage
from index_store.store import verify

# What reading an archive raises that is damaged, or compressed and not all there.
BROKEN = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError)


def backup(directory: Path, archive: Path) -> Manifest:
    """Write the index in `directory` to `archive`, a .tar; changes are refused meanwhile.

    Raises StoreError if there is no sound index, or the archive cannot be written.
    """
    if archive.is_dir():
        raise StoreError(f"{archive} is a folder: name the file to write the backup to.")
    temporary = archive.with_name(f".{archive.name}-unfinished")
    manifests.read(directory)  # before a lock is put there: a mistyped folder stays none
    with changing(directory):
        manifest = manifests.read(directory)
        try:
            verify(directory / manifest.generation, manifest)
        except (Damage, OSError) as error:
            raise manifests.damaged(directory, reason(error), manifest) from error
        try:
            with tarfile.open(temporary, "w") as tar:
                tar.add(directory / manifests.NAME, manifests.NAME)
                for name in manifest.files:
                    file = f"{manifest.generation}/{name}"
                    tar.add(directory / file, file)
            sync(temporary)
            temporary.replace(archive)
            sync(archive.absolute().parent)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise StoreError(
                f"The backup cannot be written to {archive} ({error.strerror}): check the free "
                "space and the permissions, or name another file."
            ) from error
    return manifest


def restore(archive: Path, directory: Path) -> Manifest:
    """Replace the index in `directory` by the one in `archive`, all of it or nothing.

    Raises StoreError if the archive is not a sound backup, or the index cannot be written.
    """
    aside = directory / f"{BUILDING}restored"
    _check(archive)  # before anything is made for it
    made = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"The index cannot be restored to {directory} ({error.strerror}): name a folder that "
            "can be written to with --dir."
        ) from None
    with changing(directory):
        try:
            shutil.rmtree(aside, ignore_errors=True)
            with tarfile.open(archive) as tar:
                tar.extractall(aside, filter="data")
            manifest = manifests.read(aside)
            verify(aside / manifest.generation, manifest)
            for path in (aside / manifest.generation).rglob("*"):
                sync(path)
            # By another name, since the very generation may lie here, damaged.
            served = f"{GENERATION}restored-{secrets.token_hex(4)}"
            (aside / manifest.generation).rename(directory / served)
            sync(directory)
            manifest = manifest.model_copy(update={"generation": served})
            manifests.write(directory, manifest)
        except (*BROKEN, Damage, StoreError) as error:
            raise _not_restored(archive, error) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
            if made and [*directory.iterdir()] == [directory / LOCK]:  # nothing was restored
                shutil.rmtree(directory, ignore_errors=True)
        sweep(directory, manifest)
    return manifest


def _check(archive: Path) -> None:
    """Raise StoreError for what is no backup at a glance."""
    try:
        with tarfile.open(archive) as tar:
            file = tar.extractfile(manifests.NAME)
            manifests.parse(file.read() if file else b"")
    except (*BROKEN, KeyError, ValueError) as error:
        raise _not_restored(archive, error) from error


def _not_restored(archive: Path, error: Exception) -> StoreError:
    return StoreError(
        f"{archive} cannot be restored ({reason(error)}): name a file that "
        "`medraft index backup` wrote. The index that was there is unchanged."
    )
