"""What is searched for: patients' turns, and which replies ought to be found for them.

Owns where cases come from: condition labels, the replies' own titles, graded judgements. Knows
nothing of how one searches.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten

from agent.errors import AgentError
from agent.evaluation.parts.labelled import read
from index_store.build import build
from index_store.cleaning import TITLE_WIDTH, clean
from index_store.columns import Columns
from index_store.dataset import Dialogue, read_rows
from index_store.split import split
from index_store.store import IndexStore, evenly

# By an author who saw none of the sample; every third is about what the sample has no reply to.
BY_ANOTHER = Path(__file__).parents[1] / "data" / "questions_by_condition.jsonl"
IN_SPANISH = BY_ANOTHER.with_name("questions_in_spanish.jsonl")  # one for each condition

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True)
class Case:
    """A patient's turns, the last of which searches; the ids that should be found, with their
    grades; and those that must not be, because they hold the patient's own reply."""

    turns: list[str]
    relevant: Mapping[str, int]
    hidden: frozenset[str] = frozenset()


def labelled(store: IndexStore, rows: Mapping[str, str]) -> list[Case]:
    """Held-out patients; relevant is every other reply with the label of their own. `rows` are
    labels by id."""
    alike = _alike(rows)
    return [
        Case(
            [dialogue.patient],
            dict.fromkeys(sorted(alike[rows[dialogue.id]] - {dialogue.id}), 1),
            frozenset({dialogue.id}),
        )
        for _, dialogue in store.rows()
        if dialogue.id in rows and split(dialogue.patient) == "test"
    ]


def by_another(rows: Mapping[str, str], path: Path = BY_ANOTHER) -> list[Case]:
    """The questions of a file; relevant is every reply with their label, which may be none."""
    alike = _alike(rows)
    return [
        Case([asked["patient"]], dict.fromkeys(sorted(alike.get(asked["condition"], ())), 1))
        for asked in read(path, {"patient", "condition"})
    ]


def left_alone(case: Case) -> Case:
    """The same with all that is relevant hidden: as if the index had nothing on it."""
    return replace(case, hidden=case.hidden | case.relevant.keys())


def _alike(rows: Mapping[str, str]) -> dict[str, set[str]]:
    """The ids of each label."""
    alike: dict[str, set[str]] = {}
    for id_, label in rows.items():
        alike.setdefault(label, set()).add(id_)
    return alike


def labels(source: str, column: str, limit: int | None = None) -> dict[str, str]:
    """The label of every row by its id. Raises StoreError if there is no such column."""
    dialogues, _ = clean(read_rows(source, limit=limit))
    named, _ = clean(read_rows(source, Columns(description=column), limit))
    return {row.id: label.title for row, label in zip(dialogues, named, strict=True)}


def known_items(store: IndexStore, limit: int) -> list[Case]:
    """Titles as questions, at even distances; relevant is the reply to that very question."""
    rows = [dialogue for _, dialogue in store.rows()]
    return [Case([rows[row].title], {rows[row].id: 1}) for row in evenly(len(rows), limit)]


def halves(cases: Sequence[Case]) -> list[Case]:
    """The same patients in two turns: their last sentence comes as a follow-up to the rest."""
    made = []
    for case in cases:
        *earlier, last = sentences(case.turns[0]) or [""]
        if earlier:
            turns = [" ".join(earlier), last]
            made.append(Case(turns, case.relevant, case.hidden))
    return made


def changes(cases: Sequence[Case]) -> list[Case]:
    """Each question after one about another condition: a new matter in the same conversation."""
    half = len(cases) // 2
    return [
        Case([before.turns[0], case.turns[0]], case.relevant, case.hidden)
        for before, case in zip([*cases[half:], *cases[:half]], cases, strict=True)
        if before.relevant.keys().isdisjoint(case.relevant)
    ]


@dataclass(frozen=True)
class Judgements:
    """The answers in a file of graded judgements, cleaned, and their grades by id for each question
    that has a good one; 0 counts nothing."""

    path: Path
    answers: list[Dialogue]
    grades: dict[str, dict[str, int]]


def judgements(path: Path) -> Judgements:
    """Read a file of graded judgements.

    Each line is {"question", "answer", "grade"}, grades from 1, which counts nothing. A line
    "Question: ..." that an answer begins with is what the answer was given to; without one its own
    beginning stands for that. An answer of which cleaning leaves nothing is passed over.
    Raises AgentError for a file that cannot be used, or has no good answer.
    """
    answers: dict[str, Dialogue] = {}
    grades: dict[str, dict[str, int]] = {}
    for number, judgement in enumerate(read(path, {"question", "answer", "grade"}), start=1):
        asked, whole = str(judgement["question"]), str(judgement["answer"])
        grade = judgement["grade"]
        if not isinstance(grade, int):
            raise AgentError(f"Line {number} of {path} needs a whole number as its grade.")
        own, text = re.search(r"^Question: (.*)", whole), whole.split("\nAnswer: ", 1)[-1]
        title = own[1] if own and own[1].strip() else shorten(text, TITLE_WIDTH)
        cleaned, _ = clean([Dialogue(title, title, text)])
        for kept in cleaned:
            answers[kept.id] = kept
            of_question = grades.setdefault(asked, {})
            of_question[kept.id] = max(grade - 1, of_question.get(kept.id, 0))
    good = {asked: by_id for asked, by_id in grades.items() if any(by_id.values())}
    if not good:
        raise AgentError(
            f"{path} has no answer with a text and a grade above 1: there is nothing to find."
        )
    return Judgements(path, [*answers.values()], good)


@contextmanager
def judged(told: Judgements, embed_model: str) -> Iterator[tuple[IndexStore, list[Case]]]:
    """An index of the answers that were judged, and a case for each question."""
    with tempfile.TemporaryDirectory() as folder:
        build(told.answers, Path(folder), embed_model, source=str(told.path), progress=False)
        with IndexStore.open(Path(folder), embed_model) as store:
            there = {dialogue.id for _, dialogue in store.rows()}
            yield (
                store,
                [
                    Case([question], {id_: g for id_, g in grades.items() if id_ in there})
                    for question, grades in told.grades.items()
                ],
            )


def sentences(text: str) -> list[str]:
    """Its sentences and lines, as plainly as that."""
    return [sentence for sentence in _SENTENCE.split(text.strip()) if sentence]
