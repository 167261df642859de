"""A PEFT adapter as the GGUF that llama.cpp reads.

Owns names and layout of the tensors. Knows nothing of training or serving. The GGUF is laid out
as by llama.cpp's convert_lora_to_gguf.py: for Llama, the rows of q and k are permuted per head as
llama.cpp permutes the weights themselves.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import AgentError
from agent.llms import peft_adapter
from index_store.disk import make_once

if TYPE_CHECKING:
    import numpy as np


# Architectures whose q and k llama.cpp lays out anew, and those whose weights stay as they are.
PERMUTED = ("llama",)
PLAIN = ("qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3")
LAYOUT = b"2"  # to be raised when the same adapter is to become another file


def cached_gguf(adapter: Path, model: Path, folder: Path) -> Path:
    """`adapter` as a GGUF in `folder`, converted once for each content of the adapter.

    `model` is the GGUF that it was trained for. Raises AgentError if `adapter` is no LoRA or was
    made for another model.
    """
    peft_adapter.read(adapter)
    content = hashlib.sha256(LAYOUT)
    for name in (peft_adapter.CONFIG, peft_adapter.WEIGHTS):
        content.update((adapter / name).read_bytes())
    target = folder / f"{adapter.resolve().name}-{content.hexdigest()[:16]}-{model.stem}.gguf"
    return make_once(target, lambda path: write_gguf(adapter, model, path))


def write_gguf(adapter: Path, model: Path, target: Path) -> None:
    """Write `adapter`, a PEFT directory, to `target`. Raises AgentError if it does not fit."""
    from gguf import GGUFReader, GGUFWriter
    from gguf.constants import GGUFEndian
    from safetensors.torch import load_file

    found = peft_adapter.read(adapter)
    try:
        reader = GGUFReader(model)
        architecture = reader.fields["general.architecture"].contents()
        layers = reader.fields[f"{architecture}.block_count"].contents()
        heads = {
            "attn_q": reader.fields[f"{architecture}.attention.head_count"].contents(),
            "attn_k": reader.fields[f"{architecture}.attention.head_count_kv"].contents(),
        }
    except (OSError, ValueError, KeyError):
        raise AgentError(f"{model} is no GGUF model, or it is damaged.") from None
    if architecture not in (*PERMUTED, *PLAIN):
        raise AgentError(
            f"How llama.cpp lays out the weights of {architecture} ({model.name}) is not known "
            "here: convert the adapter by llama.cpp's convert_lora_to_gguf.py, and name the .gguf "
            "in MEDRAFT_ADAPTER."
        )
    names = _names(architecture, layers)
    places = {
        module: names.get_name(module, try_suffixes=(".weight", ".bias")) for module in found.sizes
    }
    matrices = {t.name: t.shape.tolist() for t in reader.tensors if len(t.shape) == 2}
    there = {}
    for module, name in places.items():
        if f"{name}.weight" in matrices:
            columns, rows = matrices[f"{name}.weight"]  # GGUF counts them from the inside
            there[module] = (rows, columns)
    found.check(model.name, there)

    writer = GGUFWriter(target, architecture, endianess=GGUFEndian.LITTLE)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    # llama.cpp multiplies by alpha / rank, whatever PEFT multiplies by: B makes up for the rest. Of
    # an alpha of 0 it thinks that there is none.
    alpha = found.alpha or 1.0
    writer.add_float32("adapter.lora.alpha", alpha)
    for key, tensor in load_file(adapter / peft_adapter.WEIGHTS).items():
        module, _, part = key.removeprefix(peft_adapter.PREFIX).rpartition(".lora_")
        if module not in found.sizes:  # of a layer that is not to be changed
            continue
        values = tensor.float().numpy()
        rank = found.sizes[module]["A"][0]
        if part.startswith("B"):
            values = values * (found.scales[module] * rank / alpha)
        kind = places[module].rsplit(".", 1)[-1]
        if part.startswith("B") and architecture in PERMUTED and kind in heads:
            values = _permuted(values, heads[kind])
        writer.add_tensor(f"{places[module]}.weight.lora_{part[0].lower()}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _names(architecture: str, layers: int) -> Any:
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    by_name = {name: arch for arch, name in MODEL_ARCH_NAMES.items()}
    return get_tensor_name_map(by_name[architecture], layers)


def _permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of shape (heads * width, rank), from halves of a head to pairs, as llama.cpp rotates."""
    total, rank = rows.shape
    return rows.reshape(heads, 2, total // heads // 2, rank).swapaxes(1, 2).reshape(total, rank)
