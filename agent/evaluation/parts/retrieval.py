"""Which way to search finds the reply that a patient needs?

Owns the measures, which `ir_measures` computes (trec_eval's definitions), and their table. Does
not know where cases come from (`cases.py`) nor how a way searches (`ways.py`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from agent.errors import AgentError
from agent.evaluation.parts import relevance
from agent.evaluation.parts.cases import (
    IN_SPANISH,
    Case,
    by_another,
    changes,
    halves,
    judged,
    judgements,
    known_items,
    labelled,
    labels,
    left_alone,
)
from agent.evaluation.parts.relevance import Decided
from agent.evaluation.parts.ways import SHIPPED, SHIPPED_OF_TURNS, Search, Ways, of_turns
from agent.evaluation.statistics import Difference, Estimate, differences, estimate
from agent.routing.embedding import TurnEmbedding
from agent.settings import Settings
from index_store.embedding import embed_queries, load_embedding
from index_store.store import IndexStore

DEPTH = 10
SAME = "Same condition, held-out patients"
BY_ANOTHER = "Same condition, questions by another author"
SPANISH = "Same condition, questions in Spanish"
MEASURES = ("Success@1", "Success@3", "Success@10", "RR@10", "nDCG@10")


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
    """Every way over the same cases, and how the way that ships differs from the rest."""

    cases: int
    replies: int
    ways: list[Way]
    against: list[Difference]


def measure(
    store: IndexStore,
    cases: Sequence[Case],
    searches: Mapping[str, Search],
    shipped: str,
    embedding: TurnEmbedding,
) -> Found:
    """Every way over every case. Raises AgentError if there is no case."""
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
        found, ms = _searched(search, cases)
        values = {key: np.zeros(len(cases)) for key in MEASURES}
        for metric in ir_measures.iter_calc(wanted, truth, found):
            values[str(metric.measure)][int(metric.query_id)] = metric.value
        estimates = {key: told for key, each in values.items() if (told := estimate(each))}
        ways.append(Way(name, estimates, values, ms))
    best = next(way for way in ways if way.name == shipped)
    pairs = [
        (shipped, best.per_case["nDCG@10"], way.name, way.per_case["nDCG@10"])
        for way in ways
        if way is not best
    ]
    return Found(len(cases), store.manifest.rows, ways, differences(pairs))


def _searched(search: Search, cases: Sequence[Case]) -> tuple[list[Any], float]:
    """What a way finds for each case, as `ir_measures` takes it, and its median milliseconds."""
    import ir_measures

    found, took = [], []
    for number, case in enumerate(cases):
        begun = time.perf_counter()
        ranking = search(case, DEPTH + len(case.hidden))
        took.append(time.perf_counter() - begun)
        shown = [id_ for id_ in ranking if id_ not in case.hidden][:DEPTH]
        found += [
            ir_measures.ScoredDoc(str(number), id_, float(-rank)) for rank, id_ in enumerate(shown)
        ]
    return found, statistics.median(took) * 1000


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


def run(
    settings: Settings, qrels: Path | None, many: int
) -> tuple[dict[str, Found], dict[str, list[Decided]]]:
    """Everything that can be measured of the index in use, and of a file of judgements; of the
    sample, whose labels are known, also which replies are shown. Raises AgentError or StoreError,
    for the file before anything is measured."""
    graded = None if qrels is None else judgements(qrels)
    model = load_embedding(settings.embed_model)
    embedding = TurnEmbedding(partial(embed_queries, model))
    told: dict[str, Found] = {}
    decided: dict[str, list[Decided]] = {}

    def compare(store: IndexStore, cases: Sequence[Case]) -> Found:
        ways = Ways(store, model, embedding).all()
        return measure(store, cases, ways, SHIPPED, embedding)

    with IndexStore.open(settings.index_dir, settings.embed_model) as store:
        if store.manifest.is_sample:
            conditions = labels("sample", "condition")
            cases, asked = labelled(store, conditions), by_another(conditions)
            others = [case for case in asked if case.relevant]
            for title, there, nothing in (
                (SAME, cases, [left_alone(case) for case in cases]),
                (BY_ANOTHER, others, [case for case in asked if not case.relevant]),
            ):
                told[title] = compare(store, there)
                decided[title] = relevance.measure(store, there, nothing, embedding)
            told[SPANISH] = compare(store, by_another(conditions, IN_SPANISH))
            turns = of_turns(store, embedding, settings.min_relevance)
            for title, asked in (
                ("The same patients in two turns", halves(cases)),
                ("Questions by another author in two turns", halves(others)),
                ("A question after one about something else", changes([*cases, *others])),
            ):
                told[title] = measure(store, asked, turns, SHIPPED_OF_TURNS, embedding)
        told["Known item: a title finds its own reply"] = compare(store, known_items(store, many))
    if graded is not None:
        with judged(graded, settings.embed_model) as (store, cases):
            told[f"Graded judgements of {graded.path.name}"] = compare(store, cases)
    return told, decided
