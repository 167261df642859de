"""Train the encoder on the labelled messages in `data/`: a LoRA on MiniLM, and the heads.

    medraft train-encoder --output my-encoder

Owns the examples' form, what is made of them (joined and varied messages), the fit and its record.
Does not know what thresholds the verdicts have.

A row has a `text`, and of `degree`, `kind`, `topic` and `stands` (agent.understanding.labels) what
is known; `topic` may be "unhealthy": any but health. With `before`, messages of {"role",
"content"}, it goes on from them.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

from agent.errors import AgentError
from agent.understanding.encoder import HEAD_WEIGHTS, RECORD
from agent.understanding.labels import HEADS, Said
from agent.understanding.network import Network, batch, windows
from index_store import lora, minilm
from index_store.disk import make_whole, write_text

DATA = Path(__file__).parent / "data"
OLD = ("triage", "triage_dev", "router", "router_dev")  # short messages of an earlier hand
Row = dict[str, Any]


@dataclass(frozen=True)
class Training:
    """How long and how fast; a step sees up to `tokens` tokens."""

    epochs: int = 3
    rank: int = 32
    learning_rate: float = 5e-4
    head_learning_rate: float = 2e-3
    tokens: int = 1536
    spanish: int = 2  # times an epoch sees a Spanish message: MiniLM knows English
    seed: int = 0


def examples(folder: Path = DATA) -> list[Row]:
    """All labelled messages."""
    return [
        json.loads(line)
        for path in sorted(folder.glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


def said(row: Row) -> Said:
    """A row as the encoder reads it."""
    return Said.last_of([*row.get("before", []), {"role": "user", "content": row["text"]}])


def epoch(rows: Sequence[Row], how: Training, chance: random.Random) -> list[Row]:
    """The rows of one pass, and what is made of them: two messages as one, an emergency within a
    letter about something else, slips of the keyboard."""
    seen = [*rows]
    seen += [row for row in rows if row["language"] == "es"] * (how.spanish - 1)
    for language in ("en", "es"):
        single = [
            r for r in rows if r["language"] == language and "degree" in r and "before" not in r
        ]
        short = [r for r in single if r.get("length") != "letter"]
        urgent = [r for r in short if r["degree"] == "now"]
        calm = [r for r in short if r["degree"] == "none"]
        letters = [r for r in single if r.get("length") == "letter"]
        plain = [r for r in letters if r["degree"] == "none" and r.get("topic") == "health"]
        for _ in range(len(urgent) // 4):
            other = chance.choice(calm)
            seen.append(_joined([other, chance.choice(urgent)], chance))
            seen.append(_joined([other, chance.choice(calm)], chance))
        for _ in range(len(plain) // 2):
            seen.append(_inserted(chance.choice(plain), chance.choice(urgent), chance))
            seen.append(_inserted(chance.choice(plain), chance.choice(calm), chance))
    chance.shuffle(seen)
    return [{**row, "text": _slipped(row["text"], chance)} for row in seen]


def fit(
    rows: Sequence[Row],
    how: Training,
    told: Callable[[str], None] = print,
    after: Callable[[Network, Any, int], None] | None = None,
) -> tuple[Network, Any]:
    """The trained network, its encoder a PEFT model, and the tokenizer."""
    from peft import LoraConfig, get_peft_model
    from transformers import get_cosine_schedule_with_warmup

    torch.manual_seed(how.seed)
    chance = random.Random(how.seed)
    tokenizer, encoder = minilm.load()
    modules = ["query", "key", "value", "dense"]
    # MiniLM's own dropout is enough; another below each LoRA takes a fifth of the time.
    adapter = LoraConfig(r=how.rank, lora_alpha=2 * how.rank, target_modules=modules)
    network = Network(get_peft_model(encoder, adapter))
    learned = [p for p in network.encoder.parameters() if p.requires_grad]
    above = [p for name, p in network.named_parameters() if not name.startswith("encoder.")]
    optimizer = torch.optim.AdamW(
        [
            {"params": learned, "lr": how.learning_rate},
            {"params": above, "lr": how.head_learning_rate},
        ],
        weight_decay=0.01,
    )
    epochs = [list(_batches(epoch(rows, how, chance), tokenizer, how)) for _ in range(how.epochs)]
    steps = sum(map(len, epochs))
    schedule = get_cosine_schedule_with_warmup(optimizer, min(100, steps // 10), steps)
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
            torch.nn.utils.clip_grad_norm_([*learned, *above], 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            running += (loss.item() - running) / min(step, 100)
            if step % 100 == 0:
                minutes = (time.time() - begun) / 60
                told(f"step {step} of {steps}, loss {running:.3f}, {minutes:.1f} minutes")
        network.eval()
        if after is not None:
            after(network, tokenizer, number)
    return network, tokenizer


def _joined(parts: list[Row], chance: random.Random) -> Row:
    """Two messages as one: as urgent as the more urgent of them."""
    most = max(parts, key=lambda row: HEADS["degree"].index(row["degree"]))
    chance.shuffle(parts)
    made: Row = {"text": chance.choice([". ", " ", "\n", ", "]).join(p["text"] for p in parts)}
    return made | {key: most[key] for key in ("degree", "kind") if key in most}


def _inserted(letter: Row, short: Row, chance: random.Random) -> Row:
    """A short message somewhere within a letter."""
    sentences = re.split(r"(?<=[.!?\n])\s+", letter["text"])
    place = chance.randrange(len(sentences) + 1)
    text = " ".join([*sentences[:place], short["text"].rstrip(".") + ".", *sentences[place:]])
    return {"text": text} | {key: short[key] for key in ("degree", "kind") if key in short}


def _slipped(text: str, chance: random.Random) -> str:
    """One text in three with a few letters lost, doubled or exchanged."""
    if chance.random() > 0.33:
        return text
    letters = list(text)
    for _ in range(max(1, len(letters) // 80)):
        place = chance.randrange(len(letters))
        match chance.randrange(3):
            case 0:
                letters[place] = ""
            case 1:
                letters[place] *= 2
            case 2 if place + 1 < len(letters):
                letters[place], letters[place + 1] = letters[place + 1], letters[place]
    return "".join(letters) or text


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
    for name, weight in (("degree", 1.0), ("kind", 1.0), ("topic", 1.0), ("stands", 0.2)):
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


def is_held_out(row: Row) -> bool:
    """Whether a letter or turn is left for validation: one in ten, by its words."""
    return row["author"] not in OLD and crc32(row["text"].encode()) % 10 == 0


def train(how: Training, output: Path, told: Callable[[str], None] = print) -> dict[str, Any]:
    """Fit, measure on the rows held out after each epoch, write the encoder; returns its record.

    Raises AgentError if `output` cannot be written.
    """
    rows = examples()
    learned = [row for row in rows if not is_held_out(row)]
    held_out = [row for row in rows if is_held_out(row)]
    record: dict[str, Any] = {"training": asdict(how), "rows": len(learned), "epochs": []}
    begun = time.time()

    def after(network: Network, tokenizer: Any, number: int) -> None:
        losses = _losses(network, tokenizer, held_out, how)
        record["epochs"].append(losses)
        told(f"epoch {number + 1}: held-out loss {losses}")

    network, _ = fit(learned, how, told, after)
    record["minutes"] = round((time.time() - begun) / 60, 1)
    write(network, record, output)
    return record


def write(network: Network, record: dict[str, Any], output: Path) -> None:
    """The LoRA as PEFT writes it, the heads, and the record. Raises AgentError."""
    heads = {k: v for k, v in network.state_dict().items() if not k.startswith("encoder.")}
    model: Any = network.encoder
    model.peft_config["default"].base_model_name_or_path = "all-MiniLM-L6-v2"
    try:
        with TemporaryDirectory() as temporary:
            model.save_pretrained(temporary)
            for name in (lora.CONFIG, lora.WEIGHTS):
                make_whole(output / name, partial(copyfile, Path(temporary) / name))
        make_whole(output / HEAD_WEIGHTS, lambda target: save_file(heads, target))
        write_text(output / RECORD, json.dumps(record, indent=1) + "\n")
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
