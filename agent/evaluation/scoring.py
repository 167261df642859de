"""Every metric of every answer of a run.

Owns which metric applies to which answer, and that it is the LLM's own words which are measured:
neither medraft's notes in place of a sentence nor the marks of citations are any. Knows nothing of
means, nor of how answers came about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from agent.chat.marks import without_marks, without_notes
from agent.evaluation.asking import Answer, ReferenceLoss
from agent.evaluation.conclusions import Table
from agent.evaluation.eval_log import EvalLog
from agent.evaluation.grounding import grounding
from agent.evaluation.judging import Judgement
from agent.evaluation.metrics import (
    chrf,
    repeats,
    rouge_l,
    share_copied,
    similarity,
    word_tokens,
)
from agent.evaluation.questions import Approach
from index_store.dataset import Dialogue
from index_store.embedding import Embed, embed_texts

if TYPE_CHECKING:
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

NONE = math.nan


def score(
    embedding: HuggingFaceEmbedding,
    questions: Sequence[Dialogue],
    approaches: Sequence[Approach],
    answers: EvalLog[Answer],
    losses: EvalLog[ReferenceLoss],
    judgements: EvalLog[Judgement],
) -> Table:
    """Values by metric and behaviour, shape (questions,), in the order of `questions`."""
    table: Table = {}
    references = [question.doctor for question in questions]

    embed: Embed = partial(embed_texts, embedding)
    for approach in approaches:
        rows = [answers[question.id, approach] for question in questions]
        texts = [without_marks(row.answer) for row in rows]
        columns: dict[str, Sequence[float]] = {
            "similarity": similarity(embedding, texts, references),
            "rouge_l": rouge_l(texts, references),
            "chrf": chrf(texts, references),
        }
        of_each = [
            _of_answer(row) | _of_sentences(row, question.patient, embed)
            for row, question in zip(rows, questions, strict=True)
        ]
        columns |= {name: [each[name] for each in of_each] for name in of_each[0]}
        keys = [(question.id, approach) for question in questions]
        # A part of the questions, from a run that asked fewer of them, would not compare.
        if all(key in losses for key in keys):
            columns["reference_loss"] = [losses[key].nats / losses[key].tokens for key in keys]
        if all(key in judgements for key in keys):
            columns["correctness"] = [_number(judgements[key].correctness) for key in keys]
            columns["faithfulness"] = [_number(judgements[key].faithful) for key in keys]
        for name, values in columns.items():
            table.setdefault(name, {})[approach] = np.asarray(values, dtype=np.float64)
    return table


def _of_answer(answer: Answer) -> dict[str, float]:
    words = word_tokens(without_marks(answer.answer))
    return {
        "copied": share_copied(words, answer.documents) if answer.documents else NONE,
        "repeats": float(repeats(words)),
        "ended": float(answer.ended),
        "words": float(len(words)),
        "first_token": _number(answer.first_token_ms) / 1000,
        "total": answer.total_ms / 1000,
        "tokens": float(answer.tokens),
        "cost": float(answer.prompt_tokens + answer.tokens),
    }


def _of_sentences(answer: Answer, message: str, embed: Embed) -> dict[str, float]:
    """What its sentences have of the documents: nothing to count is NONE."""
    names = ("supported", "citation_precision", "citation_recall", "leaking", "borne")
    if not answer.documents:
        return dict.fromkeys(names, NONE)
    said = without_notes(answer.answer)
    told = grounding(said, message, answer.documents, answer.letters, embed)
    shares = (
        (told.supported, told.claims),
        (told.right, told.citations),
        (told.cited, told.claims),
        (told.leaking, told.sentences),
        (told.borne, told.named),
    )
    return {
        name: part / whole if whole else NONE
        for name, (part, whole) in zip(names, shares, strict=True)
    }


def _number(value: float | None) -> float:
    return NONE if value is None else float(value)
