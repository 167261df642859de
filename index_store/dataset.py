"""Rows of a data set: the starter corpus, a file, or the Hub, as title, question and reply.

Owns which sources there are, and the sentence for one that is none. Does not know how a file is
read (`files.py`, `lines.py`, `hub.py`), what makes a row worth keeping, nor what becomes of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from index_store import SAMPLE, files, hub, lines
from index_store.columns import HELP, Columns, NotText
from index_store.errors import StoreError
from index_store.faults import Fault, Faults
from index_store.hub import Part
from index_store.lines import Row

JUDGED = 1_000  # rows by which it is known which columns there are


class MissingColumns(StoreError):
    """A source lacks columns; `there` are those that it has."""

    def __init__(self, source: str, missing: list[str], there: list[str]) -> None:
        super().__init__(
            f"{source} has no column {', '.join(missing)}; it has {', '.join(there) or 'none'}: "
            f"name the ones to use, as in {HELP}."
        )
        self.there = there


@dataclass(frozen=True)
class Dialogue:
    """One patient's question, its title in one line, and the doctor's reply."""

    title: str
    patient: str
    doctor: str

    @property
    def letter(self) -> str:
        """What the doctor replied to."""
        return f"{self.title}\n{self.patient}"

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits that depend on the three texts and nothing else."""
        text = f"{self.title}\0{self.patient}\0{self.doctor}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def read_rows(
    source: str,
    columns: Columns | None = None,
    limit: int | None = None,
    *,
    faults: Faults | None = None,
    part: Part | None = None,
) -> Iterator[Dialogue]:
    """Yield the rows of `source` as they stand there, missing texts as "".

    `source` is "sample", a path that ends in one of `files.ENDINGS`, a directory in the Hub's
    layout, or a data set's name on the Hub ("owner/name"), of which `part` is read. `limit` counts
    rows that are yielded; without it everything is read, and 1,000 rows from the Hub. Rows that
    cannot be used are skipped into `faults`; without it there may be none.

    Raises StoreError, at the call or while iterating, when the source does not exist or
    cannot be read, lacks a column, is empty, or has a row, or too many, that cannot be used.
    """
    if limit is not None and limit < 1:
        raise StoreError("--limit must be at least 1.")
    columns = columns or Columns()
    try:
        path = Path(source).expanduser()
    except RuntimeError:
        raise StoreError(f"{source} is in nobody's home: write out the whole path.") from None
    kind = files.ending(path)
    is_set = source != "sample" and (path.is_dir() or (kind is None and not path.is_file()))
    if part is not None and not is_set:
        raise StoreError(f"{source} is no data set of the Hub: --config and --split are for those.")
    if source == "sample":
        rows = _sample()
    elif path.is_dir():
        rows = hub.laid_out(str(path), part or Part())
    elif path.is_file():
        if kind is None:
            raise StoreError(
                f"{source} cannot be read, because of its ending: a file must be {files.KINDS}."
            )
        rows = files.rows(path, kind, columns.wanted())
    elif kind is not None:
        raise StoreError(f"There is no file {source}: check the path given as --source.")
    elif hub.NAME.fullmatch(source):
        rows = hub.published(source, part or Part())
        limit = limit or hub.LIMIT
    else:
        raise StoreError(
            f"{source!r} is neither a file nor a data set: --source takes `sample`, a path that "
            f"ends in {files.KINDS}, or a name on the Hugging Face Hub such as owner/name."
        )
    return islice(_dialogues(rows, source, columns, faults), limit)


def _dialogues(
    rows: Iterator[Row], source: str, columns: Columns, faults: Faults | None
) -> Iterator[Dialogue]:
    """Pick the three columns out of each row, having seen that they are there."""
    seen: list[Row] = []
    names: dict[str, None] = {}  # in their order
    for row in islice(rows, JUDGED):
        seen.append(row)
        if not isinstance(row[1], Fault):
            names |= dict.fromkeys(columns.names(row[1]))
            if not columns.missing(names):
                break
    if not seen:
        raise StoreError(f"{source} has no rows: there is nothing to build an index from.")
    if names and (missing := columns.missing(names)):
        raise MissingColumns(source, missing, [*map(str, names)])
    good = 0
    for found in _read(chain(seen, rows), columns):
        if not isinstance(found, Fault):
            good += 1
            yield found
        elif faults is None:
            raise found.error()
        else:
            faults.skip(found, good)
    if faults is not None:
        faults.judge(good)


def _read(rows: Iterable[Row], columns: Columns) -> Iterator[Dialogue | Fault]:
    for place, row in rows:
        if isinstance(row, Fault):
            yield row
            continue
        try:
            yield Dialogue(*columns.texts(row))
        except NotText as error:
            yield Fault(f"{place}:", "not text", str(error))


def _sample() -> Iterator[Row]:
    found = sorted(SAMPLE.glob("*.jsonl"))
    if not found:
        raise StoreError("The starter corpus is not there: install medraft again.")
    for file in found:
        yield from lines.jsonl(file)
