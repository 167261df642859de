"""The loss of a retriever, and which pairs are in a batch together.

Owns both: MultipleNegativesRankingLoss, beside it the distance to what the model said before, and
a batch without two pairs of the same label, so that no pair is a false negative of another. Knows
nothing of where pairs come from.
"""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from sentence_transformers.base.sampler import NoDuplicatesBatchSampler
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

LABELS = "label"  # sentence-transformers' name for a column that is no text


class RankedAndKept(MultipleNegativesRankingLoss):
    """InfoNCE of questions and texts in both directions, plus `kept` times the mean of one minus
    the cosine to the vectors of `old`, the model as it was (EmbedDistill, arXiv 2301.12005).

    Old vectors are computed as they are needed: a text may be another cut of a question each time.
    """

    def __init__(self, model: Any, old: Any, kept: float) -> None:
        super().__init__(
            model, directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"
        )
        self._old = [old]  # in a list, so that its weights are not this module's
        self._kept = kept

    def forward(self, sentence_features: Any, labels: torch.Tensor) -> torch.Tensor:
        """The loss, a scalar; one dictionary of ids and mask (batch, tokens) for each column."""
        features = list(sentence_features)
        new = [self.model(dict(each))["sentence_embedding"] for each in features]
        loss = self.compute_loss_from_embeddings(new, labels)
        if not self._kept:
            return loss
        with torch.no_grad():
            old = [self._old[0](dict(each))["sentence_embedding"] for each in features]
        apart = [1 - torch.cosine_similarity(a, b).mean() for a, b in zip(new, old, strict=True)]
        return loss + self._kept * torch.stack(apart).mean()


def one_of_a_label(dataset: Dataset, **settings: Any) -> NoDuplicatesBatchSampler:
    """Batches in which no label comes twice, be it a pair's own or that of its negative.

    `dataset` has the column LABELS: the numbers of the labels of each pair, one or two.
    """
    width = len(dataset[0][LABELS])
    columns = {str(place): [pair[place] for pair in dataset[LABELS]] for place in range(width)}
    return NoDuplicatesBatchSampler(Dataset.from_dict(columns), **settings)
