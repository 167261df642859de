"""A LoRA adapter as PEFT saves it: what it is, and whether it fits a model, before either loads.

Owns the reading of its two files and the sentences for what is wrong with them. Knows nothing of
engines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import AgentError
from index_store.errors import first_sentence

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."


@dataclass(frozen=True)
class Lora:
    """An adapter's settings, and by module the sizes (rank, in) of A and (out, rank) of B."""

    folder: Path
    alpha: float
    sizes: dict[str, dict[str, tuple[int, int]]]

    def check(self, model: str, linear: Mapping[str, tuple[int, int]]) -> None:
        """Raise AgentError unless `linear`, the (out, in) of a model's modules, has room for it."""
        for module, sizes in self.sizes.items():
            if module not in linear:
                raise AgentError(
                    f"The adapter {self.folder} was not made for {model}, which has no {module}: "
                    "correct MEDRAFT_ADAPTER."
                )
            fits = (sizes["B"][0], sizes["A"][1])
            if fits != linear[module]:
                raise AgentError(
                    f"The adapter {self.folder} was not made for {model}: its {module} is "
                    f"{fits[0]} x {fits[1]}, the model's {linear[module][0]} x "
                    f"{linear[module][1]}. Correct MEDRAFT_ADAPTER."
                )


def read(folder: Path) -> Lora:
    """Read the head of the adapter in `folder`. Raises AgentError if it is no plain LoRA."""
    from safetensors import SafetensorError, safe_open

    if not ((folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()):
        raise AgentError(
            f"{folder} holds no LoRA adapter: {CONFIG} and {WEIGHTS} must be there. "
            "Correct MEDRAFT_ADAPTER."
        )
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        plain = config["peft_type"] == "LORA" and config.get("bias", "none") == "none"
        sizes: dict[str, dict[str, tuple[int, int]]] = {}
        with safe_open(folder / WEIGHTS, framework="numpy") as tensors:
            for name in tensors.keys():  # noqa: SIM118  # it is no dictionary
                module, _, part = name.removeprefix(PREFIX).rpartition(".lora_")
                plain = plain and part in ("A.weight", "B.weight")
                sizes.setdefault(module, {})[part[:1]] = tuple(tensors.get_slice(name).get_shape())
        alpha = float(config["lora_alpha"])
    except (ValueError, KeyError, TypeError, SafetensorError):
        raise AgentError(
            f"The adapter {folder} is damaged: {CONFIG} or {WEIGHTS} cannot be read."
        ) from None
    if not plain or config.get("use_dora"):
        raise AgentError(
            f"{folder} is no plain LoRA: the engines take one without DoRA and without bias, of "
            "linear layers only."
        )
    return Lora(folder, alpha, sizes)


def linear_modules(checkpoint: str) -> dict[str, tuple[int, int]]:
    """The (out, in) of each linear module of a transformers checkpoint, without its weights.

    Raises AgentError if the checkpoint is not to be had.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(checkpoint)
    except (OSError, ValueError) as error:
        raise AgentError(
            f"transformers cannot load {checkpoint}: {first_sentence(error)} Correct MEDRAFT_MODEL."
        ) from None
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    return {
        name: (module.out_features, module.in_features)
        for name, module in skeleton.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
