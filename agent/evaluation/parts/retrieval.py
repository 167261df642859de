"""Which way to search finds the reply that a patient needs?

Owns the cases (by condition label, by known item, by graded judgements), the ways to search that
are compared, and their measures, which `ir_measures` computes (trec_eval's definitions). Knows
nothing of routers or of answers, but for the query that the router makes of several turns.
"""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.errors import AgentError
from agent.evaluation.parts.labelled import read
from agent.evaluation.statistics import Difference, Estimate, differences, estimate
from agent.routing import router as routing
from agent.routing.embedding import TurnEmbedding
from agent.routing.router import Router
from agent.settings import Settings
from index_store.build import build
from index_store.cleaning import clean
from index_store.dataset import Columns, Dialogue, read_rows
from index_store.embedding import embed_texts, identity, load_embedding
from index_store.split import split
from index_store.store import CANDIDATES, IndexStore

if TYPE_CHECKING:
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

DEPTH = 10
MEASURES = ("Success@1", "Success@3", "Success@10", "RR@10", "nDCG@10")
SHIPPED = "question and reply, fused"
WINDOW = 3  # sentences of a chunk
RRF_K = 60  # Cormack, Clarke, Buettcher 2009: reciprocal rank fusion
RERANKED = 20  # replies that are ranked again
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True)
class Case:
    """A patient's turns, the last of which searches; the ids that should be found, with their
    grades; and those that must not be, because they hold the patient's own reply."""

    turns: list[str]
    relevant: Mapping[str, int]
    hidden: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Way:
    """A way to search: its measures over the cases, and its median milliseconds, without the
    embedding of the question."""

    name: str
    measures: dict[str, Estimate]
    per_case: dict[str, np.ndarray]
    ms: float


@dataclass(frozen=True)
class Found:
    """Every way over the same cases, and how SHIPPED (or the first way) differs from the rest."""

    cases: int
    replies: int
    ways: list[Way]
    against: list[Difference]


Search = Callable[[Case, int], Sequence[str]]


def labelled(store: IndexStore, rows: Mapping[str, str]) -> list[Case]:
    """Held-out patients; relevant is every other reply with the label of their own. `rows` are
    labels by id."""
    alike: dict[str, set[str]] = {}
    for id_, label in rows.items():
        alike.setdefault(label, set()).add(id_)
    return [
        Case(
            [dialogue.patient],
            dict.fromkeys(sorted(alike[rows[dialogue.id]] - {dialogue.id}), 1),
            frozenset({dialogue.id}),
        )
        for _, dialogue in store.rows()
        if dialogue.id in rows and split(dialogue.patient) == "test"
    ]


def labels(source: str, column: str, limit: int | None = None) -> dict[str, str]:
    """The label of every row by its id. Raises StoreError if there is no such column."""
    dialogues, _ = clean(read_rows(source, limit=limit))
    named, _ = clean(read_rows(source, Columns(description=column), limit))
    return {row.id: label.title for row, label in zip(dialogues, named, strict=True)}


def known_items(store: IndexStore, limit: int) -> list[Case]:
    """Titles as questions, at even distances; relevant is the reply to that very question."""
    rows = [dialogue for _, dialogue in store.rows()]
    some = np.unique(np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(int))
    return [Case([rows[row].title], {rows[row].id: 1}) for row in some]


def halves(cases: Sequence[Case]) -> list[Case]:
    """The same patients in two turns: their last sentence comes as a follow-up to the rest."""
    made = []
    for case in cases:
        sentences = _sentences(case.turns[0])
        if len(sentences) > 1:
            turns = [" ".join(sentences[:-1]), sentences[-1]]
            made.append(Case(turns, case.relevant, case.hidden))
    return made


@contextmanager
def judged(path: Path, embed_model: str) -> Iterator[tuple[IndexStore, list[Case]]]:
    """An index of the answers in a file of graded judgements, and a case for each question.

    Each line is {"question", "answer", "grade"}, grades from 1, which counts nothing. A line
    "Question: ..." in the answer is what the answer was given to. Raises AgentError.
    """
    cases: dict[str, dict[str, int]] = {}
    answers: dict[str, Dialogue] = {}
    for number, judgement in enumerate(read(path, {"question", "answer", "grade"}), start=1):
        whole, grade = str(judgement["answer"]), judgement["grade"]
        if not isinstance(grade, int):
            raise AgentError(f"Line {number} of {path} needs a whole number as its grade.")
        question = re.search(r"^Question: (.*)", whole)
        title = question[1] if question else ""
        dialogue = Dialogue(title, title, whole.split("\nAnswer: ", 1)[-1])
        ((kept,), _) = clean([dialogue]) if dialogue.doctor.strip() else ((dialogue,), None)
        answers[kept.id] = kept
        grades = cases.setdefault(str(judgement["question"]), {})
        grades[kept.id] = max(grade - 1, grades.get(kept.id, 0))
    with tempfile.TemporaryDirectory() as folder:
        build(answers.values(), Path(folder), embed_model, source=str(path), progress=False)
        with IndexStore.open(Path(folder), embed_model) as store:
            there = {dialogue.id for _, dialogue in store.rows()}
            yield (
                store,
                [
                    Case([question], {id_: g for id_, g in grades.items() if id_ in there})
                    for question, grades in cases.items()
                    if any(grades.values())
                ],
            )


def compare(
    store: IndexStore, cases: Sequence[Case], model: HuggingFaceEmbedding, embedding: TurnEmbedding
) -> Found:
    """The plain ways, the one that ships, and those that have to win before they do."""
    ids = [f"{id_:016x}" for id_ in store.ids.tolist()]
    rows = [dialogue for _, dialogue in store.rows()]
    replies = embed_texts(model, [row.doctor for row in rows])
    chunks = [(place, chunk) for place, row in enumerate(rows) for chunk in _chunks(row)]
    place_of = {id_: place for place, id_ in enumerate(ids)}
    owner = np.array([place for place, _ in chunks])
    parts = embed_texts(model, [chunk for _, chunk in chunks])

    def vector(case: Case) -> np.ndarray:
        return embedding.matrix([case.turns[-1]])[0]

    def best_chunk(query: np.ndarray) -> np.ndarray:
        best = np.full(len(rows), -1.0, dtype=np.float32)
        np.maximum.at(best, owner, parts @ query)
        return best

    def reply_only(case: Case, depth: int) -> list[str]:
        return [ids[place] for place in np.argsort(-(replies @ vector(case)))[:depth]]

    def dense(case: Case, depth: int) -> list[str]:
        return [ids[place] for place in store.nearest(vector(case), depth, exact=True)]

    def bm25(case: Case, depth: int) -> list[str]:
        return [ids[place] for place in store.sharing_terms(case.turns[-1], depth)]

    def fused(case: Case, depth: int) -> list[str]:
        return [hit.id for hit in store.search(case.turns[-1], vector(case), depth)]

    def by_rank(case: Case, depth: int) -> list[str]:
        fused_ranks: dict[str, float] = {}
        for ranking in (dense(case, CANDIDATES), bm25(case, CANDIDATES)):
            for rank, id_ in enumerate(ranking, 1):
                fused_ranks[id_] = fused_ranks.get(id_, 0.0) + 1 / (RRF_K + rank)
        return sorted(fused_ranks, key=lambda id_: -fused_ranks[id_])[:depth]

    def chunked(case: Case, depth: int) -> list[str]:
        return [ids[place] for place in np.argsort(-best_chunk(vector(case)))[:depth]]

    def reranked(case: Case, depth: int) -> list[str]:
        query, found = vector(case), fused(case, max(depth, RERANKED))
        best = best_chunk(query)
        return sorted(found, key=lambda id_: -float(best[place_of[id_]]))

    return _measured(
        store,
        cases,
        {
            "reply alone, dense": reply_only,
            "question and reply, dense": dense,
            "question and reply, BM25": bm25,
            SHIPPED: fused,
            "the same, fused by reciprocal rank": by_rank,
            "chunks of three sentences, dense": chunked,
            "fused, ranked again by their best chunk": reranked,
        },
        SHIPPED,
        embedding,
    )


def compare_turns(
    store: IndexStore, cases: Sequence[Case], embedding: TurnEmbedding, router: Router
) -> Found:
    """What to search with when a patient goes on: the router's query against two plainer ones."""

    def of_router(case: Case, depth: int) -> list[str]:
        _, query = router.route(case.turns, embedding.matrix(case.turns))
        return [hit.id for hit in store.search(query.text, query.vector, depth)]

    def of(text: Callable[[Case], str]) -> Search:
        def search(case: Case, depth: int) -> list[str]:
            asked = text(case)
            return [hit.id for hit in store.search(asked, embedding.matrix([asked])[0], depth)]

        return search

    return _measured(
        store,
        cases,
        {
            "the last turn alone": of(lambda case: case.turns[-1]),
            "all turns joined": of(lambda case: "\n".join(case.turns)),
            "the router's blend of turns": of_router,
        },
        "the router's blend of turns",
        embedding,
    )


def _measured(
    store: IndexStore,
    cases: Sequence[Case],
    searches: Mapping[str, Search],
    shipped: str,
    embedding: TurnEmbedding,
) -> Found:
    import ir_measures

    if not cases:
        raise AgentError("There is no question to search with: none of the patients is held out.")
    for case in cases:  # embedded beforehand, so that searching is timed alone
        embedding.matrix([*case.turns, "\n".join(case.turns)])
    wanted = [ir_measures.parse_measure(name) for name in MEASURES]
    truth = [
        ir_measures.Qrel(str(number), id_, grade)
        for number, case in enumerate(cases)
        for id_, grade in case.relevant.items()
    ]
    ways = []
    for name, search in searches.items():
        found, took = [], []
        for number, case in enumerate(cases):
            begun = time.perf_counter()
            ranking = search(case, DEPTH + len(case.hidden))
            took.append(time.perf_counter() - begun)
            shown = [id_ for id_ in ranking if id_ not in case.hidden][:DEPTH]
            found += [
                ir_measures.ScoredDoc(str(number), id_, float(-rank))
                for rank, id_ in enumerate(shown)
            ]
        values = {name: np.zeros(len(cases)) for name in MEASURES}
        for metric in ir_measures.iter_calc(wanted, truth, found):
            values[str(metric.measure)][int(metric.query_id)] = metric.value
        estimates = {key: told for key, each in values.items() if (told := estimate(each))}
        ways.append(Way(name, estimates, values, statistics.median(took) * 1000))
    best = next(way for way in ways if way.name == shipped)
    pairs = [
        (shipped, best.per_case["nDCG@10"], way.name, way.per_case["nDCG@10"])
        for way in ways
        if way is not best
    ]
    return Found(len(cases), store.manifest.rows, ways, differences(pairs))


def _sentences(text: str) -> list[str]:
    return [sentence for sentence in _SENTENCE.split(text.strip()) if sentence]


def _chunks(row: Dialogue) -> list[str]:
    sentences = _sentences(row.patient) + _sentences(row.doctor)
    starts = range(0, max(1, len(sentences) - WINDOW + 1), WINDOW - 1)
    return [" ".join([row.title, *sentences[start : start + WINDOW]]) for start in starts]


def as_markdown(title: str, found: Found) -> str:
    """A table of the ways, and below it which differences are more than noise."""
    lines = [
        f"{title}: {found.cases} questions, {found.replies} replies",
        "",
        "| searched | hit@1 | hit@3 | hit@10 | MRR@10 | nDCG@10 | ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for way in found.ways:
        cells = [
            f"{way.measures[name].mean:.3f} [{way.measures[name].low:.3f}, "
            f"{way.measures[name].high:.3f}]"
            for name in MEASURES
        ]
        lines.append(f"| {way.name} | {' | '.join(cells)} | {way.ms:.1f} |")
    lines.append("")
    for each in found.against:
        verdict = "noise" if each.noise else ("better" if each.by.mean > 0 else "WORSE")
        lines.append(
            f"- {each.first} against {each.second}: nDCG@10 {each.by.mean:+.3f} "
            f"[{each.by.low:+.3f}, {each.by.high:+.3f}], p = {each.p:.4f}: {verdict}"
        )
    return "\n".join(lines)


def as_json(found: Found) -> dict[str, Any]:
    """The same figures for programs."""
    return {
        "questions": found.cases,
        "replies": found.replies,
        "ways": {
            way.name: {name: each.mean for name, each in way.measures.items()} | {"ms": way.ms}
            for way in found.ways
        },
    }


def run(settings: Settings, judgements: Path | None, many: int) -> dict[str, Found]:
    """Everything that can be measured of the index in use, and of a file of judgements."""
    router = routing.load(identity(settings.embed_model), settings.home)
    model = load_embedding(settings.embed_model)
    embedding = TurnEmbedding(model)
    told: dict[str, Found] = {}
    with IndexStore.open(settings.index_dir, settings.embed_model) as store:
        if store.manifest.is_sample:
            cases = labelled(store, labels("sample", "condition"))
            told["Same condition, held-out patients"] = compare(store, cases, model, embedding)
            told["The same patients in two turns"] = compare_turns(
                store, halves(cases), embedding, router
            )
        told["Known item: a title finds its own reply"] = compare(
            store, known_items(store, many), model, embedding
        )
    if judgements is not None:
        with judged(judgements, settings.embed_model) as (store, cases):
            told[f"Graded judgements of {judgements.name}"] = compare(
                store, cases, model, embedding
            )
    return told
