"""The encoder as a network: a transformer, and a head for each question asked of a message.

Owns its layers and how a text becomes its input. Does not know what the answers are used for, nor
how they are learned.

Each head pools the words by an attention of its own (Z. Yang et al., "Hierarchical Attention
Networks for Document Classification", NAACL 2016), beside their mean: one sentence of a long letter
may decide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.functional import pad

from agent.understanding.labels import HEADS, Said
from index_store.minilm import SIZE

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WINDOW = 384  # tokens of a message that are read at once; a longer one is read in several
OVERLAP = 64  # tokens that two windows of a message have in common
MOST = 64  # windows of a message; what is longer than some 15,000 words loses its middle
END = 100_000  # characters at either end of a text, enough for half of the windows
_UNSEEN = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060\ufeff]")
BEFORE = 48  # tokens of the patient's message before, and as many of the doctor's words to it


class Network(nn.Module):
    """`encoder`, a transformer, and the heads; `forward` maps token ids (n, t) to logits by head,
    (n, labels)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.queries = nn.ModuleDict({name: nn.Linear(SIZE, 1, bias=False) for name in HEADS})
        self.heads = nn.ModuleDict(
            {name: nn.Linear(2 * SIZE, len(labels)) for name, labels in HEADS.items()}
        )

    def forward(self, ids: torch.Tensor, types: torch.Tensor) -> dict[str, torch.Tensor]:
        """`ids` are padded with 0; `types` are 0 in the message and 1 in what was before it."""
        mask = ids != 0
        states = self.encoder(ids, mask, types).float()
        mean = (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        logits = {}
        for name, query in self.queries.items():
            weights = query(states).squeeze(-1).masked_fill(~mask, -1e4).softmax(-1)
            seen = (weights.unsqueeze(-1) * states).sum(1)
            logits[name] = self.heads[name](torch.cat([seen, mean], dim=-1)).float()
        return logits

    def take_heads(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Read all but the encoder from a state dict. Raises ValueError or RuntimeError if it holds
        other heads."""
        missing, foreign = self.load_state_dict(weights, strict=False)
        if foreign or any(not name.startswith("encoder.") for name in missing):
            raise ValueError("other heads")


def windows(tokenizer: Tokenizer, said: Said) -> list[tuple[list[int], list[int]]]:
    """Token ids and types of each window of a message."""
    ids = _ids(tokenizer, said.text)
    starts: Sequence[int] = range(0, max(len(ids) - OVERLAP, 1), WINDOW - OVERLAP)
    if len(starts) > MOST:
        starts = [*starts[: MOST // 2], *starts[-MOST // 2 :]]
    cls, sep = tokenizer.encode("").ids
    context = []
    if said.before is not None:
        context += [*_ids(tokenizer, said.before)[:BEFORE], sep]
        context += [*_ids(tokenizer, said.reply)[-BEFORE:], sep]
    found = []
    for start in starts:
        part = [cls, *ids[start : start + WINDOW], sep]
        found.append(([*part, *context], [0] * len(part) + [1] * len(context)))
    return found


def batch(rows: Sequence[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Several windows as tensors (n, t), padded with 0."""
    longest = max(len(ids) for ids, _ in rows)
    columns = ([row[column] for row in rows] for column in (0, 1))
    ids, types = (
        torch.stack([pad(torch.tensor(row), (0, longest - len(row))) for row in column])
        for column in columns
    )
    return ids, types


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    # Soft hyphens and the like, which nobody sees within a word, and the tokenizer breaks it at.
    text = _UNSEEN.sub("", text)
    if len(text) > 2 * END:  # others wait for the tokenizer; space is nothing to it
        text = " ".join(text.split())
        text = text if len(text) <= 2 * END else f"{text[:END]} {text[-END:]}"
    tokenizer.encode_special_tokens = True  # else "[SEP]" in a patient's text would be our mark
    found: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return found
