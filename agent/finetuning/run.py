"""A training run: its folder, its numbers, its record, and what lies there at the end.

Owns its files' names, the order in which they come to be, and what a retriever's run has in common
with an LLM's. Knows nothing of what is trained, nor on what.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from agent.errors import AgentError
from agent.finetuning.prepare import SUMMARY, TRAIN, VALIDATION
from agent.finetuning.recipe import Training
from index_store.device import device, multiplies_bf16
from index_store.disk import sync, write_text

RECORD, CURVE, CHECKPOINTS = "training.json", "loss.png", "checkpoints"
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")


Precision = Literal["bf16", "fp16", "fp32"]


def precision() -> Precision:
    """The fastest that this machine multiplies natively and that training bears."""
    import torch

    if device() == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if multiplies_bf16() else "fp32"


def record_of(model: str, training: Training, examples: Path) -> dict[str, Any]:
    """Everything that a run follows from, and that must be the same to go on with one."""
    summary = examples / SUMMARY
    return {
        "model": model,
        "training": asdict(training),
        "examples": json.loads(summary.read_text("utf-8")) if summary.is_file() else None,
        "sha256": {
            name: hashlib.sha256((examples / name).read_bytes()).hexdigest()
            for name in (TRAIN, VALIDATION)
        },
        "versions": {package: version(package) for package in PACKAGES},
    }


def claim(output: Path, record: dict[str, Any]) -> None:
    """Make `output` this run's folder, unless another's is there already."""
    if (output / RECORD).exists():
        raise AgentError(f"{output} holds an adapter already: give another --output.")
    begun = output / CHECKPOINTS / "run.json"
    if not begun.exists():
        write_text(begun, json.dumps(record, indent=2))
    elif json.loads(begun.read_text("utf-8")) != record:
        raise AgentError(
            f"{output} holds a run that was begun with other settings or examples: give those "
            f"again, another --output, or delete {output}."
        )


def last_checkpoint(output: Path) -> Path | None:
    """The newest checkpoint that was written to its end, where the trainer's state comes last."""
    states = (output / CHECKPOINTS).glob("checkpoint-*/trainer_state.json")
    whole = [path.parent for path in states if _is_json(path)]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _is_json(path: Path) -> bool:
    """Whether it is there to its end: a run may have been killed while it was written."""
    try:
        json.loads(path.read_text("utf-8"))
    except ValueError:
        return False
    return True


def through(trainer: Callable[[], Any], output: Path) -> tuple[Any, dict[str, Any]]:
    """Make the trainer and let it train, from `output`'s last checkpoint if there is one; quietly,
    for what a run says is told by `progress`. The trainer, and what is recorded of how it went.
    """
    import datasets
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", category=FutureWarning)
    begun, last = time.monotonic(), last_checkpoint(output)
    made = trainer()
    if last is not None:  # what was measured there counts once, and so does patience
        made.args.eval_on_start = False
        made.args.restore_callback_states_from_checkpoint = True
    made.train(resume_from_checkpoint=str(last) if last else None)
    return made, {
        "precision": precision(),
        "device": torch.cuda.get_device_name() if device() == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "steps": made.state.global_step,
        "minutes": round((time.monotonic() - begun) / 60, 1),
        "resumed_from_step": int(last.name.rpartition("-")[2]) if last else None,
    }


def points(history: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Steps and losses of the trainer's own log."""
    return [_point(entry) for entry in history if "loss" in entry or "eval_loss" in entry]


def finish(output: Path, model: Any, base: str, record: dict[str, Any]) -> None:
    """Write adapter, curve and record, the checkpoints being of no use any more."""
    _save(model, base, output)
    draw(record["history"], output / CURVE, "loss of the answers' tokens (nats)")
    write_text(output / RECORD, json.dumps(record, indent=2) + "\n")
    shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)


def _point(entry: dict[str, Any]) -> dict[str, float]:
    names = {"step": "step", "loss": "loss", "eval_loss": "validation_loss"}
    return {ours: round(entry[theirs], 4) for theirs, ours in names.items() if theirs in entry}


def _save(model: Any, base: str, output: Path) -> None:
    """The adapter in 16 bits, into place file by file, the one that makes it an adapter last."""
    import torch

    model.peft_config["default"].base_model_name_or_path = base
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float16)
    folder = output / ".saving"
    # The embeddings are not trained; unless told so, PEFT asks the Hub whether they were.
    model.save_pretrained(folder, save_embedding_layers=False)
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        sync(folder / file)
        (folder / file).replace(output / file)
    shutil.rmtree(folder)


def draw(history: list[dict[str, float]], path: Path, what: str) -> None:
    """The curve as a picture: of each point all but its step; `what` is on the axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel=what, title="Training")
    for name in dict.fromkeys(key for entry in history for key in entry if key != "step"):
        points = [(entry["step"], entry[name]) for entry in history if name in entry]
        label = "training" if name == "loss" else name.replace("_", " ")
        axes.plot(*zip(*points, strict=True), label=label, marker="." if name != "loss" else None)
    axes.legend()
    axes.grid(alpha=0.3)
    temporary = path.with_suffix(".part")
    figure.savefig(temporary, format="png", dpi=110)
    sync(temporary)
    temporary.replace(path)
