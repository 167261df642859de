"""Train the encoder on the labelled messages in `data/`: a LoRA on its transformer, and the heads.

    medraft train-encoder --output my-encoder
    medraft train-encoder --output my-encoder --begin-with agent/adapters/e5-small-messages

The second goes on from a trained one, to which there is more to be told.

Owns the fit and its record. Does not know where the examples come from, nor what thresholds the
verdicts have.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

from agent.errors import AgentError
from agent.understanding import base
from agent.understanding.encoder import HEAD_WEIGHTS, RECORD, SHIPPED
from agent.understanding.examples import Row, epoch, examples, is_held_out, said
from agent.understanding.labels import HEADS
from agent.understanding.network import Network, batch, windows
from index_store import lora
from index_store.averaging import Averaging
from index_store.disk import make_whole, write_text
from index_store.minilm import MiniLM

BASE = "intfloat/multilingual-e5-small"  # whose first layers `base` loads


@dataclass(frozen=True)
class Training:
    """How long and how fast; a step sees up to `tokens` tokens. `scale` is the share of what was
    learned that is kept (index_store/averaging.py). An epoch sees what the encoder that it goes on
    from misjudges `hard` times, and of the rest the share `easy`."""

    epochs: int = 3
    rank: int = 32
    learning_rate: float = 5e-4
    head_learning_rate: float = 2e-3
    tokens: int = 1536
    scale: float = 1.0
    hard: int = 1
    easy: float = 1.0
    seed: int = 0


GOING_ON = Training(epochs=1, scale=0.5, hard=3, easy=0.5)


def fit(
    rows: Sequence[Row],
    how: Training,
    told: Callable[[str], None] = print,
    after: Callable[[Network, Any, int], None] | None = None,
    earlier: Path | None = None,
) -> tuple[Network, Any]:
    """The trained network, its encoder a PEFT model, and the tokenizer; `earlier` holds the one
    that it goes on from. Raises AgentError if that cannot be read."""
    from transformers import get_cosine_schedule_with_warmup

    torch.manual_seed(how.seed)
    chance = random.Random(how.seed)
    tokenizer, encoder = base.load(SHIPPED)
    if earlier is None:
        network = _new(encoder, how)
    else:
        network = _trained(encoder, earlier)
        rows = _rows_to_see(network, tokenizer, rows, how, chance)
        told(f"{len(rows)} messages, of which some stand there more than once")
    learned = [p for p in network.encoder.parameters() if p.requires_grad]
    above = [p for name, p in network.named_parameters() if not name.startswith("encoder.")]
    optimizer = torch.optim.AdamW(
        [
            {"params": learned, "lr": how.learning_rate},
            {"params": above, "lr": how.head_learning_rate},
        ],
        weight_decay=0.01,
    )
    epochs = [list(_batches(epoch(rows, chance), tokenizer, how)) for _ in range(how.epochs)]
    steps = sum(map(len, epochs))
    schedule = get_cosine_schedule_with_warmup(optimizer, min(100, steps // 10), steps)
    weights = [*learned, *above]
    averaging = Averaging(weights, how.scale)
    begun, step = time.time(), 0
    for number, batches in enumerate(epochs):
        network.train()
        chance.shuffle(batches)
        running = 0.0
        for together, (ids, types) in batches:
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(ids, types)
            loss = _loss(logits, together)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            running += (loss.item() - running) / min(step, 100)
            if step % 100 == 0:
                minutes = (time.time() - begun) / 60
                told(f"step {step} of {steps}, loss {running:.3f}, {minutes:.1f} minutes")
        network.eval()
        if number + 1 == how.epochs:
            averaging.apply()
        if after is not None:
            after(network, tokenizer, number)
    return network, tokenizer


def _new(encoder: MiniLM, how: Training) -> Network:
    from peft import LoraConfig, get_peft_model

    modules = ["query", "key", "value", "dense"]
    # Without dropout, which takes a fifth of the time: no epoch sees a message as it was before.
    adapter = LoraConfig(r=how.rank, lora_alpha=2 * how.rank, target_modules=modules)
    return Network(get_peft_model(encoder, adapter))


def _trained(encoder: MiniLM, folder: Path) -> Network:
    from peft import PeftModel

    with _readable(folder):
        network = Network(PeftModel.from_pretrained(encoder, str(folder), is_trainable=True))
        network.take_heads(load_file(folder / HEAD_WEIGHTS))
    return network


def _rows_to_see(
    network: Network, tokenizer: Any, rows: Sequence[Row], how: Training, chance: random.Random
) -> list[Row]:
    """What an epoch is made of: what is misjudged so many times, and a share of the rest."""
    network.eval()
    seen: list[Row] = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for together, (ids, types) in _batches(rows, tokenizer, how):
            logits = network(ids, types)
            judged = {name: logits[name].argmax(-1).tolist() for name in HEADS}
            for place, row in enumerate(together):
                if any(
                    row.get(name) in labels and row[name] != labels[judged[name][place]]
                    for name, labels in HEADS.items()
                ):
                    seen += [row] * how.hard
                elif chance.random() < how.easy:
                    seen.append(row)
    return seen


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Raise AgentError for files of an earlier encoder that are missing or damaged."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise AgentError(
            f"{folder} holds no encoder to go on from ({type(error).__name__}): name a folder that "
            "`medraft train-encoder` has written."
        ) from None


def _batches(
    rows: Sequence[Row], tokenizer: Any, how: Training
) -> Iterator[tuple[list[Row], tuple[torch.Tensor, torch.Tensor]]]:
    """Rows of like length together. What is longer than a window is cut."""
    read = [(row, windows(tokenizer, said(row))[0]) for row in rows]
    for start in range(0, len(read), 2048):
        near = sorted(read[start : start + 2048], key=lambda pair: len(pair[1][0]))
        together: list[tuple[Row, Any]] = []
        for pair in near:
            if together and (len(together) + 1) * len(pair[1][0]) > how.tokens:
                yield [row for row, _ in together], batch([made for _, made in together])
                together = []
            together.append(pair)
        if together:
            yield [row for row, _ in together], batch([made for _, made in together])


def _loss(logits: dict[str, torch.Tensor], rows: Sequence[Row]) -> torch.Tensor:
    """The sum over the heads of the mean over the rows whose label is known."""
    total = torch.zeros(())
    for name, weight in (("degree", 1.0), ("kind", 1.0), ("topic", 1.0), ("stands", 0.5)):
        labels = HEADS[name]
        known = [i for i, row in enumerate(rows) if row.get(name) in labels]
        if known:
            targets = torch.tensor([labels.index(rows[i][name]) for i in known])
            total = total + weight * cross_entropy(
                logits[name][known], targets, label_smoothing=0.02
            )
    unhealthy = [i for i, row in enumerate(rows) if row.get("topic") == "unhealthy"]
    if unhealthy:
        topics = logits["topic"][unhealthy]
        others = [i for i, label in enumerate(HEADS["topic"]) if label != "health"]
        told = topics.logsumexp(-1) - topics[:, others].logsumexp(-1)
        total = total + told.sum() / len(rows)
    return total


def train(
    how: Training, output: Path, earlier: Path | None = None, told: Callable[[str], None] = print
) -> dict[str, Any]:
    """Fit, measure on the rows held out after each epoch, write the encoder; returns its record,
    which holds that of the one it went on from, too.

    Raises AgentError if `output` cannot be written, or `earlier` not be read.
    """
    rows = examples()
    learned = [row for row in rows if not is_held_out(row)]
    held_out = [row for row in rows if is_held_out(row)]
    record: dict[str, Any] = {"training": asdict(how), "rows": len(learned), "epochs": []}
    if earlier is not None:
        with _readable(earlier):
            record["after"] = json.loads((earlier / RECORD).read_text(encoding="utf-8"))
    with _written(output):  # what cannot be is told before the training
        output.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=output).close()
    begun = time.time()

    def after(network: Network, tokenizer: Any, number: int) -> None:
        losses = _losses(network, tokenizer, held_out, how)
        record["epochs"].append(losses)
        told(f"epoch {number + 1}: held-out loss {losses}")

    network, _ = fit(learned, how, told, after, earlier)
    record["minutes"] = round((time.time() - begun) / 60, 1)
    write(network, record, output)
    return record


def write(network: Network, record: dict[str, Any], output: Path) -> None:
    """The LoRA as PEFT writes it, the heads, and the record. Raises AgentError."""
    heads = {k: v for k, v in network.state_dict().items() if not k.startswith("encoder.")}
    model: Any = network.encoder
    model.peft_config["default"].base_model_name_or_path = BASE
    with _written(output):
        with TemporaryDirectory() as temporary:
            model.save_pretrained(temporary, save_embedding_layers=False)
            for name in (lora.CONFIG, lora.WEIGHTS):
                make_whole(output / name, partial(copyfile, Path(temporary) / name))
        make_whole(output / HEAD_WEIGHTS, lambda target: save_file(heads, target))
        write_text(output / RECORD, json.dumps(record, indent=1) + "\n")


@contextmanager
def _written(output: Path) -> Iterator[None]:
    """Raise AgentError for a folder that cannot be written to."""
    try:
        yield
    except OSError as error:
        raise AgentError(f"{output} cannot be written ({error.strerror}).") from None


def _losses(
    network: Network, tokenizer: Any, rows: Sequence[Row], how: Training
) -> dict[str, float]:
    """The mean loss of each head over the rows whose label it knows."""
    sums: defaultdict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    with torch.inference_mode():
        for together, (ids, types) in _batches(rows, tokenizer, how):
            logits = network(ids, types)
            for name, labels in HEADS.items():
                for place, row in enumerate(together):
                    if row.get(name) in labels:
                        target = torch.tensor(labels.index(row[name]))
                        sums[name] += cross_entropy(logits[name][place], target).item()
                        counts[name] += 1
    return {name: round(sums[name] / counts[name], 4) for name in HEADS if counts[name]}
