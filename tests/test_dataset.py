"""Reading and cleaning rows, and every sentence for a source that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from index_store import dataset
from index_store.cleaning import clean, normalise, strip_boilerplate
from index_store.dataset import Columns, Dialogue, read_rows
from index_store.errors import StoreError

ROWS = [
    {"Description": "Q. One?", "Patient": "First question", "Doctor": "First reply"},
    {"Description": "Q. Two?", "Patient": "Second\nquestion", "Doctor": 'Said "two", then left'},
]
EXPECTED = [Dialogue(*row.values()) for row in ROWS]


def write_jsonl(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def write_parquet(path: Path, rows: list[Any]) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def write_csv(path: Path, rows: list[Any]) -> str:
    import csv

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
    def endless(name: str) -> Iterator[dataset.Row]:
        while True:
            yield name, ROWS[0]

    monkeypatch.setattr(dataset, "_hub", endless)
    assert sum(1 for _ in read_rows("owner/name")) == 1_000
    assert sum(1 for _ in read_rows("owner/name", limit=1_500)) == 1_500


def test_columns_are_renamed(tmp_path: Path) -> None:
    rows = [{"title": "t", "question": "q", "answer": "a", "date": 3}]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    columns = Columns.parse("Description=title, patient=question,Doctor=answer")
    assert list(read_rows(source, columns)) == [Dialogue("t", "q", "a")]
    message = sentence(source)
    assert "no column Description, Patient, Doctor" in message
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
        ("rows.txt", b"text", "must be .jsonl, .csv or .parquet"),
        ("rows.jsonl", b"", "has no rows"),
        ("rows.jsonl", b"\n\n", "has no rows"),
        ("rows.csv", b"", "has no rows"),
        ("rows.csv", b"Description,Patient,Doctor\n", "has no rows"),
        ("rows.jsonl", b'{"Description": ""\n', "line 1 is not JSON"),
        ("rows.jsonl", b"\n[1]\n", "line 2 is not a JSON object"),
        ("rows.jsonl", b"\xff\xfe{\x00", "line 1 is not UTF-8"),
        ("rows.csv", b"Description,Patient,Doctor\na,b\n", "line 2: the row that ends here has 2"),
        ("rows.csv", b'Description,Patient,Doctor\na,b,"c\n', "line 2 is not CSV"),
        ("rows.csv", b"Description;Patient;Doctor\na;b;c\n", "it has Description;Patient;Doctor"),
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


@pytest.mark.parametrize(
    ("reply", "left"),
    [
        ("Rest. For further information consult a neurologist online -->", "Rest."),
        (
            "Use it daily. For more information consult an acne specialist online --> "
            "https://www.icliniq.com/ask-a-doctor-online/dermatologist/acne",
            "Use it daily.",
        ),
        ("Rest.For further doubts consult a sexologist online -->.", "Rest."),
        ("Rest.\n\nRevert back with the reports to a urologist online.---> https://x.org", "Rest."),
        ("For more information consult a hematologist online.", ""),
        ("Rest and drink. -->", "Rest and drink."),
        (
            "If it stays, consult a dermatologist online -->",
            "If it stays, consult a dermatologist online",
        ),
        ("Hi. For further doubts consult a sexologist online -->", ""),
        (
            "Hi. I have gone through your query with diligence and would like you to know that I "
            "am here to help you. For further information consult a neurologist online -->",
            "",
        ),
        ("Hello. Hope it helps.", ""),
        ("-->", ""),
        ("Hi. Yes.", "Hi. Yes."),
        ("Hello, take ibuprofen.", "Hello, take ibuprofen."),
        ("The count fell from 9 -> 6 in a week.", "The count fell from 9 -> 6 in a week."),
        ("Consult a doctor at once.", "Consult a doctor at once."),
    ],
)
def test_boilerplate_goes_and_advice_stays(reply: str, left: str) -> None:
    assert strip_boilerplate(reply) == left


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a \t b\u00a0c  ", "a b c"),
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
        ("one\n \n\n\ntwo", "one\n\ntwo"),
        ("nul\x00l, bell\x07, \ufeffmark, \ud800half", "null, bell, mark, half"),
        ("?! -- ...", ""),
        ("é 痛", "é 痛"),
    ],
)
def test_text_is_normalised(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_rows_are_kept_or_counted_by_reason() -> None:
    rows = [
        Dialogue("Q. Head?", "My head aches.", "Rest."),
        Dialogue("Q. Again?", " my HEAD\n aches.", "rest."),
        Dialogue("Q. Head?", "My head aches.", "Drink."),
        Dialogue("Q. Only a title?", " ", "Yes."),
        Dialogue("", "Word " * 60, "No."),
        Dialogue("", ".", "An answer to nothing."),
        Dialogue("Q. No answer?", "None?", ""),
        Dialogue("Q. An advertisement?", "One?", "For more queries consult a doctor online -->"),
    ]
    kept, report = clean(iter(rows))
    assert [dialogue.doctor for dialogue in kept] == ["Rest.", "Drink.", "Yes.", "No."]
    assert kept[2].patient == "Q. Only a title?"
    assert kept[3].title.startswith("Word Word") and len(kept[3].title) <= 120
    assert (report.read, report.kept) == (8, 4)
    assert report.dropped == {
        "duplicate": 1,
        "empty or missing question": 1,
        "empty or missing reply": 1,
        "boilerplate only": 1,
    }
    assert str(report).startswith("8 read, 4 kept, dropped: 1 duplicate, ")
