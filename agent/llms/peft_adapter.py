"""A LoRA adapter as PEFT saves it: what it is, and whether it fits a model, before either loads.

Owns the reading of its two files and the sentences for what is wrong with them. Knows nothing of
engines.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import AgentError
from agent.llms.skeleton import skeleton

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
# Settings that make of an adapter more than a product of two matrices beside each linear layer.
BEYOND = (
    *("use_dora", "lora_bias", "modules_to_save", "layer_replication", "target_parameters"),
    *("trainable_token_indices", "alora_invocation_tokens", "use_qalora", "use_bdlora"),
    *("fan_in_fan_out",),
)
# Ways to begin a LoRA (or how their names begin) by which PEFT changes the base LLM's own weights.
CHANGES_BASE = ("pissa", "olora", "corda", "lora_ga", "loftq")


@dataclass(frozen=True)
class Lora:
    """An adapter's settings, and by module the sizes (rank, in) of A and (out, rank) of B, and what
    their product is multiplied by."""

    folder: Path
    alpha: float
    sizes: dict[str, dict[str, tuple[int, int]]]
    scales: dict[str, float]

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
        raise _damaged(folder, f"{CONFIG} or {WEIGHTS} cannot be read") from None
    more = [f" ({name} is set)" for name in BEYOND if config.get(name)]
    begun = str(config.get("init_lora_weights"))
    if begun.lower().startswith(CHANGES_BASE):
        more.append(f" (init_lora_weights is {begun}, which changes the base LLM, too)")
    if not plain or more:
        raise AgentError(
            f"{folder} is no plain LoRA{more[0] if more else ''}: the engines take one without "
            "DoRA and without bias, of linear layers only. Correct MEDRAFT_ADAPTER."
        )
    try:
        wanted = _layers(config, sizes)
        scales = {module: _scale(config, folder, module, sizes[module]) for module in wanted}
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, re.error):
        raise _damaged(folder, f"{CONFIG} or {WEIGHTS} cannot be read") from None
    if not wanted:
        raise _damaged(folder, f"{WEIGHTS} has none of the layers that {CONFIG} names")
    return Lora(folder, alpha, {module: sizes[module] for module in wanted}, scales)


def _damaged(folder: Path, told: str) -> AgentError:
    return AgentError(f"The adapter {folder} is damaged: {told}.")


def _layers(config: dict[str, Any], modules: Iterable[str]) -> list[str]:
    """The modules that PEFT gives weights to: those of `layers_to_transform`, if that is set."""
    layers = config.get("layers_to_transform")
    if layers is None or layers == []:
        return list(modules)
    wanted = {layers} if isinstance(layers, int) else set(layers)
    patterns = config.get("layers_pattern") or r"[^.]*"
    named = "|".join([patterns] if isinstance(patterns, str) else patterns)
    found = {module: re.match(rf"(?:.*?\.)?(?:{named})\.(\d+)\.", module) for module in modules}
    return [module for module, layer in found.items() if layer and int(layer[1]) in wanted]


def _scale(
    config: dict[str, Any], folder: Path, module: str, sizes: dict[str, tuple[int, int]]
) -> float:
    """What PEFT multiplies a module's B @ A by. Raises AgentError if its rank is not what the
    settings say."""
    rank = _of_module(config["r"], config.get("rank_pattern"), module)
    alpha = _of_module(config["lora_alpha"], config.get("alpha_pattern"), module)
    if not sizes["A"][0] == sizes["B"][1] == rank:
        told = f"{module} has rank {sizes['A'][0]}, and {CONFIG} says {rank}"
        raise _damaged(folder, told)
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _of_module(usual: float, patterns: Mapping[str, float] | None, module: str) -> float:
    if not patterns:
        return usual
    from peft.utils.other import get_pattern_key

    return patterns.get(get_pattern_key(list(patterns), module), usual)


def linear_modules(checkpoint: str) -> dict[str, tuple[int, int]]:
    """The (out, in) of each linear module of a transformers checkpoint, without its weights.

    Raises AgentError if the checkpoint is not to be had.
    """
    import torch

    return {
        name: (module.out_features, module.in_features)
        for name, module in skeleton(checkpoint).named_modules()
        if isinstance(module, torch.nn.Linear)
    }
