"""Reading rows, and every sentence for a source that cannot be used."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from index_store import hub
from index_store.cleaning import clean
from index_store.columns import Columns
from index_store.dataset import Dialogue, read_rows
from index_store.errors import StoreError
from index_store.faults import Faults
from index_store.lines import Row

ROWS = [
    {"Description": "Q. One?", "Patient": "First question", "Doctor": "First reply"},
    {"Description": "Q. Two?", "Patient": "Second\nquestion", "Doctor": 'Said "two", then left'},
]
EXPECTED = [Dialogue(*row.values()) for row in ROWS]
# The same at any time: its bytes are in the name of a test.
HALF_A_GZIP = gzip.compress(b"Patient,Doctor\na,b\n" * 99, mtime=0)[:-9]


def write_jsonl(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def write_parquet(path: Path, rows: list[Any]) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def write_csv(path: Path, rows: list[Any]) -> str:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def sentence(source: str, **options: Any) -> str:
    """The error that reading `source` to its end raises."""
    with pytest.raises(StoreError) as caught:
        list(read_rows(source, **options))
    return str(caught.value)


WRITERS = {"jsonl": write_jsonl, "csv": write_csv, "parquet": write_parquet}


@pytest.mark.parametrize("ending", WRITERS)
def test_files_of_every_kind_give_the_same_rows(tmp_path: Path, ending: str) -> None:
    source = WRITERS[ending](tmp_path / f"rows.{ending}", ROWS)
    assert list(read_rows(source)) == EXPECTED
    assert list(read_rows(source, limit=1)) == EXPECTED[:1]


def test_a_directory_in_the_layout_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", ROWS)
    assert list(read_rows(str(tmp_path))) == EXPECTED


def test_the_sample_is_read_whole_and_is_clean() -> None:
    kept, report = clean(read_rows("sample"))
    assert report.read == report.kept == len(kept) > 50


def test_the_hub_gives_a_thousand_rows_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def endless(name: str, part: hub.Part) -> Iterator[Row]:
        while True:
            yield name, ROWS[0]

    monkeypatch.setattr(hub, "published", endless)
    assert sum(1 for _ in read_rows("owner/name")) == 1_000
    assert sum(1 for _ in read_rows("owner/name", limit=1_500)) == 1_500


def test_columns_are_renamed(tmp_path: Path) -> None:
    rows = [{"title": "t", "question": "q", "answer": "a", "date": 3}]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    columns = Columns.parse("Description=title, patient=question,Doctor=answer")
    assert list(read_rows(source, columns)) == [Dialogue("t", "q", "a")]
    message = sentence(source)
    assert "no column Patient, Doctor" in message
    assert "title, question, answer, date" in message and "--columns" in message


@pytest.mark.parametrize("text", ["Question=q", "Patient", "Patient=", ""])
def test_columns_that_cannot_be_parsed(text: str) -> None:
    with pytest.raises(StoreError, match="--columns does not take"):
        Columns.parse(text)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("absent.jsonl", "There is no file absent.jsonl"),
        ("owner/absent.csv", "There is no file owner/absent.csv"),
        ("nonsense", "neither a file nor a data set"),
        ("/absent/rows.txt", "neither a file nor a data set"),
        ("", "neither a file nor a data set"),
        ("~nobody-at-all/rows.csv", "is in nobody's home"),
    ],
)
def test_a_source_that_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if not source:  # Path("") is the working directory
        assert "cannot be read" in sentence(source)
    else:
        assert says in sentence(source)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("rows.txt", b"text", "must be .jsonl, .ndjson, .json, .csv, .tsv"),
        ("rows.jsonl", b"", "has no rows"),
        ("rows.jsonl", b"\n\n", "has no rows"),
        ("rows.csv", b"", "has no rows"),
        ("rows.csv", b"Description,Patient,Doctor\n", "has no rows"),
        ("rows.jsonl", b'{"Description": ""\n', "line 1 is not JSON"),
        ("rows.jsonl", b"\n[1]\n", "line 2 is not a JSON object"),
        ("rows.jsonl", b"{\xff\xfe}", "line 1 is not UTF-8"),
        ("rows.csv", b"Description,Patient,Doctor\na,b\n", "line 2 has 2 fields, the header has 3"),
        ("rows.csv", b'Description,Patient,Doctor\na,b,"c\n', "line 2 is not CSV"),
        ("rows.csv", b"a;b;c\na;b;c\n", "it has a, b, c"),
        ("rows.csv", b"Patient,Doctor,Doctor\na,b,c\n", "has two columns Doctor"),
        ("rows.tsv", b"Patient\tDoctor\tDoctor\na\tb\tc\n", "has two columns Doctor"),
        ("rows.jsonl", b'{"Patient": "a", "Doctor": "b", "Doctor": "c"}\n', "stands there twice"),
        ("rows.jsonl", b'{"Patient": "a", "Doctor": "b", " Doctor ": "c"}', "has a key twice"),
        ("rows.json", b'[{"Patient": "a", "Doctor": "b", "Doctor ": "c"}]', "has a key twice"),
        ("rows.csv", "¿Qué?,Doctor\na,b\n".encode("cp1252"), "line 1 is not UTF-8 (if it is of an"),
        ("rows.csv", "Patient,Doctor\n¿Qué?,b\n".encode("cp1252"), "iconv -f WINDOWS-1252"),
        ("rows.jsonl", b"[" * 100_000, "line 1 is not JSON (nested too deeply)"),
        ("rows.jsonl", b'{"Patient": ' + b"9" * 6_000 + b"}", "line 1 is not JSON"),
        ("rows.csv.gz", b"no gzip", "cannot be read"),
        ("rows.csv.gz", HALF_A_GZIP, "cannot be read"),
        ("rows.parquet.gz", b"", "because of its ending"),
        ("rows.xlsx", b"no workbook", "cannot be read as .xlsx (File is not a zip file)"),
        ("rows.parquet", b"PAR1 but no more", "cannot be read as Parquet"),
        (
            "rows.jsonl",
            b'{"Description": "a", "Patient": "b", "Doctor": 3}',
            "line 1: Doctor is not text but int",
        ),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    message = sentence(str(path))
    assert says in message and str(path) in message


def test_a_broken_line_after_good_ones_gives_its_number(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, ROWS)
    with path.open("a") as file:
        file.write('{"Description": ')
    assert f"{path}, line 3 is not JSON" in sentence(str(path))


def test_limit_must_count_something(tmp_path: Path) -> None:
    assert "--limit" in sentence(write_jsonl(tmp_path / "rows.jsonl", ROWS), limit=0)


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(self: object, *_: object, **__: object) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    message = sentence("owner/name")
    assert "owner/name cannot be reached" in message and "Name or service not known" in message


def test_an_id_depends_on_every_text_and_on_where_it_stands() -> None:
    ids = {
        Dialogue(*texts).id for texts in [("a", "b", "c"), ("a", "c", "b"), ("ab", "", "c"), "xyz"]
    }
    assert len(ids) == 4
    assert Dialogue("a", "b", "c").id == Dialogue("a", "b", "c").id
    assert all(len(id_) == 16 for id_ in ids)


PLAIN = [Dialogue("", row["Patient"], row["Doctor"]) for row in ROWS]
UNTITLED = [{"Patient": row["Patient"], "Doctor": row["Doctor"]} for row in ROWS]


def csv_text(separator: str, line_end: str = "\n") -> str:
    """ROWS as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ROWS[0], delimiter=separator, lineterminator=line_end)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue()


AS_IT_LIES_AROUND = {
    "rows.csv": csv_text(";").encode(),
    "Excel.csv": ("sep=;\r\n" + csv_text(";", "\r\n")).encode("utf-8-sig"),
    "tabs.csv": csv_text("\t").encode(),
    "bars.csv": csv_text("|").encode(),
    "sep.csv": ("sep=,\n" + csv_text(",")).encode(),
    "Mac.csv": csv_text(",").replace("\n", "\r").encode(),
    "Unicode.csv": csv_text("\t").encode("utf-16"),
    "rows.tsv": csv_text("\t").encode(),
    "rows.csv.gz": gzip.compress(csv_text(",").encode()),
    "ROWS.CSV.GZ": gzip.compress(csv_text(",").encode()),
    "packed.csv": gzip.compress(csv_text(",").encode()),
    "spaces.csv": csv_text(",")
    .replace("Description,Patient,Doctor", " Description, Patient ,Doctor ")
    .encode(),
    "spaced.csv": csv_text(",").replace('","', '", "').encode(),
    "rows.ndjson": "\n".join(map(json.dumps, ROWS)).encode(),
    "Mac.jsonl": "\r".join(map(json.dumps, ROWS)).encode(),
    "rows.jsonl.gz": gzip.compress("\n".join(map(json.dumps, ROWS)).encode()),
    "array.json": json.dumps(ROWS, indent=1).encode(),
    "array.json.gz": gzip.compress(json.dumps(ROWS).encode()),
    "lines.json": "\n".join(map(json.dumps, ROWS)).encode(),
    "object.json": json.dumps({"version": 1, "tags": ["a"], "data": ROWS}).encode(),
    "pandas.json": json.dumps(
        {name: {str(at): row[name] for at, row in enumerate(ROWS)} for name in ROWS[0]}
    ).encode(),
    "index.json": json.dumps({f"id{at}": row for at, row in enumerate(ROWS)}).encode(),
    "lists.json": json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]}).encode(),
}


@pytest.mark.parametrize("name", AS_IT_LIES_AROUND)
def test_files_as_they_lie_around_give_the_same_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(AS_IT_LIES_AROUND[name])
    read = list(read_rows(str(path)))
    assert [Dialogue(d.title, d.patient.replace("\r", "\n"), d.doctor) for d in read] == EXPECTED


def test_a_workbook(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [list(ROWS[0]), *(list(row.values()) for row in ROWS), [None, "Only a question", 5]]:
        book.active.append(row)
    book.save(tmp_path / "rows.xlsx")
    read = list(read_rows(str(tmp_path / "rows.xlsx")))
    assert read == [*EXPECTED, Dialogue("", "Only a question", "5")]


@pytest.mark.parametrize(
    ("first", "says"),
    [
        ([["About these rows"], ["They are ours"]], "it has the columns About these rows: name"),
        ([["About these rows"]], "the sheets Sheet, Rows, of which the first is read"),
        ([], "it has the columns none"),
    ],
)
def test_a_workbook_whose_rows_are_in_another_sheet(
    tmp_path: Path, first: list[list[str]], says: str
) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in first:
        book.active.append(row)
    sheet = book.create_sheet("Rows")
    for row in [list(ROWS[0]), *(list(row.values()) for row in ROWS)]:
        sheet.append(row)
    book.save(tmp_path / "rows.xlsx")
    assert says in sentence(str(tmp_path / "rows.xlsx"))
    columns = Columns.parse("Patient=About these rows,Doctor=About these rows")
    if len(first) > 1:
        assert len(list(read_rows(str(tmp_path / "rows.xlsx"), columns))) == 1


def test_a_workbook_of_charts(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    from openpyxl.chart import BarChart

    book = openpyxl.Workbook()
    book.create_chartsheet().add_chart(BarChart())
    book.save(tmp_path / "both.xlsx")
    with ZipFile(tmp_path / "both.xlsx") as old, ZipFile(tmp_path / "rows.xlsx", "w") as new:
        for name in old.namelist():
            told = old.read(name)
            if name == "xl/workbook.xml":
                told = re.sub(rb'<sheet [^>]*name="Sheet"[^>]*/>', b"", told)
            new.writestr(name, told)
    assert "has no sheet of cells" in sentence(str(tmp_path / "rows.xlsx"))


def test_a_parquet_file_is_read_where_it_is_wanted(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, long_after = tmp_path / "rows.parquet", pa.array([2**60] * 3, pa.timestamp("us"))
    no_text = pa.Array.from_buffers(
        pa.string(),
        3,
        [None, pa.py_buffer(struct.pack("4i", 0, 1, 3, 4)), pa.py_buffer(b"aq\xffb")],
    )
    fine = pa.array(["One?", "Two?", "Three?"])
    pq.write_table(
        pa.table({"Patient": fine, "Doctor": fine, "at": long_after, "x": no_text}), path
    )
    assert [row.doctor for row in read_rows(str(path))] == ["One?", "Two?", "Three?"]
    assert "it has Patient, Doctor, at, x" in sentence(str(path), columns=Columns.parse("Doctor=d"))
    pq.write_table(pa.table({"Patient": fine, "Doctor": no_text}), path)
    read = list(read_rows(str(path), faults=(faults := Faults())))
    assert [row.doctor for row in read] == ["a", "b"] and faults.counts == {"not UTF-8": 1}
    assert faults.told == [f"{path}, row 2 is not UTF-8"]
    pq.write_table(pa.table({"Patient": fine, "Doctor": fine, " Doctor ": fine}), path)
    assert "has two columns Doctor" in sentence(str(path))
    pq.write_table(pa.table({"Patient": fine, "Doctor": long_after}), path)
    assert "row 1 cannot be read (date value out of range)" in sentence(str(path))


@pytest.mark.parametrize("size", ["A1", "A1:C2", "A1:B4"])
def test_a_workbook_that_says_it_is_smaller(tmp_path: Path, size: str) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [list(ROWS[0]), *(list(row.values()) for row in ROWS)]:
        book.active.append(row)
    book.save(whole := tmp_path / "whole.xlsx")
    with ZipFile(whole) as old, ZipFile(tmp_path / "rows.xlsx", "w") as new:
        for name in old.namelist():
            said = old.read(name).replace(
                b'dimension ref="A1:C3"', f'dimension ref="{size}"'.encode()
            )
            new.writestr(name, said)
    assert list(read_rows(str(tmp_path / "rows.xlsx"))) == EXPECTED


def test_fields_longer_than_the_csv_module_takes(tmp_path: Path) -> None:
    long = "word " * 40_000
    path = tmp_path / "rows.csv"
    path.write_text(f"Patient,Doctor\nOne?,{long}\nTwo?,Short\n")
    assert [row.doctor for row in read_rows(str(path))] == [long, "Short"]


def test_there_need_be_no_title(tmp_path: Path) -> None:
    rows = [{"input": row["Patient"], "output": row["Doctor"]} for row in ROWS]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    assert list(read_rows(source, Columns.parse("Patient=input,Doctor=output"))) == PLAIN
    kept, _ = clean(read_rows(source, Columns.parse("Patient=input,Doctor=output")))
    assert [row.title for row in kept] == ["First question", "Second question"]
    assert list(read_rows(write_jsonl(tmp_path / "plain.jsonl", UNTITLED))) == PLAIN


def test_there_is_no_title_where_none_is_named(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [{"Description": 42, "q": "q", "a": "a"}])
    assert list(read_rows(source, Columns.parse("Patient=q,Doctor=a"))) == [Dialogue("", "q", "a")]
    source = write_jsonl(tmp_path / "plain.jsonl", ROWS)
    assert list(read_rows(source, Columns.parse("Doctor=Doctor"))) == PLAIN


def test_a_title_that_is_named_must_be_there(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", UNTITLED)
    assert "no column title" in sentence(source, columns=Columns.parse("Description=title"))


def test_columns_are_judged_by_more_than_the_first_row(tmp_path: Path) -> None:
    rows = [{"Patient": "A question without a reply"}, *UNTITLED]
    read = list(read_rows(write_jsonl(tmp_path / "rows.jsonl", rows)))
    assert read == [Dialogue("", "A question without a reply", ""), *PLAIN]


def test_a_column_with_spaces_or_dots_in_its_name_can_be_named(tmp_path: Path) -> None:
    rows = [{" my.question ": "q", "an answer": "a"}]
    columns = Columns.parse("Patient=my.question,Doctor= an answer")
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    assert list(read_rows(source, columns)) == [Dialogue("", "q", "a")]


TALK = [
    {"role": "system", "content": "You are a doctor."},
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "a"},
    {"role": "user", "content": "thanks"},
]
SHARED = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
GREETED = [{"role": "assistant", "content": "How can I help?"}, *TALK]
CALLED = [TALK[1], {"role": "assistant", "content": None}, *TALK[2:]]
PARTS = [
    {"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]} for turn in TALK
]


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"data": {"q": "q", "a": ["no", "a"]}}, "Patient=data.q,Doctor=data.a.1"),
        ({"messages": TALK}, None),
        ({"messages": TALK}, "Patient=messages,Doctor=messages"),
        ({"messages": TALK}, "Patient=messages.user,Doctor=messages.assistant"),
        ({"chat": {"turns": TALK}}, "Patient=chat.turns.user,Doctor=chat.turns.2.content"),
        ({"messages": GREETED}, None),
        ({"messages": GREETED}, "Patient=messages.user,Doctor=messages.assistant"),
        ({"messages": CALLED}, None),
        ({"messages": PARTS}, None),
        ({"messages": json.dumps(GREETED)}, None),
        ({"messages": json.dumps(PARTS)}, "Patient=messages,Doctor=messages"),
        ({"chat": json.dumps(TALK)}, "Patient=chat.user,Doctor=chat.assistant"),
        ({"conversations": SHARED}, None),
        *(
            ({"conversations": [SHARED[0], {"from": role, "value": "a"}]}, None)
            for role in ("AI", "bot", "Model", "chatbot")
        ),
        ({"conversations": SHARED}, "Patient=conversations.human,Doctor=conversations.gpt"),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_columns_inside_of_others(
    tmp_path: Path, ending: str, row: dict[str, Any], columns: str | None
) -> None:
    source = WRITERS[ending](tmp_path / f"rows.{ending}", [row])
    names = Columns.parse(columns) if columns else None
    assert list(read_rows(source, names)) == [Dialogue("", "q", "a")]


def test_messages_in_a_csv(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "rows.csv", [{"messages": json.dumps(GREETED), "id": "1"}])
    assert list(read_rows(source)) == [Dialogue("", "q", "a")]


@pytest.mark.parametrize(
    ("row", "columns", "says"),
    [
        ({"q": "q", "answer": {"text": "a"}}, "answer.txt", "no column answer.txt; it has q, answ"),
        ({"q": "q", "answer": {"text": "a"}}, "answer.txt", "answer.text: name the ones to use"),
        ({"q": "q", "data": {"a": {"b": "a"}}}, "data.a.c", "it has q, data, data.a.b"),
        ({"q": "q", "answers": ["a"]}, "answers.text", "it has q, answers, answers.0"),
        ({"q": "q", "turns": TALK}, "turns.doctor", "turns.system, turns.user, turns.assistant"),
        ({"messages": str(TALK)}, None, "messages is text, but no list of messages in JSON"),
        ({"messages": [{"from": "Anna", "value": "q"}]}, None, "Patient is messages by anna alone"),
    ],
)
def test_what_does_not_lead_to_a_text_is_refused(
    tmp_path: Path, row: dict[str, Any], columns: str | None, says: str
) -> None:
    names = Columns.parse(f"Patient=q,Doctor={columns}") if columns else None
    assert says in sentence(write_jsonl(tmp_path / "rows.jsonl", [row]), columns=names)


GOOD = [f"Question {number}?,Reply {number}." for number in range(40)]
BAD_LINES = {
    "a stray quotation mark": ('Why?,"Rest" and drink.', "not CSV"),
    "one that is never closed": ('Why?,"Rest and drink.', "not CSV"),
    "too many fields": ("Why?,Rest, and drink.", "other fields than the header"),
    "too few": ("Why?", "other fields than the header"),
}


@pytest.mark.parametrize("name", BAD_LINES)
@pytest.mark.parametrize("place", [0, 20, 39])
def test_a_bad_line_costs_its_own_row(tmp_path: Path, name: str, place: int) -> None:
    line, reason = BAD_LINES[name]
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(["Patient,Doctor", *GOOD[:place], line, *GOOD[place:]]) + "\n")
    kept, report = clean(read_rows(str(path), faults=(faults := Faults())), faults)
    assert [row.patient for row in kept] == [f"Question {number}?" for number in range(40)]
    assert (report.read, report.dropped) == (41, {reason: 1})
    (told,) = faults.told
    assert told.startswith(f"{path}, line {place + 2} ")
    assert f"line {place + 2} " in sentence(str(path))


def test_quotation_marks_behind_spaces(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(
        '"Patient", "Doctor"\n"a, b", "c, \nd"\nWhy?, "Rest" and drink.\nWho?, "Rest and drink.\n'
        '"e", "f ""g"", h"\n'
    )
    assert [(row.patient, row.doctor) for row in read_rows(str(path))] == [
        ("a, b", "c, \nd"),
        ("Why?", ' "Rest" and drink.'),
        ("Who?", ' "Rest and drink.'),
        ("e", 'f "g", h'),
    ]


def test_a_quotation_mark_over_several_lines_costs_its_own_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    stray = 'Why?,"He said "rest" and\nnothing more"'
    path.write_text("\n".join(["Patient,Doctor", *GOOD[:5], stray, *GOOD[5:]]) + "\n")
    read = list(read_rows(str(path), faults=(faults := Faults())))
    assert len(read) == 40 and faults.counts == {"not CSV": 2}


BAD_JSON = {
    "{": "not JSON",
    "[1]": "not a JSON object",
    '{"Patient": "a", "Doctor": 3}': "not text",
    '{"Patient": "a", "Patient": "b", "Doctor": "c"}': "not JSON",
}


@pytest.mark.parametrize("line", BAD_JSON)
def test_a_bad_line_of_json_is_skipped(tmp_path: Path, line: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([json.dumps(UNTITLED[0]), line, json.dumps(UNTITLED[1])]))
    assert list(read_rows(str(path), faults=(faults := Faults()))) == PLAIN
    assert faults.counts == {BAD_JSON[line]: 1}
    assert faults.told[0].startswith(f"{path}, line 2")


BAD_ELEMENTS = {
    "[1]": "not a JSON object",
    "null": "not a JSON object",
    '{"Patient": "a", "Doctor": 3}': "not text",
    '{"Patient": "a", "Patient": "b", "Doctor": "c"}': "not JSON",
    '{"Patient": "a", "Doctor": "b", "c": {"d": 1, "d": 2}}': "not JSON",
    f'{{"Patient": {"9" * 6_000}}}': "not JSON",
    '{"Patient": "caf\udce9", "Doctor": "a"}': "not UTF-8",
}


@pytest.mark.parametrize("bad", BAD_ELEMENTS)
@pytest.mark.parametrize("line_end", ["", "\n"])
@pytest.mark.parametrize(("before", "behind"), [("", ""), ('{"n": 3, "data":', ', "s": "]"}')])
def test_a_bad_row_of_a_json_array_costs_itself(
    tmp_path: Path, bad: str, line_end: str, before: str, behind: str
) -> None:
    path = tmp_path / "rows.json"
    rows = f",{line_end}".join([json.dumps(UNTITLED[0]), bad, json.dumps(UNTITLED[1])])
    text = f"{before} [{line_end}{rows}{line_end} ]{behind}\n"
    path.write_text(text, errors="surrogateescape")
    assert list(read_rows(str(path), faults=(faults := Faults()))) == PLAIN
    assert faults.counts == {BAD_ELEMENTS[bad]: 1}
    assert faults.told[0].startswith(f"{path}, row 2")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('[{"Patient": "a", "Doctor": "b"}, {"Patient": ', "row 2 is not JSON (Expecting value"),
        ('[{"Patient": "a", "Doctor": "b"}, nothing]', "row 2 is not JSON (Expecting value"),
        ('[{"Patient": "a", "Doctor": "b"} {}]', "row 1 has neither a comma nor a bracket"),
        ('[{"Patient": "a", "Doctor": "b"}][]', "goes on behind its array of 1 rows"),
        ("[" * 100_000, "row 1 is not JSON (nested too deeply)"),
        ("[]", "has no rows"),
    ],
)
def test_what_is_no_json_array_says_where(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(content)
    assert says in sentence(str(path), faults=Faults())


def test_bytes_that_are_not_utf8_cost_their_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"Patient,Doctor\nOne?,Rest.\nTwo?,caf\xe9\nThree?,Drink.\n")
    read = list(read_rows(str(path), faults=(faults := Faults())))
    assert [row.patient for row in read] == ["One?", "Three?"]
    assert faults.counts == {"not UTF-8": 1}


@pytest.mark.parametrize(("good", "bad"), [(100, 22), (3, 4), (300, 40)])
def test_too_many_bad_rows_are_refused(tmp_path: Path, good: int, bad: int) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join([json.dumps(UNTITLED[0]) + "\n"] * good + ["{\n"] * bad))
    message = sentence(str(path), faults=Faults())
    assert "too many to skip" in message and f"line {good + 1} is not JSON" in message


def test_split_and_config_are_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def load(*arguments: Any, **options: Any) -> list[Any]:
        asked.append((arguments, options["split"]))
        return ROWS

    monkeypatch.setattr(datasets, "load_dataset", load)
    part = hub.Part("patients", "test")
    assert list(read_rows(str(tmp_path), part=part)) == EXPECTED
    assert list(read_rows(str(tmp_path))) == EXPECTED
    assert asked == [((str(tmp_path), "patients"), "test"), ((str(tmp_path), None), "train")]
    source = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    assert "is no data set of the Hub" in sentence(source, part=part)


def test_a_split_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", ROWS)
    assert list(read_rows(str(tmp_path), part=hub.Part(split="test"))) == EXPECTED
    assert "--split" in sentence(str(tmp_path), part=hub.Part(split="nowhere"))
