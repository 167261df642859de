"""The transformer below the encoder: the first layers of multilingual-e5-small.

Owns its weights of four bits, how they are unpacked, and its tokenizer. Does not know where they
come from (`make_base.py`), nor what was learned on top of them.

Multilingual E5: L. Wang et al. 2024, arXiv 2402.05672. A weight is a half of a byte, less eight,
times the scale of its block of 32.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from index_store.minilm import MiniLM

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WEIGHTS, TOKENIZER = "base.safetensors", "tokenizer.json"
BLOCK = 32  # weights that share a scale
CODES, SCALES = ".codes", ".scales"  # ends of the names of what is packed
WORDS = "embeddings.word_embeddings.weight"


class Words(nn.Module):
    """A table of packed rows, (rows, blocks, BLOCK / 2) uint8 and (rows, blocks) float16, which are
    unpacked as they are looked up: ids (n, t) to float32 (n, t, blocks * BLOCK)."""

    codes: torch.Tensor
    scales: torch.Tensor

    def __init__(self, codes: torch.Tensor, scales: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("codes", codes, persistent=False)
        self.register_buffer("scales", scales, persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return unpacked(self.codes[ids], self.scales[ids])


def unpacked(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Weights (..., blocks * BLOCK) float32: the lower halves of a block, then the upper ones."""
    halves = torch.cat([codes & 15, codes >> 4], dim=-1).float() - 8
    return (halves * scales.float().unsqueeze(-1)).flatten(-2)


def load(folder: Path) -> tuple[Tokenizer, MiniLM]:
    """The transformer, of as many layers as its file has, and its tokenizer, which cuts and pads
    nothing and leaves 0 for padding.

    Raises ValueError if its files are not there or not what they should be.
    """
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        kept = load_file(folder / WEIGHTS)
        words = Words(kept.pop(WORDS + CODES), kept.pop(WORDS + SCALES))
        weights = {}
        for name, values in kept.items():
            if name.endswith(CODES):
                whole = name.removesuffix(CODES)
                weights[whole] = unpacked(values, kept[whole + SCALES])
            elif not name.endswith(SCALES):
                weights[name] = values
        layers = len({name.split(".")[2] for name in weights if name.startswith("encoder.layer.")})
        with torch.device("meta"):  # the weights are those of the file
            model = MiniLM(words, layers)
        model.load_state_dict(weights, assign=True)
    except Exception as error:  # tokenizers raises nothing narrower
        raise ValueError(f"{folder} holds no transformer ({type(error).__name__})") from None
    return tokenizer, model.eval()
