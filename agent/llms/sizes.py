"""How much of a GPU's memory a model takes, told from its shape: before it is downloaded or loaded.

Owns the arithmetic, how a size is written, and Llama 3 8B's shape. Knows no setting, and no card.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from agent.llms.skeleton import skeleton

Quantize = Literal["none", "8bit", "4bit"]

# Bytes of a parameter: bitsandbytes keeps a scale for each row, and in NF4 with double quantization
# 0.127 bits for each parameter (Dettmers et al. 2023, "QLoRA", section 3).
BYTES: dict[Quantize, float] = {"none": 2.0, "8bit": 1.0, "4bit": 0.5 + 0.127 / 8}
# What loading and computing take beside weights and caches: cuBLAS's workspace, a chunk's
# activations, the logits, and memory that lies in pieces.
BESIDE = 600 * 2**20


@dataclass(frozen=True)
class Shape:
    """Parameters of the matrices that are quantized and of all else (embedding, head, norms), and
    the bytes of a token in a 16-bit key-value cache. `own` are the bytes of a matrix's parameter in
    a checkpoint that is quantized on the disk: it stays as it is."""

    matrices: int
    rest: int
    bytes_per_token: int
    own: float | None = None

    def weights(self, quantize: Quantize) -> int:
        """Bytes of the weights."""
        return int(self.matrices * (self.own or BYTES[quantize])) + 2 * self.rest

    def needs(self, quantize: Quantize, window: int) -> int:
        """Bytes to answer with, of `window` tokens each the answer under way and what is kept."""
        return self.weights(quantize) + 2 * window * self.bytes_per_token + BESIDE


def gib(size: int) -> str:
    """So many bytes, as people are told."""
    return f"{size / 2**30:.1f} GiB"


LLAMA_3_8B = Shape(6_979_321_856, 1_050_939_392, 131_072)


def shape_of(checkpoint: str) -> Shape:
    """The shape of a transformers checkpoint, a directory or a Hub name, by its config.json alone.

    Raises AgentError if that is not to be had.
    """
    import torch

    model = skeleton(checkpoint)
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    matrices = sum(module.weight.numel() for module in linear)
    rest = sum(parameter.numel() for parameter in model.parameters()) - matrices
    text = model.config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    each = 2 * 2 * text.num_hidden_layers * heads * width
    return Shape(matrices, rest, each, _own(getattr(model.config, "quantization_config", None)))


def quantized(checkpoint: str) -> bool:
    """Whether a checkpoint is quantized on the disk. Raises OSError or ValueError as transformers
    does."""
    from transformers import AutoConfig

    return bool(getattr(AutoConfig.from_pretrained(checkpoint), "quantization_config", None))


def _own(told: dict[str, Any] | None) -> float | None:
    """Bytes of a parameter by a checkpoint's own `quantization_config` (GPTQ, AWQ, bitsandbytes
    ...), with half a bit for scales and zeros; what does not tell its bits is taken for 16."""
    if not told:
        return None
    eight = told.get("load_in_8bit") or "fp8" in str(told.get("quant_method"))
    bits = told.get("bits") or (4 if told.get("load_in_4bit") else 8 if eight else 16)
    return (bits + 0.5) / 8
