"""Files of JSON: which part of one holds the rows.

Owns the shapes in which they lie around: a list of rows, an object that holds one, columns of cells
or rows by their index (as pandas and datasets write them), and a row a line. Does not know what a
row is used for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from index_store import lines
from index_store.errors import reason
from index_store.faults import Fault
from index_store.lines import Row

_DECODER = json.JSONDecoder(parse_int=str)  # of any length: it tells where a value ends


def rows(path: Path, wanted: set[str]) -> Iterator[Row]:
    """Rows of a file; the columns that are `wanted` tell a row from what only holds rows.

    Raises StoreError where it is broken so that nothing can be read behind.
    """
    with lines.opened(path) as file:
        text = file.read()
    start = _past_spaces(text, 0)
    if text.startswith("[", start):
        yield from _array(path, text, start)
        return
    members = _members(text, start)
    if members is None:
        yield from lines.jsonl(path)
        return
    columns = wanted & {name.strip() for name, *_ in members}
    lists = [
        (at, end) for name, at, end, value in members if _are_rows(value) and not columns - {name}
    ]
    if len(lists) == 1:
        at, end = lists[0]
        yield from _array(path, text[:end], at)
        return
    place = f"{path}, row 1"
    match lines.json_row(place, text):
        case _, Mapping() as value:
            for number, row in enumerate(_table(value, wanted), 1):
                yield lines.as_row(f"{path}, row {number}", row)
        case row if row is not None:
            yield row


def _members(text: str, start: int) -> list[tuple[str, int, int, object]] | None:
    """Of the object that a text is: each name, where its value begins and ends, and the value.
    None if it is no object, or not that alone."""
    found: list[tuple[str, int, int, object]] = []
    at = start
    try:
        while text.startswith("," if found else "{", at):
            name, at = _DECODER.raw_decode(text, _past_spaces(text, at + 1))
            at = _past_spaces(text, at)
            if not isinstance(name, str) or not text.startswith(":", at):
                return None
            begin = _past_spaces(text, at + 1)
            value, end = _DECODER.raw_decode(text, begin)
            found.append((name, begin, end, value))
            at = _past_spaces(text, end)
    except (ValueError, RecursionError):
        return None
    return found if text.startswith("}", at) and not text[at + 1 :].strip() else None


def _are_rows(value: object) -> bool:
    """Whether it is a list of rows, of which some may be broken, and none of messages."""
    objects = [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
    return bool(objects) and not any({"role", "from"} & each.keys() for each in objects)


def _table(value: Mapping[str, object], wanted: set[str]) -> list[object]:
    """The rows of an object that no list of them is in: it may be one itself."""
    columns = {name: cells for name, cells in value.items() if name.strip() in wanted}
    if len(columns) > 1 and all(isinstance(cells, dict) for cells in columns.values()):
        by_index = {name: cells for name, cells in value.items() if isinstance(cells, dict)}
        order = dict.fromkeys(index for cells in by_index.values() for index in cells)
        return [{name: cells.get(at) for name, cells in by_index.items()} for at in order]
    lists = {name: cells for name, cells in value.items() if isinstance(cells, list)}
    if len(columns) > 1 and columns.keys() <= lists.keys():
        if len({len(cells) for cells in lists.values()}) == 1:
            return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    elif not columns and any(isinstance(r, dict) and wanted & r.keys() for r in value.values()):
        return list(value.values())
    return [value]


def _array(path: Path, text: str, start: int) -> Iterator[Row]:
    """Rows of the array that begins there, each read alone. Raises StoreError where it is none."""
    number, at = 0, _past_spaces(text, start + 1)
    while not text.startswith("]", at):
        number += 1
        place = f"{path}, row {number}"
        try:
            _, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            why = reason(error) if isinstance(error, ValueError) else "nested too deeply"
            raise Fault(place, "not JSON", f"is not JSON ({why})").error() from None
        if row := lines.json_row(place, text[at:end]):
            yield row
        at = _past_spaces(text, end)
        if text.startswith(",", at):
            at = _past_spaces(text, at + 1)
        elif not text.startswith("]", at):
            raise Fault(place, "not JSON", "has neither a comma nor a bracket behind it").error()
    if text[at + 1 :].strip():
        raise Fault(str(path), "not JSON", f"goes on behind its array of {number} rows").error()


def _past_spaces(text: str, at: int) -> int:
    while text[at : at + 1].isspace():
        at += 1
    return at
