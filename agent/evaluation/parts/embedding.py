"""Does one embedding model find more than another for patients of whom neither has learned?

Owns which searches are compared, and what they are made over. Knows nothing of how a model came
to be.
"""

from __future__ import annotations

import random
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from agent.evaluation.parts import relevance
from agent.evaluation.parts.cases import Case, left_alone
from agent.evaluation.parts.relevance import Decided
from agent.evaluation.parts.retrieval import Found, measure
from agent.evaluation.parts.ways import Search
from agent.finetuning.retriever.pairs import Row
from agent.routing.embedding import TurnEmbedding
from index_store.build import build
from index_store.embedding import embed_queries, embed_texts, load_embedding
from index_store.split import Split
from index_store.store import IndexStore

BEFORE, AFTER = "before", "after"
ASKING = 500  # held-out patients
AMONG = 5000  # rows that are searched, theirs among them
SAME, OWN = "Same label, held-out patients", "A question finds its own reply"


def compare(
    parts: dict[Split, list[Row]], before: str, after: str
) -> tuple[dict[str, Found], list[Decided]]:
    """Two models by their names, over the same rows: an index, as it ships, for other replies with
    the label of a held-out patient, if there are any; and the replies alone for their own. And
    which replies are shown after."""
    chance = random.Random(0)
    test = chance.sample(parts["test"], min(ASKING, len(parts["test"])))
    others = [*parts["train"], *parts["validation"]]
    rows = [*test, *chance.sample(others, min(AMONG, len(others)))]
    told = {}
    with ExitStack() as stack:
        sides = {
            name: _Side(stack, rows, model) for name, model in ((BEFORE, before), (AFTER, after))
        }
        asked: list[tuple[str, list[Case], dict[str, Search]]] = [
            (SAME, _same_label(rows, test), {n: side.fused for n, side in sides.items()}),
            (OWN, _own_reply(test), {n: side.by_reply for n, side in sides.items()}),
        ]
        for title, cases, ways in asked:
            if cases:
                told[title] = measure(sides[AFTER].store, cases, ways, AFTER, sides[AFTER].turns)
        same = asked[0][1]
        there = sides[AFTER]
        nothing = [left_alone(case) for case in same]
        decided = relevance.measure(there.store, same, nothing, there.turns) if same else []
    return told, decided


def in_words(told: dict[str, Found]) -> str:
    """Whether what is after finds more than what was before, a sentence for each search."""
    said = []
    for title, found in told.items():
        (difference,) = found.against
        if difference.noise:
            verdict = "no difference beyond noise"
        else:
            verdict = "better, beyond noise" if difference.by.mean > 0 else "WORSE, beyond noise"
        said.append(
            f"{title}: {verdict} (nDCG@10 {difference.by.mean:+.3f}, 95 % interval "
            f"{difference.by.low:+.3f} to {difference.by.high:+.3f}, p = {difference.p:.4f}, "
            f"{found.cases} patients)."
        )
    return "\n".join(said)


def _own_reply(asking: Sequence[Row]) -> list[Case]:
    return [Case([row.dialogue.patient], {row.dialogue.id: 1}) for row in asking]


def _same_label(rows: Sequence[Row], asking: Sequence[Row]) -> list[Case]:
    alike: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        alike[row.label].add(row.dialogue.id)
    return [
        Case(
            [row.dialogue.patient],
            dict.fromkeys(sorted(alike[row.label] - {row.dialogue.id}), 1),
            frozenset({row.dialogue.id}),
        )
        for row in asking
        if len(alike[row.label]) > 1
    ]


class _Side:
    """A model, an index of its own, and the replies' vectors."""

    def __init__(self, stack: ExitStack, rows: Sequence[Row], model: str) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        dialogues = [row.dialogue for row in rows]
        build(dialogues, folder, model, source="rows", progress=False)
        self.store = stack.enter_context(IndexStore.open(folder, model))
        embedding = load_embedding(model)
        self.turns = TurnEmbedding(partial(embed_queries, embedding))
        self.ids = [dialogue.id for dialogue in dialogues]
        self.replies = embed_texts(embedding, [dialogue.doctor for dialogue in dialogues])

    def fused(self, case: Case, depth: int) -> list[str]:
        vector = self.turns.matrix(case.turns)[0]
        return [hit.id for hit in self.store.search(case.turns[0], vector, depth)]

    def by_reply(self, case: Case, depth: int) -> list[str]:
        nearest = np.argsort(-(self.replies @ self.turns.matrix(case.turns)[0]))
        return [self.ids[place] for place in nearest[:depth]]
