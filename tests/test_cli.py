"""The console script as people and scripts call it: its output, its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from terminal import Medraft, refused

ROWS = [
    {
        "Description": "Q. What helps against migraine?",
        "Patient": "My head throbs twice a month.",
        "Doctor": "This sounds like migraine. Rest in a dark room and take ibuprofen early.",
    },
    {
        "Description": "Q. Why do my knees creak?",
        "Patient": "They grind on the stairs.",
        "Doctor": "That points to wear of the joint. Strengthen the muscles of the thighs.",
    },
    {"Description": "Q. And this?", "Patient": "It hurts.", "Doctor": ""},
]


def medraft(
    *arguments: str, stdin: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from agent.cli import main; main()", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env=os.environ | (env or {}),
        timeout=240,
    )


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['medraft', '--help']\n"
        "from agent.cli import app\n"
        "try: app()\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'transformers', 'llama_index', 'faiss') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip().endswith("[]"), done.stdout + done.stderr


@pytest.mark.usefixtures("models_home")  # the embedding model, in its own process
def test_build_info_search(medraft_here: Medraft, rows: Path, tmp_path: Path) -> None:
    directory = str(tmp_path / "index")
    built = medraft("index", "build", "--source", str(rows), "--dir", directory)
    assert built.returncode == 0, built.stderr
    assert "3 read, 2 kept" in built.stdout and "2 embedded" in built.stdout
    again = medraft_here("index", "build", "--source", str(rows), "--dir", directory)
    assert "0 embedded, 2 as they were" in again.stdout

    info = json.loads(medraft_here("index", "info", "--dir", directory, "--json").stdout)
    assert info["rows"] == 2 and info["dimension"] == 384

    found = medraft_here("index", "search", "my knee", "-k", "1", "--dir", directory, "--json")
    (hit,) = json.loads(found.stdout)
    assert hit["rank"] == 1 and "thighs" in hit["doctor"]
    assert set(hit) >= {"id", "rank", "score", "patient", "doctor"}


# What takes longer to import than a search or a decision takes; the first is PyTorch's compiler.
HEAVY = ("torch._dynamo", "transformers", "sentence_transformers", "sklearn", "llama_index.core")


def lines(*arguments: str, stdin: str) -> list[str]:
    """What a command prints, and in the last line which of HEAVY it has imported."""
    code = (
        "import sys; sys.argv = ['medraft', *sys.argv[1:]]\n"
        "from agent.cli import app\n"
        "try: app()\nexcept SystemExit: pass\n"
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    return done.stdout.splitlines()


def test_a_search_loads_nothing_heavy_and_reads_many_questions(sample_index: Path) -> None:
    knees, heartburn, loaded = lines(
        *("index", "search", "-", "-k", "1", "--json", "--dir", str(sample_index)),
        stdin="\ufeffmy knees creak\r\n\nheartburn at night",
    )
    assert "thighs" in json.loads(knees)[0]["doctor"]
    assert "Reflux" in json.loads(heartburn)[0]["doctor"]
    assert loaded == "[]"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["route", "triage"])
def test_a_decision_loads_nothing_heavy(command: str) -> None:
    asked = {"text": "My knee hurts.", "messages": [{"role": "user", "content": "My knee hurts."}]}
    _, loaded = lines(command, stdin=json.dumps(asked))
    assert loaded == "[]"


@pytest.mark.usefixtures("models_home")  # the embedding model, in its own process
def test_a_build_tells_what_it_skipped_and_changed(
    medraft_here: Medraft, rows: Path, tmp_path: Path
) -> None:
    with rows.open("a") as file:
        file.write('{"Patient": "And <b>this</b>?", "Doctor": "Rest."}\n{broken\n')
    arguments = ("index", "build", "--source", str(rows), "--dir", str(tmp_path / "index"))
    refused(medraft_here(*arguments, "--strict"), "line 5")
    built = medraft_here(*arguments)
    assert built.returncode == 0, built.stderr
    assert f"skipped: {rows}, line 5 is not JSON" in built.stderr
    assert "5 read, 3 kept" in built.stdout
    assert "1 empty or missing reply, 1 not JSON, changed: 1 HTML made text" in built.stdout


def test_ask_prints_the_documented_object(sample_index: Path, models_home: Path) -> None:
    done = medraft(
        *("ask", "What helps against my migraine?", "--llm", "base"),
        *("--retrieval", "always", "--json"),
        env={"MEDRAFT_INDEX_DIR": str(sample_index), "MEDRAFT_HOME": str(models_home)},
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["behaviour"] == "RAG" and told["route"]["retrieve"] is True
    assert told["emergency"] is False
    assert "migraine" in told["sources"][0]["doctor"]
    assert told["timing"]["tokens"] > 0 and told["timing"]["first_token_ms"] > 0
    assert told["answer"].strip() and "<|" not in told["answer"]


def test_fine_tuned_without_an_adapter_says_how_to_get_one(
    medraft_here: Medraft, sample_index: Path, models_home: Path
) -> None:
    done = medraft_here(
        *("ask", "What helps against my migraine?", "--llm", "fine-tuned"),
        env={
            "MEDRAFT_INDEX_DIR": str(sample_index),
            "MEDRAFT_HOME": str(models_home),
            "MEDRAFT_ADAPTER": "none",
        },
    )
    refused(done, "MEDRAFT_ADAPTER")


def test_route_answers_in_order(models_home: Path) -> None:
    lines = [
        {"messages": [{"role": "user", "content": "My head hurts since Monday."}]},
        {"messages": [{"role": "user", "content": "thank you so much"}]},
    ]
    done = medraft("route", stdin="".join(json.dumps(line) + "\n" for line in lines))
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["retrieve"], second["retrieve"]) == (True, False)
    assert first["score"] > second["score"] and first["reason"]


@pytest.mark.slow
def test_triage_answers_in_order() -> None:
    lines = [{"text": "no chest pain, just a cough"}, {"text": "i cant breathe"}]
    done = medraft("triage", stdin="".join(json.dumps(line) + "\n" for line in lines))
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"emergency": False, "degree": "none", "kind": None},
        {"emergency": True, "degree": "now", "kind": "breathing"},
    ]


@pytest.mark.usefixtures("models_home")  # the embedding model, in its own process
@pytest.mark.parametrize(
    ("command", "line", "named"),
    [
        ("triage", "not json", "Line 1"),
        ("triage", '{"message": "hi"}', "text"),
        ("route", '{"text": "hi"}', "messages"),
        ("route", '{"messages": []}', "no message"),
    ],
)
def test_a_broken_line_is_named(medraft_here: Medraft, command: str, line: str, named: str) -> None:
    refused(medraft_here(command, stdin=line + "\n"), named)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("none.jsonl", None, "none.jsonl"),
        ("empty.jsonl", "", "empty.jsonl"),
        ("columns.jsonl", '{"q": "a", "a": "b"}\n', "Doctor"),
        ("broken.jsonl", '{"Description": "a",\n', "line 1"),
        ("columns.csv", "q,a\nx,y\n", "Doctor"),
        ("text.txt", "hello", ".parquet"),
    ],
)
def test_a_source_that_cannot_be_read_leaves_nothing_behind(
    medraft_here: Medraft, tmp_path: Path, name: str, content: str | None, named: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    directory = tmp_path / "index"
    refused(medraft_here("index", "build", "--source", str(path), "--dir", str(directory)), named)
    assert not directory.exists()


@pytest.mark.usefixtures("models_home")  # the embedding model, in its own process
def test_no_index_says_how_to_build_one(medraft_here: Medraft, tmp_path: Path) -> None:
    refused(medraft_here("index", "search", "x", "--dir", str(tmp_path)), "medraft index build")
    done = medraft_here("ask", "x", env={"MEDRAFT_INDEX_DIR": str(tmp_path)})
    refused(done, "medraft index build")


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("MEDRAFT_RETREIVAL", "auto", "MEDRAFT_RETRIEVAL"),
        ("MEDRAFT_RETRIEVAL", "sometimes", "MEDRAFT_RETRIEVAL"),
        ("MEDRAFT_MAX_TOKENS", "many", "MEDRAFT_MAX_TOKENS"),
    ],
)
def test_a_wrong_setting_is_named(medraft_here: Medraft, name: str, value: str, named: str) -> None:
    refused(medraft_here("index", "info", env={name: value}), named)


@pytest.mark.parametrize("command", [("ask",), ("compare",), ("index", "search")])
def test_an_empty_question_is_refused(medraft_here: Medraft, command: tuple[str, ...]) -> None:
    refused(medraft_here(*command, " \n"), "question is empty")


def test_a_missing_model_is_named(medraft_here: Medraft, sample_index: Path) -> None:
    done = medraft_here(
        "ask", "x", env={"MEDRAFT_MODEL": "/no/m.gguf", "MEDRAFT_INDEX_DIR": str(sample_index)}
    )
    refused(done, "/no/m.gguf")


def test_an_output_that_cannot_be_written_is_named_before_anything_is_asked(
    medraft_here: Medraft, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    output = str(tmp_path / "file" / "answers.json")
    refused(medraft_here("evaluate", "grounding", "--output", output), str(tmp_path / "file"))
