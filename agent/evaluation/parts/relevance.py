"""Of the replies that a search finds, are those shown that concern the patient's problem, and none
where the index has nothing on it?

Owns the measures of that decision, and their table. Does not know how likely is enough: it tells of
several probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent.evaluation.parts.cases import Case
from agent.routing.embedding import TurnEmbedding
from index_store.store import IndexStore

DEPTH = 10  # replies that are judged for a question
AT = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Decided:
    """What is shown at a probability: the share of it that is relevant; the share of the relevant
    ones among the first DEPTH that is shown; of the questions, the share that gets any, when the
    index has replies to their problem and when it has not; and the F1 of showing none (Trust-Score,
    arXiv 2409.11242), which is right of the latter alone."""

    at: float
    precision: float
    recall: float
    answered: float
    answered_outside: float
    refusal_f1: float


def measure(
    store: IndexStore,
    cases: Sequence[Case],
    nothing: Sequence[Case],
    embedding: TurnEmbedding,
    at: Sequence[float] = AT,
) -> list[Decided]:
    """For each probability; on `nothing` the index has no reply, or none that is not hidden."""
    inside = [_found(store, case, embedding) for case in cases]
    outside = [_found(store, case, embedding) for case in nothing]
    decided = []
    for each in at:
        shown = [(likely >= each, right) for likely, right in inside]
        right = np.concatenate([right[there] for there, right in shown])
        kept = sum(int(right[there].sum()) for there, right in shown)
        there_are = sum(int(right.sum()) for _, right in shown)
        answered = np.array([there.any() for there, _ in shown])
        missed = np.array([(likely >= each).any() for likely, _ in outside])
        refused = 2 * int((~missed).sum())
        decided.append(
            Decided(
                each,
                float(right.mean()) if len(right) else float("nan"),
                kept / there_are if there_are else float("nan"),
                float(answered.mean()),
                float(missed.mean()),
                refused / max(1, refused + int((~answered).sum()) + int(missed.sum())),
            )
        )
    return decided


def _found(
    store: IndexStore, case: Case, embedding: TurnEmbedding
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the first DEPTH replies not hidden, and whether each is relevant."""
    vector = embedding.matrix([case.turns[-1]])[0]
    hits = store.search(case.turns[-1], vector, DEPTH + len(case.hidden))
    shown = [hit for hit in hits if hit.id not in case.hidden][:DEPTH]
    likely = np.array([hit.relevance for hit in shown])
    return likely, np.array([hit.id in case.relevant for hit in shown], dtype=bool)


def as_markdown(title: str, cases: int, decided: Sequence[Decided]) -> str:
    """A table, a row for each probability."""
    lines = [
        f"Shown. {title}: {cases} questions, {DEPTH} replies each",
        "",
        "| shown from | precision | recall | questions that get any | with nothing in the index "
        "| refusal F1 |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.at:.1f} | {each.precision:.2f} | {each.recall:.2f} | {each.answered:.2f} | "
        f"{each.answered_outside:.2f} | {each.refusal_f1:.2f} |"
        for each in decided
    ]
    return "\n".join(lines)
