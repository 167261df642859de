"""How a retriever does on held-out patients while it is trained.

Owns the two searches that it is judged by: a question for the texts of other patients with its
label, and a patient's for their own reply. Knows nothing of the training.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch
from sentence_transformers.base.evaluation import SequentialEvaluator
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from agent.finetuning import run
from agent.finetuning.retriever.pairs import Question, Row
from index_store.averaging import Averaging

METRIC = "sequential_score"  # sentence-transformers' name for the mean below
MOST = 500  # patients that search
AMONG = 4000  # texts that are searched


class HeldOut(SequentialEvaluator):
    """The mean nDCG@10 of both searches, or of the one that there is.

    By the weights as they will be kept; and texts are read as long as a search will read them,
    whatever they are cut to in training.
    """

    def __init__(
        self,
        learned: Sequence[Row],
        held_out: Sequence[Row],
        asking: Sequence[Question],
        tokens: int,
        averaging: Averaging,
        seed: int,
    ) -> None:
        chance = random.Random(seed)
        patients = chance.sample(held_out, min(MOST, len(held_out)))
        among = chance.sample(learned, min(AMONG, len(learned)))
        asked = chance.sample(asking, min(MOST, len(asking)))
        searches = [
            _search("same_label", *_by_label(among, asked)),
            _search("own_reply", *_by_reply(among, patients)),
        ]
        super().__init__([each for each in searches if each.queries], main_score_function=fmean)
        self._tokens = tokens
        self._averaging = averaging

    def __call__(self, model: Any, *told: Any, **more: Any) -> dict[str, float]:
        """sentence-transformers' measures by name, and their mean as METRIC."""
        cut, model.max_seq_length = model.max_seq_length, self._tokens
        fast = run.precision() != "fp32"
        try:
            with self._averaging.applied(), torch.autocast(model.device.type, enabled=fast):
                return super().__call__(model, *told, **more)
        finally:
            model.max_seq_length = cut


Sought = tuple[dict[str, Any], dict[str, Any], dict[str, set[str]]]  # queries, corpus, relevant


def _by_label(among: Sequence[Row], asking: Sequence[Question]) -> Sought:
    alike: dict[str, set[str]] = defaultdict(set)
    for row in among:
        alike[row.label].add(row.dialogue.id)
    there = {str(place): each for place, each in enumerate(asking) if each.label in alike}
    return (
        {place: question.text for place, question in there.items()},
        {row.dialogue.id: row.text for row in among},
        {place: alike[question.label] for place, question in there.items()},
    )


def _by_reply(among: Sequence[Row], asking: Sequence[Row]) -> Sought:
    rows = [*asking, *among]
    queries = {row.dialogue.id: row.dialogue.patient for row in asking}
    corpus = {row.dialogue.id: row.dialogue.doctor for row in rows}
    return queries, corpus, {id_: {id_} for id_ in queries}


def _search(
    name: str,
    queries: dict[str, Any],
    corpus: dict[str, Any],
    relevant: dict[str, set[str]],
) -> InformationRetrievalEvaluator:
    return InformationRetrievalEvaluator(
        queries,
        corpus,
        relevant,
        name=name,
        write_csv=False,
        query_prompt_name="query",
        corpus_prompt_name="text",
    )
