"""A PEFT LoRA adapter as the GGUF file that llama.cpp loads beside its model.

Owns names and layout of the tensors. Knows nothing of training or serving. Layout as in
llama.cpp's convert_lora_to_gguf.py: for Llama, the rows of q and k are permuted per head as
llama.cpp permutes the weights themselves.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import AgentError
from agent.files import make_once

if TYPE_CHECKING:
    import numpy as np

PREFIX = "base_model.model."


def cached_gguf(adapter: Path, model: Path, folder: Path) -> Path:
    """`adapter` as a GGUF in `folder`, converted once for each content of the adapter.

    `model` is the GGUF that it was trained for. Raises AgentError if `adapter` is no LoRA.
    """
    config, weights = adapter / "adapter_config.json", adapter / "adapter_model.safetensors"
    if not (config.is_file() and weights.is_file()):
        raise AgentError(
            f"{adapter} holds no LoRA adapter: adapter_config.json and adapter_model.safetensors "
            "must be there. Correct MEDRAFT_ADAPTER."
        )
    content = hashlib.sha256(config.read_bytes() + weights.read_bytes()).hexdigest()[:16]
    target = folder / f"{adapter.resolve().name}-{content}.gguf"
    return make_once(target, lambda path: export(adapter, model, path))


def export(adapter: Path, model: Path, target: Path) -> None:
    """Write `adapter`, a PEFT directory, to `target`. Raises AgentError if it does not fit."""
    from gguf import GGUFReader, GGUFWriter
    from gguf.constants import GGUFEndian
    from safetensors.numpy import load_file

    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA" or config.get("use_dora") or config["bias"] != "none":
        raise AgentError(f"{adapter} is no plain LoRA (no DoRA, no bias), as llama.cpp needs.")
    reader = GGUFReader(model)
    architecture = reader.fields["general.architecture"].contents()
    heads = {
        "attn_q": reader.fields[f"{architecture}.attention.head_count"].contents(),
        "attn_k": reader.fields[f"{architecture}.attention.head_count_kv"].contents(),
    }
    layers = reader.fields[f"{architecture}.block_count"].contents()
    names = _names(architecture, layers)
    present = {tensor.name for tensor in reader.tensors}

    writer = GGUFWriter(target, architecture, endianess=GGUFEndian.LITTLE)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(config["lora_alpha"]))
    for key, values in load_file(adapter / "adapter_model.safetensors").items():
        module, _, part = key.removeprefix(PREFIX).rpartition(".lora_")
        name = names.get_name(module, try_suffixes=(".weight", ".bias"))
        if name is None or f"{name}.weight" not in present:
            raise AgentError(f"{adapter} was not made for {model.name}, which has no {module}.")
        values = values.astype("float32")
        kind = name.rsplit(".", 1)[-1]
        if part.startswith("B") and architecture == "llama" and kind in heads:
            values = _permuted(values, heads[kind])
        letter = "a" if part.startswith("A") else "b"
        writer.add_tensor(f"{name}.weight.lora_{letter}", values)
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
