"""Files of rows: which kinds there are, and those that are no lines of text.

Owns the reader for each ending. Does not know which columns are wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from index_store import json_file, lines
from index_store.errors import StoreError, reason
from index_store.faults import Fault
from index_store.lines import Row

ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".xlsx")
PACKED = ".gz"
KINDS = ".jsonl, .ndjson, .json, .csv, .tsv (these also as .gz), .parquet or .xlsx"


def ending(path: Path) -> str | None:
    """Which of ENDINGS a file has, packed or not; None if it is none that can be read."""
    last = path.suffix.lower()
    packed = last == PACKED
    kind = path.with_suffix("").suffix.lower() if packed else last
    readable = ENDINGS[:-2] if packed else ENDINGS
    return kind if kind in readable else None


def rows(path: Path, kind: str, wanted: set[str]) -> Iterator[Row]:
    """Rows of a file of the kind that `ending` told; where columns can be read alone, those that
    are not `wanted` are None.

    Raises StoreError if it cannot be read, or if two of the `wanted` columns share a name.
    """
    match kind:
        case ".jsonl" | ".ndjson":
            return lines.jsonl(path)
        case ".json":
            return json_file.rows(path, wanted)
        case ".csv":
            return lines.separated(path, wanted)
        case ".tsv":
            return lines.separated(path, wanted, "\t")
        case ".parquet":
            return _parquet(path, wanted)
        case _:
            return _xlsx(path, wanted)


def _parquet(path: Path, wanted: set[str]) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        number = 0
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            lines.check_names(path, [name.strip() for name in names], wanted)
            read = [name for name in names if name.strip() in wanted]
            for batch in file.iter_batches(batch_size=1_000, columns=read):
                for at in range(batch.num_rows):
                    number += 1
                    place = f"{path}, row {number}"
                    yield place, _record(place, names, batch.slice(at, 1))
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{path} cannot be read as Parquet: {reason(error)}.") from None


def _record(place: str, names: list[str], batch: Any) -> dict[str, object] | Fault:
    """The one row of an Arrow batch, which has some columns of these names."""
    try:
        (row,) = batch.to_pylist()
    except UnicodeDecodeError:
        return Fault(place, "not UTF-8", "is not UTF-8")
    except (ValueError, OverflowError) as error:
        return Fault(place, "not text", f"cannot be read ({reason(error)})")
    return dict.fromkeys(names) | row


def _xlsx(path: Path, wanted: set[str]) -> Iterator[Row]:
    """The first sheet; numbers and dates as they are written in Python."""
    try:
        from openpyxl import load_workbook
    except ImportError:
        raise StoreError(
            f"{path} needs openpyxl to be read: pip install 'medraft[xlsx]', or save it as .csv."
        ) from None
    try:
        with closing(load_workbook(path, read_only=True, data_only=True)) as book:
            titles = [sheet.title for sheet in book.worksheets]
            if not titles:
                raise StoreError(f"{path} has no sheet of cells: save the rows as one.")
            first = book.worksheets[0]
            first.reset_dimensions()  # what a file says of its own size need not be so
            header: list[str] = []
            for number, cells in enumerate(first.iter_rows(values_only=True), 1):
                if not any(cell is not None for cell in cells):
                    continue
                values = ["" if cell is None else str(cell) for cell in cells]
                if not header:
                    header = [value.strip() for value in values]
                    lines.check_names(path, header, wanted)
                    _check_first(path, titles, header, wanted)
                else:
                    yield f"{path}, row {number}", dict(zip(header, values, strict=False))
            if not header:
                _check_first(path, titles, header, wanted)
    except StoreError:
        raise
    except Exception as error:  # openpyxl passes on what zip files and XML raise
        raise StoreError(
            f"{path} cannot be read as .xlsx ({reason(error)}): save its rows as .csv."
        ) from None


def _check_first(path: Path, sheets: list[str], header: list[str], wanted: set[str]) -> None:
    """Raise StoreError if the first of several sheets does not look like the one that is meant."""
    if len(sheets) > 1 and not wanted & {*header}:
        raise StoreError(
            f"{path} has the sheets {', '.join(sheets)}, of which the first is read, and it has "
            f"the columns {', '.join(header) or 'none'}: name them with --columns, or move the "
            "sheet with the rows to the front."
        )
