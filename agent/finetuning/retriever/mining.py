"""Hard negatives: texts near a question that answer another problem.

Owns which texts count as such. Knows nothing of how pairs are drawn, nor of the training.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from agent.finetuning.retriever.pairs import Row

EACH = 8  # negatives of a question
DEEPEST = 40  # the nearest texts that they are taken from
TOO_NEAR = 0.05  # NV-Retriever (arXiv 2407.15831): above 95 % of the positive it may be one, too


def mine(model: Any, rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Of each row's id the rows nearest to its question, by `mine_hard_negatives`.

    A named label says which rows are no negatives. Where there is none, texts that are nearly as
    near as the row's own may answer the same problem, and are passed over.
    """
    found: dict[str, list[Row]] = {}
    named = [row for row in rows if row.named]
    unnamed = [row for row in rows if not row.named]
    alike: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        alike[row.label].append(row)
    for some, margin in ((named, None), (unnamed, TOO_NEAR)):
        pairs = [(row.dialogue.patient, other.text) for row in some for other in alike[row.label]]
        if pairs:
            found |= _mined(model, rows, some, pairs, margin)
    return found


def _mined(
    model: Any,
    rows: Sequence[Row],
    some: Sequence[Row],
    pairs: Sequence[tuple[str, str]],
    margin: float | None,
) -> dict[str, list[Row]]:
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    by_text = {row.text: row for row in rows}
    mined = mine_hard_negatives(
        Dataset.from_dict({"anchor": [a for a, _ in pairs], "positive": [p for _, p in pairs]}),
        model,
        corpus=list(by_text),
        range_max=min(DEEPEST, len(by_text) - 1),
        num_negatives=EACH,
        relative_margin=margin,
        output_format="triplet",
        query_prompt_name="query",
        corpus_prompt_name="text",
        use_faiss=True,
        verbose=False,
    )
    near: dict[str, dict[str, Row]] = defaultdict(dict)
    for anchor, text in zip(mined["anchor"], mined["negative"], strict=True):
        near[anchor][text] = by_text[text]
    return {
        row.dialogue.id: list(near[row.dialogue.patient].values())
        for row in some
        if row.dialogue.patient in near
    }
