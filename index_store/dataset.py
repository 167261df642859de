"""Rows of a data set: the starter corpus, a file, or the Hub, as title, question and reply.

Owns which sources there are, how each is read, and the sentence for each way that fails.
Does not know what makes a row worth keeping, nor what becomes of it.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path

from index_store import SAMPLE
from index_store.errors import StoreError, reason

HUB_LIMIT = 1_000
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
HUB_TIMEOUT = 10  # seconds

Row = tuple[str, Mapping[str, object]]  # where it stands, for error messages; its columns


@dataclass(frozen=True)
class Dialogue:
    """One patient's question, its title in one line, and the doctor's reply."""

    title: str
    patient: str
    doctor: str

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits that depend on the three texts and nothing else."""
        text = f"{self.title}\0{self.patient}\0{self.doctor}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class Columns:
    """What a source calls the three columns."""

    description: str = "Description"
    patient: str = "Patient"
    doctor: str = "Doctor"

    @classmethod
    def parse(cls, text: str) -> Columns:
        """Read `Description=title,Patient=question,Doctor=answer`; what is left out keeps its name.

        Raises StoreError for any other form.
        """
        known = {field.name for field in fields(cls)}
        names = {}
        for pair in text.split(","):
            column, _, name = (part.strip() for part in pair.partition("="))
            if column.lower() not in known or not name:
                raise StoreError(
                    f"--columns does not take {pair.strip()!r}: write "
                    "`--columns Description=title,Patient=question,Doctor=answer`."
                )
            names[column.lower()] = name
        return cls(**names)


def read_rows(
    source: str, columns: Columns | None = None, limit: int | None = None
) -> Iterator[Dialogue]:
    """Yield the rows of `source` as they stand there, missing texts as "".

    `source` is "sample", a path that ends in .jsonl, .csv or .parquet, a directory in the
    Hub's layout, or a data set's name on the Hub ("owner/name"). `limit` counts rows read;
    without it everything is read, and 1,000 rows from the Hub.

    Raises StoreError, at the call or while iterating, when the source does not exist or
    cannot be read, lacks a column, is empty, or has a broken line.
    """
    if limit is not None and limit < 1:
        raise StoreError("--limit must be at least 1.")
    path = Path(source).expanduser()
    reader = _READERS.get(path.suffix.lower())
    if source == "sample":
        rows = _sample()
    elif path.is_dir():
        rows = _hub_layout(str(path))
    elif path.is_file():
        if reader is None:
            raise StoreError(
                f"{source} cannot be read, because of its ending: a file must be "
                ".jsonl, .csv or .parquet."
            )
        rows = reader(path)
    elif reader is not None:
        raise StoreError(f"There is no file {source}: check the path given as --source.")
    elif HUB_NAME.fullmatch(source):
        rows = _hub(source)
        limit = limit or HUB_LIMIT
    else:
        raise StoreError(
            f"{source!r} is neither a file nor a data set: --source takes `sample`, a path that "
            "ends in .jsonl, .csv or .parquet, or a name on the Hugging Face Hub such as "
            "owner/name."
        )
    return islice(_dialogues(rows, source, columns or Columns()), limit)


def _dialogues(rows: Iterator[Row], source: str, columns: Columns) -> Iterator[Dialogue]:
    """Pick the three columns out of each row, having seen on the first that they are there."""
    wanted = {field.name.capitalize(): getattr(columns, field.name) for field in fields(columns)}
    empty = True
    for place, row in rows:
        if empty:
            missing = [name for name in wanted.values() if name not in row]
            if missing:
                raise StoreError(
                    f"{source} has no column {', '.join(missing)}; it has "
                    f"{', '.join(map(str, row)) or 'none'}: name the ones to use, as in "
                    "`--columns Description=title,Patient=question,Doctor=answer`."
                )
            empty = False
        yield Dialogue(*(_text(row.get(name), name, place) for name in wanted.values()))
    if empty:
        raise StoreError(f"{source} has no rows: there is nothing to build an index from.")


def _text(value: object, column: str, place: str) -> str:
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    raise StoreError(
        f"{place}: {column} is not text but {type(value).__name__}; mend it and build again."
    )


def _sample() -> Iterator[Row]:
    files = sorted(SAMPLE.glob("*.jsonl"))
    if not files:
        raise StoreError("The starter corpus is not there: install medraft again.")
    for file in files:
        yield from _jsonl(file)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each line and its place; decoding line by line is what makes the place known."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                place = f"{path}, line {number}"
                try:
                    yield place, line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError:
                    raise StoreError(
                        f"{place} is not UTF-8: save the file as UTF-8 and build again."
                    ) from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from None


def _jsonl(path: Path) -> Iterator[Row]:
    for place, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise StoreError(
                f"{place} is not JSON ({reason(error)}): mend it and build again."
            ) from None
        if not isinstance(row, dict):
            raise StoreError(
                f"{place} is not a JSON object with the columns as keys: mend it and build again."
            )
        yield place, row


def _csv(path: Path) -> Iterator[Row]:
    reader = csv.reader((line for _, line in _lines(path)), strict=True)
    header: list[str] | None = None
    try:
        for fields_read in reader:
            place = f"{path}, line {reader.line_num}"
            if not fields_read:
                continue
            if header is None:
                header = fields_read
            elif len(fields_read) == len(header):
                yield place, dict(zip(header, fields_read, strict=True))
            else:
                raise StoreError(
                    f"{place}: the row that ends here has {len(fields_read)} fields, the header "
                    f"has {len(header)}; mend it and build again."
                )
    except csv.Error as error:
        raise StoreError(
            f"{path}, line {reader.line_num} is not CSV ({reason(error)}): mend it and build again."
        ) from None


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        number = 0
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1_000):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{path} cannot be read as Parquet: {reason(error)}.") from None


def _hub(name: str) -> Iterator[Row]:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        # Asked first, because `datasets` retries a Hub that does not answer for minutes.
        HfApi().dataset_info(name, timeout=HUB_TIMEOUT)
    except RepositoryNotFoundError:
        raise StoreError(
            f"{name} is neither a file nor a data set that the Hugging Face Hub shows: check the "
            "name, and log in with `hf auth login` if it is private."
        ) from None
    except Exception as error:  # whatever the HTTP client raises for a Hub that is not reached
        raise StoreError(
            f"The data set {name} cannot be reached on the Hugging Face Hub ({reason(error)}): "
            "check the connection, or give a file as --source."
        ) from None
    yield from _hub_layout(name)


def _hub_layout(name: str) -> Iterator[Row]:
    from datasets import load_dataset

    try:
        data = load_dataset(name, split="train", streaming=True)
        for number, row in enumerate(data, 1):
            yield f"{name}, row {number}", row
    except Exception as error:  # `datasets` passes on what every format and transport raises
        raise StoreError(
            f"The data set {name} cannot be read ({reason(error)}): give another --source."
        ) from None


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}
