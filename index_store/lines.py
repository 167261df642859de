"""Files of lines: JSON lines and CSV, compressed or not, as rows.

Owns encodings, line ends, what separates fields, and how reading goes on behind a line that is
broken. Does not know which columns are wanted, beyond that no two may share a name.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from index_store.errors import StoreError, reason
from index_store.faults import Fault

# Where it stands, for error messages; its columns, or why it cannot be used.
Row = tuple[str, Mapping[str, object] | Fault]

SEPARATORS = (",", ";", "\t", "|")
GZIP = b"\x1f\x8b"
LONGEST = 2**31 - 1  # characters of a field; there are answers beyond the csv module's 131,072
MOST_LINES = 10_000  # of one row: beyond it, its quotation mark was never closed


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """A file's text, its line ends as they are; what is not UTF-8 as surrogates. A byte order mark
    may say UTF-16, and gzip's mark what the name does not. Raises StoreError if it cannot be read,
    also while it is."""
    try:
        with path.open("rb") as plain:
            packed = path.suffix.lower() == ".gz" or plain.peek(2).startswith(GZIP)
        with gzip.open(path) if packed else path.open("rb") as file:
            start = file.peek(2)[:2]
            encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
            yield io.TextIOWrapper(file, encoding, errors="surrogateescape", newline="")
    except UnicodeDecodeError:
        raise StoreError(f"{path} is not text in UTF-16: save it as UTF-8.") from None
    except (OSError, EOFError, zlib.error) as error:
        told = error.strerror if isinstance(error, OSError) and error.strerror else reason(error)
        raise StoreError(f"{path} cannot be read: {told}.") from None


def json_value(text: str) -> Any:
    """A JSON value. Raises ValueError, also for what is nested too deeply or says a key twice."""
    try:
        return json.loads(text, object_pairs_hook=_once, parse_int=_whole)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def json_line(line: bytes) -> Any:
    """The JSON value of a line. Raises ValueError for what is none, and says why."""
    if line.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("begins with a byte order mark: write plain UTF-8, without one")
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    try:
        value = json_value(text)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("holds half a character (a lone surrogate)") from None
    except ValueError as error:
        raise ValueError(f"is not JSON ({reason(error)})") from None
    return value


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The JSON value of each line of a small file, with the line's number; empty lines are passed
    over. Raises StoreError for a file that cannot be read, or a line that is not JSON."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield number, json_line(line)
        except ValueError as error:
            raise StoreError(f"Line {number} of {path} {error}.") from None


def _whole(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:
        raise ValueError(f"a number of {len(digits):,} characters") from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands there twice")
    return found


def json_row(place: str, text: str) -> Row | None:
    """The row of a line; None if the line is empty."""
    if not text.strip():
        return None
    if not_utf8 := _not_utf8(place, text):
        return place, not_utf8
    try:
        row = json_value(text)
    except ValueError as error:
        return place, Fault(place, "not JSON", f"is not JSON ({reason(error)})")
    return as_row(place, row)


def as_row(place: str, row: object) -> Row:
    """A JSON value as a row."""
    if not isinstance(row, dict):
        told = "is not a JSON object with the columns as keys"
        return place, Fault(place, "not a JSON object", told)
    if len({key.strip() for key in row}) < len(row):
        told = "has a key twice, once with spaces around it"
        return place, Fault(place, "not a JSON object", told)
    return place, row


def jsonl(path: Path) -> Iterator[Row]:
    """Rows of a file of JSON lines."""
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            if row := json_row(f"{path}, line {number}", line):
                yield row


def separated(path: Path, wanted: set[str], separator: str | None = None) -> Iterator[Row]:
    """Rows of a CSV file. What separates its fields is told by a line `sep=;`, or by the header.

    Raises StoreError if two of the `wanted` columns have the same name.
    """
    csv.field_size_limit(LONGEST)
    with opened(path) as file:
        lines = enumerate(file, 1)
        header: list[str] = []
        for number, line in lines:
            if fault := _not_utf8(f"{path}, line {number}", line):
                raise fault.error()
            if line.lower().startswith("sep=") and len(line.strip("\r\n")) == 5:
                separator = line[4]
            elif line.strip():
                header, separator = _header(line, separator)
                break
        check_names(path, header, wanted)
        for number, fields in _records(lines, separator or ",", path):
            place = f"{path}, line {number}"
            if isinstance(fields, Fault):
                yield place, fields
            elif len(fields) != len(header):
                told = f"has {len(fields)} fields, the header has {len(header)}"
                yield place, Fault(place, "other fields than the header", told)
            else:
                not_utf8 = _not_utf8(place, "".join(fields))
                yield place, not_utf8 or dict(zip(header, fields, strict=True))


def check_names(path: Path, header: list[str], wanted: set[str]) -> None:
    """Raise StoreError if two of the `wanted` columns have the same name."""
    for name in sorted(wanted):
        if header.count(name) > 1:
            raise StoreError(f"{path} has two columns {name}: rename one of them.")


def _header(line: str, separator: str | None) -> tuple[list[str], str]:
    """The names of the columns, and what separates them: what makes the most of them."""

    def split(by: str) -> list[str]:
        return next(csv.reader([line], delimiter=by, skipinitialspace=True))

    separator = separator or max(SEPARATORS, key=lambda each: len(split(each)))
    return [name.strip() for name in split(separator)], separator


def _records(
    lines: Iterator[tuple[int, str]], separator: str, path: Path
) -> Iterator[tuple[int, list[str] | Fault]]:
    """The rows, each with the line where it begins. After one that is no CSV, reading goes on in
    the line after that one's first: a stray quotation mark costs its own row."""
    back: deque[tuple[int, str]] = deque()
    taken: list[tuple[int, str]] = []

    def feed() -> Iterator[str]:
        while len(taken) < MOST_LINES and (line := back.popleft() if back else next(lines, None)):
            taken.append(line)
            yield line[1]

    def record(spaced: bool) -> list[str] | None:
        reader = csv.reader(feed(), delimiter=separator, strict=True, skipinitialspace=spaced)
        return next(reader, None)

    broken = False
    while True:
        taken.clear()
        try:
            try:  # quotation marks behind a separator and a space are meant as such, if they fit
                fields = record(spaced=True)
            except csv.Error:
                back.extendleft(reversed(taken))
                taken.clear()
                fields = record(spaced=False)
        except csv.Error as error:
            number, _ = taken[0]
            place = f"{path}, line {number}"
            yield number, Fault(place, "not CSV", f"is not CSV ({reason(error)})")
            back.extendleft(reversed(taken[1:]))
            broken = True
            continue
        if fields is None:
            return
        number, text = taken[0]
        if broken and len(taken) == 1 and text.count('"') % 2:  # the rest of that row
            yield number, Fault(f"{path}, line {number}", "not CSV", "is the rest of a row before")
        elif fields:
            broken = False
            yield number, fields


def _not_utf8(place: str, text: str) -> Fault | None:
    try:
        text.encode()
    except UnicodeEncodeError:
        told = "is not UTF-8 (if it is of an older Windows: `iconv -f WINDOWS-1252 -t UTF-8`)"
        return Fault(place, "not UTF-8", told)
    return None
