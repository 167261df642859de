"""manifest.json: which generation of the index serves, how it was made, what its files are.

Owns the form of the manifest, the checks on reading it, and replacing it in one step, which
is what commits a build. Does not know what is inside the files it lists.
"""

from __future__ import annotations

import json
import os
import shlex
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from index_store import PERSISTED
from index_store.cleaning import Cleaning
from index_store.disk import sync
from index_store.errors import StoreError

SCHEMA_VERSION = 2
NAME = "manifest.json"
READ = 1 << 22  # bytes


class FileRecord(BaseModel):
    """A file's size in bytes and its XXH3 hash of 128 bits, by which it is known again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: int
    xxh3: str

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        """Measure a file. Raises OSError."""
        from xxhash import xxh3_128  # against accidents, at the speed of memory

        digest = xxh3_128()
        with path.open("rb") as file:
            while block := file.read(READ):
                digest.update(block)
            return cls(bytes=os.fstat(file.fileno()).st_size, xxh3=digest.hexdigest())


class Source(BaseModel):
    """Where rows came from, as `--source` and `--limit` said, what cleaning did to them, and how
    many of them are left; `rows` is None in an index of before it was counted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    limit: int | None
    cleaning: Cleaning
    rows: int | None = None


class Manifest(BaseModel):
    """What is known of an index without opening it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int
    embed_model: str
    dimension: int
    factory: str  # of FAISS, by which the nearest vectors are found
    sources: list[Source]
    built_at: datetime
    rows: int
    generation: str = Field(pattern=r"^generation-[\w-]+$")
    files: dict[str, FileRecord]

    @property
    def is_sample(self) -> bool:
        """Whether all of it is the starter corpus, which no real patient or doctor wrote."""
        return [source.name for source in self.sources] == ["sample"]


class OtherFormat(ValueError):
    """A manifest that another medraft wrote."""


def parse(content: bytes) -> Manifest:
    """The manifest that these bytes are. Raises OtherFormat, and ValueError if they are none."""
    try:
        told = json.loads(content)
        if (version := told["schema_version"]) == SCHEMA_VERSION:
            return Manifest.model_validate(told)
    except (ValidationError, ValueError, KeyError, TypeError):
        raise ValueError(f"{NAME} is not what was written") from None
    raise OtherFormat(f"has the format {version}, and this medraft reads {SCHEMA_VERSION}")


def read(directory: Path, embed_model: str | None = None) -> Manifest:
    """Read the manifest in `directory`; `embed_model` is the identity it must have, if any.

    Raises StoreError if it is missing, damaged, of another schema or of another model.
    """
    try:
        manifest = parse((directory / NAME).read_bytes())
    except FileNotFoundError:
        raise StoreError(
            f"There is no index in {directory}: run {build_command(directory)}."
        ) from None
    except OSError as error:
        raise StoreError(f"The index in {directory} cannot be read: {error.strerror}.") from None
    except OtherFormat as error:
        raise StoreError(
            f"The index in {directory} {error}: run {build_command(directory)}."
        ) from None
    except ValueError as error:
        raise damaged(directory, str(error)) from None
    if embed_model not in (None, manifest.embed_model):
        raise StoreError(
            f"The index in {directory} was built with the embedding model {manifest.embed_model}, "
            f"and {embed_model} is set: run {build_command(directory, manifest)}, or set "
            "MEDRAFT_EMBED_MODEL to the model that it was built with."
        )
    return manifest


def write(directory: Path, manifest: Manifest) -> None:
    """Replace the manifest in one step, on the disk when this returns. Raises OSError."""
    temporary = directory / f"building-{NAME}"
    temporary.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    sync(temporary)
    temporary.replace(directory / NAME)
    sync(directory)


def damaged(directory: Path, what: str, manifest: Manifest | None = None) -> StoreError:
    """The error for an index that does not open; `manifest` says how it had been built."""
    return StoreError(
        f"The index in {directory} is damaged ({what}): run {build_command(directory, manifest)}."
    )


def build_command(directory: Path, manifest: Manifest | None = None) -> str:
    """The commands that build this index again, as people type them; the columns that a source was
    read by are not known."""
    if manifest is None:
        return _command("build", directory, None, [])
    first, *others = manifest.sources
    kind = [] if manifest.factory == "Flat" else ["--factory", manifest.factory]
    commands = [_command("build", directory, first, kind)]
    commands += [_command("add", directory, each, []) for each in others]
    return ", then ".join(commands)


def _command(name: str, directory: Path, source: Source | None, more: list[str]) -> str:
    words = ["medraft", "index", name]
    if source is not None and (name != "build" or source.name != "sample"):
        named, *options = source.name.split(" --")
        words += ["--source", named]
        words += [word for option in options for word in f"--{option}".split(" ", 1)]
        words += ["--limit", str(source.limit)] if source.limit is not None else []
    words += more
    if directory.resolve() != PERSISTED:
        words += ["--dir", str(directory)]
    return f"`{shlex.join(words)}`"
