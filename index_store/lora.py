"""A LoRA on an embedding model: what it was made for, and its place in the weights.

Owns the reading of an adapter as PEFT saves it, and the sentences for one that is damaged or does
not fit. Does not know how the model below it is loaded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from index_store.errors import StoreError

if TYPE_CHECKING:
    from torch import nn

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # of a module's name, as PEFT saves it


def there(folder: Path) -> bool:
    """Whether a folder holds an adapter rather than a whole model."""
    return (folder / CONFIG).is_file()


def base(folder: Path) -> str:
    """The model that an adapter is for, as MEDRAFT_EMBED_MODEL names it. Raises StoreError."""
    try:
        name = _config(folder)["base_model_name_or_path"]
    except KeyError:
        raise _damaged(folder) from None
    if not isinstance(name, str) or Path(name).expanduser().resolve() == folder.resolve():
        raise _damaged(folder)
    return name


def merge(model: nn.Module, folder: Path) -> None:
    """Add the adapter in `folder` to the weights of the transformer that it was made for.

    Merged, it costs a search nothing. Raises StoreError if it is damaged or does not fit.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config, weights = _config(folder), dict(model.named_parameters())
    try:
        scale = config["lora_alpha"] / config["r"]
        lora = load_file(folder / WEIGHTS)
        with torch.no_grad():
            for name, down in lora.items():
                module, _, part = name.removeprefix(PREFIX).rpartition(".lora_")
                if part == "A.weight":
                    up = lora[name.replace(".lora_A.", ".lora_B.")]
                    weights[f"{module}.weight"].add_(up.float() @ down.float(), alpha=scale)
    except (OSError, TypeError, SafetensorError):
        raise _damaged(folder) from None
    except (KeyError, RuntimeError):
        raise StoreError(
            f"The adapter {folder} was not made for {config.get('base_model_name_or_path')}: train "
            "it again with `medraft finetune retriever`, or correct MEDRAFT_EMBED_MODEL."
        ) from None


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise _damaged(folder) from None
    if not isinstance(config, dict):
        raise _damaged(folder)
    return config


def _damaged(folder: Path) -> StoreError:
    return StoreError(
        f"The adapter {folder} is damaged: {CONFIG} or {WEIGHTS} cannot be read. Train it again "
        "with `medraft finetune retriever`, or correct MEDRAFT_EMBED_MODEL."
    )
