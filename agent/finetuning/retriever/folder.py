"""What a trained retriever's folder holds: an adapter or a whole model, its record, its curve.

Owns the files' names and their order. Knows nothing of how training went, nor of how the result
does.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from agent.finetuning import run
from index_store import lora
from index_store.disk import sync, write_text
from index_store.embedding import RECORD

CARD = "README.md"
NDCG = {  # ours, and sentence-transformers' for it
    "nDCG@10": "eval_sequential_score",
    "nDCG@10_same_label": "eval_same_label_cosine_ndcg@10",
    "nDCG@10_own_reply": "eval_own_reply_cosine_ndcg@10",
}


def points(history: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Steps, losses and held-out figures of the trainer's own log."""
    names = {"step": "step", "loss": "loss", **NDCG}
    return [
        {ours: round(entry[theirs], 4) for ours, theirs in names.items() if theirs in entry}
        for entry in history
        if "loss" in entry or "eval_sequential_score" in entry
    ]


def unmeasured(output: Path, record: dict[str, Any]) -> dict[str, Any] | None:
    """What the record of the run that began with `record` holds, if it is there and no card yet."""
    if (output / CARD).exists() or not (output / RECORD).exists():
        return None
    whole: dict[str, Any] = json.loads((output / RECORD).read_text("utf-8"))
    return whole if whole | record == whole else None


def save(output: Path, model: Any, base: str, record: dict[str, Any]) -> None:
    """Write the model and its curve."""
    run.draw(record["history"], output / run.CURVE, "loss (nats), nDCG@10")
    if record["recipe"]["rank"]:
        _save_adapter(output, model, base)
    else:
        model.save_pretrained(str(output), create_model_card=False)


def finish(output: Path, record: dict[str, Any]) -> None:
    """Write the record, with which the run is finished: the checkpoints are of no use any more."""
    write_text(output / RECORD, json.dumps(record, indent=2) + "\n")
    shutil.rmtree(output / run.CHECKPOINTS, ignore_errors=True)


def write_card(output: Path, record: dict[str, Any], before_and_after: str) -> None:
    """README.md: what was trained on what, and what it finds; the last is Markdown."""
    recipe, rows = record["recipe"], record["rows"]
    what = f"a LoRA of rank {recipe['rank']}" if recipe["rank"] else "all weights"
    letters = (
        f"; {record['letters']} letters more to learn from, {record['letters_held_out']} held out"
        if record["letters"]
        else ""
    )
    label = f"labels of the column `{record['label']}` ({record['labels']})"
    shares = f"{recipe['scale']:.0%} of what was learned is kept in the weights"
    text = f"""# {output.resolve().name}

An embedding model for medraft's index of doctors' replies: {what} on {record["model"]}.

    MEDRAFT_EMBED_MODEL={output}

| | |
|---|---|
| data | {record["source"]}: {rows["train"]} dialogues to learn from, {rows["validation"]} to stop \
by, {rows["test"]} held out{letters}; {label if record["label"] else "no labels"} |
| training | {record["steps"]} steps of {recipe["batch_size"]} pairs, learning rate \
{recipe["learning_rate"]}, {record["minutes"]} minutes on {record["device"]} \
({record["threads"]} threads, {record["precision"]}); {shares} |
| best held-out nDCG@10 | {record["best_ndcg"]:.3f} at step {record["best_step"]}, \
{record["history"][0]["nDCG@10"]:.3f} before |

![The run](loss.png)

`training.json` holds every setting, the versions, and a hash of the rows.

## Before and after

{before_and_after}
"""
    write_text(output / CARD, text.replace("\\\n", ""))


def _save_adapter(output: Path, model: Any, base: str) -> None:
    """The adapter in 16 bits, into place file by file, the one that makes it an adapter last."""
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    inner = model.transformers_model
    config = inner.peft_config["default"]
    config.base_model_name_or_path = base
    config.inference_mode = True
    # The embeddings are not trained; unless told so, PEFT asks the Hub whether they were.
    learned = get_peft_model_state_dict(inner, save_embedding_layers=False)
    weights = {
        lora.PREFIX + name.removeprefix(lora.PREFIX): tensor.to(torch.float16).contiguous()
        for name, tensor in learned.items()
    }
    making = output / ".saving"
    config.save_pretrained(str(making))
    save_file(weights, making / lora.WEIGHTS)
    for file in (lora.WEIGHTS, lora.CONFIG):
        sync(making / file)
        (making / file).replace(output / file)
    shutil.rmtree(making)
