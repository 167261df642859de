"""A LoRA on an embedding model: what it was made for, and its place in the weights.

Owns the reading of an adapter as PEFT saves it, and the sentences for one that is damaged or does
not fit. Does not know how the model below it is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from index_store.errors import StoreError

if TYPE_CHECKING:
    import numpy as np
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

    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, learned in deltas(folder, {name: tuple(w.shape) for name, w in weights.items()}):
            weights[name].add_(torch.from_numpy(learned).to(weights[name].device))


def deltas(
    folder: Path, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """What is to be added to which weights of a transformer whose weights have `shapes`; float32.

    Raises StoreError if the adapter is damaged, or was made for another transformer.
    """
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    config = _config(folder)
    try:
        scale = np.float32(config["lora_alpha"] / config["r"])
        lora = load_file(folder / WEIGHTS)
        for name, down in lora.items():
            module, _, part = name.removeprefix(PREFIX).rpartition(".lora_")
            if part == "A.weight":
                up = lora[name.replace(".lora_A.", ".lora_B.")]
                learned = scale * (up.astype(np.float32) @ down.astype(np.float32))
                if shapes[f"{module}.weight"] != learned.shape:
                    raise _of_another(folder, config)
                yield f"{module}.weight", learned
    except (OSError, TypeError, SafetensorError):
        raise _damaged(folder) from None
    except (KeyError, ValueError):
        raise _of_another(folder, config) from None


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise _damaged(folder) from None
    if not isinstance(config, dict):
        raise _damaged(folder)
    return config


def _of_another(folder: Path, config: dict[str, Any]) -> StoreError:
    return StoreError(
        f"The adapter {folder} was not made for {config.get('base_model_name_or_path')}: train it "
        "again with `medraft finetune retriever`, or correct MEDRAFT_EMBED_MODEL."
    )


def _damaged(folder: Path) -> StoreError:
    return StoreError(
        f"The adapter {folder} is damaged: {CONFIG} or {WEIGHTS} cannot be read. Train it again "
        "with `medraft finetune retriever`, or correct MEDRAFT_EMBED_MODEL."
    )
