"""Files of rows: which kinds there are, and those that are no lines of text.

Owns the reader for each ending. Does not know which columns are wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from index_store import lines
from index_store.errors import StoreError, reason
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
    """Rows of a file of the kind that `ending` told.

    Raises StoreError if it cannot be read, or if two of the `wanted` columns share a name.
    """
    match kind:
        case ".jsonl" | ".ndjson":
            return lines.jsonl(path)
        case ".json":
            return _json(path)
        case ".csv":
            return lines.separated(path, wanted)
        case ".tsv":
            return lines.separated(path, wanted, "\t")
        case ".parquet":
            return _parquet(path, wanted)
        case _:
            return _xlsx(path, wanted)


def _json(path: Path) -> Iterator[Row]:
    """A list of rows, an object that holds one, or a row a line."""
    with lines.opened(path) as file:
        text = file.read()
    if text.lstrip().startswith("["):
        yield from lines.array(path, text)
        return
    try:
        text.encode()
        value = lines.json_value(text)
    except ValueError:
        value = None
    if isinstance(value, dict):
        lists = [each for each in value.values() if isinstance(each, list)]
        value = lists[0] if len(lists) == 1 and _are_rows(lists[0]) else [value]
        for number, row in enumerate(value, 1):
            yield lines.as_row(f"{path}, row {number}", row)
    else:
        yield from lines.jsonl(path)


def _are_rows(values: list[object]) -> bool:
    return bool(values) and all(isinstance(v, dict) and "role" not in v for v in values)


def _parquet(path: Path, wanted: set[str]) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        number = 0
        with pq.ParquetFile(path) as file:
            lines.check_names(path, file.schema_arrow.names, wanted)
            for batch in file.iter_batches(batch_size=1_000):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{path} cannot be read as Parquet: {reason(error)}.") from None


def _xlsx(path: Path, wanted: set[str]) -> Iterator[Row]:
    """The first sheet; numbers and dates as they are written in Python."""
    try:
        from openpyxl import load_workbook
    except ImportError:
        raise StoreError(
            f"{path} needs openpyxl to be read: pip install 'medraft[xlsx]', or save it as .csv."
        ) from None
    try:
        sheet = load_workbook(path, read_only=True, data_only=True).worksheets[0]
        sheet.reset_dimensions()  # what a file says of its own size need not be so
        read = enumerate(sheet.iter_rows(values_only=True), 1)
        header: list[str] = []
        for number, cells in read:
            if not any(cell is not None for cell in cells):
                continue
            values = ["" if cell is None else str(cell) for cell in cells]
            if not header:
                header = [value.strip() for value in values]
                lines.check_names(path, header, wanted)
            else:
                yield f"{path}, row {number}", dict(zip(header, values, strict=False))
    except StoreError:
        raise
    except Exception as error:  # openpyxl passes on what zip files and XML raise
        raise StoreError(f"{path} cannot be read as .xlsx: {reason(error)}.") from None
