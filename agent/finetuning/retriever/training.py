"""Training a retriever on a data set's pairs: sentence-transformers' trainer, PEFT's LoRA.

    medraft finetune retriever --label condition --output my-retriever

Owns how model, trainer and pairs are set up for a run, and what a run follows from. On CUDA, where
it takes bf16 or fp16, it has never run so far.

Knows nothing of what pairs are drawn (`pairs.py`), of what the finished folder holds (`folder.py`),
nor of how the result does in an index.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import AgentError
from agent.finetuning import run
from agent.finetuning.recipe import RetrieverRecipe
from agent.finetuning.retriever import folder, relevance
from agent.finetuning.retriever.pairs import Letter, Pair, Row, draw, questions
from index_store import lora
from index_store.device import device, is_full
from index_store.embedding import EMBEDDED, MINILM, load_embedding
from index_store.split import Split

if TYPE_CHECKING:
    from index_store.averaging import Averaging

PACKAGES = ("torch", "transformers", "sentence-transformers", "peft", "accelerate", "datasets")


def base_of(embed_model: str) -> str:
    """The model that is trained where MEDRAFT_EMBED_MODEL is `embed_model`.

    Raises AgentError for an adapter, upon which no other is trained.
    """
    if embed_model == EMBEDDED:
        return MINILM
    path = Path(embed_model).expanduser()
    if path.is_dir() and lora.there(path):
        raise AgentError(
            f"MEDRAFT_EMBED_MODEL is the adapter {embed_model}, and none is trained upon another: "
            f"set it to the model below it, {lora.base(path)}."
        )
    return embed_model


def train(
    base: str,
    parts: dict[Split, list[Row]],
    recipe: RetrieverRecipe,
    output: Path,
    *,
    letters: Sequence[Letter] = (),
    told: dict[str, Any],
) -> dict[str, Any]:
    """Train, or go on with a run that was killed; what `output` then holds is an embedding model.
    One that is trained and has no card yet is left as it is.

    `told` is recorded: where the rows came from. Returns what `training.json` holds. Raises
    AgentError if a setting is out of range, there are too few labels, `output` holds another
    run, or the GPU's memory is full; StoreError if the model does not load.
    """
    recipe.check()
    _check_labels(parts["train"], recipe)
    record = _record(base, parts, letters, recipe, told)
    if (trained := folder.unmeasured(output, record)) is not None:
        return trained
    from index_store.averaging import Averaging

    def trainer() -> Any:
        return _trainer(model, averaging, base, parts, letters, recipe, output / run.CHECKPOINTS)

    try:
        model = _to_learn(base, recipe)
        if recipe.tokens > (most := _positions(model)):
            raise AgentError(f"--tokens {recipe.tokens} is out of range: {base} reads {most}.")
        run.claim(output, record)
        tokens = model.max_seq_length
        averaging = Averaging(_learning(model), recipe.scale)
        made, went = run.through(trainer, output)
    except RuntimeError as error:
        if not is_full(error):
            raise
        raise AgentError(
            f"The GPU's memory is too small for {recipe.batch_size} pairs at once: close other "
            f"programs on it, or delete {output} and lower --batch-size or --tokens."
        ) from None
    record |= went | {
        "best_ndcg": made.state.best_metric,
        "best_step": made.state.best_global_step,
        "history": folder.points(made.state.log_history),
    }
    model.max_seq_length = tokens
    averaging.apply()
    folder.save(output, model, base, record)
    relevance.write(output, parts, letters)
    folder.finish(output, record)
    return record


def _check_labels(rows: Sequence[Row], recipe: RetrieverRecipe) -> None:
    labels = len({row.label for row in rows})
    needed = recipe.batch_size * (2 if recipe.negatives else 1)
    if labels < needed:
        raise AgentError(
            f"The --label has {labels} different values, and a batch of {recipe.batch_size} pairs "
            f"needs {needed}, because no label comes twice in one: give a finer one, a smaller "
            "--batch-size, or none."
        )


def _positions(model: Any) -> float:
    """How many tokens a model has learned a place for; infinity if it learns no places."""
    from torch.nn import Embedding

    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, Embedding):
            # Where there is a row for padding, as in RoBERTa, the first place is behind it.
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - first
    return math.inf


def _record(
    base: str,
    parts: dict[Split, list[Row]],
    letters: Sequence[Letter],
    recipe: RetrieverRecipe,
    told: dict[str, Any],
) -> dict[str, Any]:
    """Everything that a run follows from, and that must be the same to go on with one."""
    rows = hashlib.sha256()
    for row in (*parts["train"], *parts["validation"]):
        rows.update(f"{row.dialogue.id} {row.label}\n".encode())
    for letter in letters:
        rows.update(f"{letter}\n".encode())
    return {
        "model": base,
        "recipe": asdict(recipe),
        **told,
        "rows": {part: len(there) for part, there in parts.items()},
        "letters": sum(not letter.held_out for letter in letters),
        "letters_held_out": sum(letter.held_out for letter in letters),
        "labels": len({row.label for row in parts["train"] if row.named}),
        "sha256": rows.hexdigest(),
        "versions": {package: version(package) for package in PACKAGES},
    }


def _to_learn(base: str, recipe: RetrieverRecipe) -> Any:
    """The model whose weights, or whose new LoRA, the run changes."""
    import torch
    from peft import LoraConfig

    model = _in_32_bits(base)
    if recipe.rank:
        torch.manual_seed(recipe.seed)
        model.add_adapter(
            LoraConfig(
                r=recipe.rank,
                lora_alpha=2 * recipe.rank,
                lora_dropout=0.05,
                target_modules="all-linear",
                task_type="FEATURE_EXTRACTION",
            )
        )
    return model


def _learning(model: Any) -> list[Any]:
    """The weights that are kept in part: of a new LoRA, which is nothing before its first step,
    half of what it adds is half of its second factor."""
    return [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and ".lora_A." not in name
    ]


def _in_32_bits(base: str) -> Any:
    """The model, which to search in is loaded in 16 bits on CUDA: a step changes weights by less
    than these tell apart, and the scaler of fp16 takes none of them."""
    return load_embedding(base)._model.float()


def _trainer(
    model: Any,
    averaging: Averaging,
    base: str,
    parts: dict[Split, list[Row]],
    letters: Sequence[Letter],
    recipe: RetrieverRecipe,
    checkpoints: Path,
) -> Any:
    from sentence_transformers import SentenceTransformerTrainer as Trainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from transformers import EarlyStoppingCallback, PrinterCallback

    from agent.finetuning.progress import Progress
    from agent.finetuning.retriever.held_out import METRIC, HeldOut
    from agent.finetuning.retriever.loss import RankedAndKept, one_of_a_label
    from agent.finetuning.retriever.mining import mine

    learned = parts["train"]
    pairs = draw(learned, recipe, mine(model, learned) if recipe.negatives else {}, letters)
    old = _in_32_bits(base).eval() if recipe.kept else model
    tokens = model.max_seq_length
    asking = questions(parts["validation"], letters)
    evaluator = HeldOut(learned, parts["validation"], asking, tokens, averaging, recipe.seed)
    model.max_seq_length = old.max_seq_length = recipe.tokens
    numbers, on_cuda = run.precision(), device() == "cuda"
    steps = max(1, len(pairs) // recipe.batch_size)
    every = max(1, steps // recipe.evaluations)
    arguments = Arguments(
        output_dir=str(checkpoints),
        num_train_epochs=1,  # `pairs` has all rounds
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=max(1, steps // 20),
        weight_decay=0.01,
        batch_sampler=one_of_a_label,
        prompts={
            "anchor": model.prompts["query"],
            "positive": model.prompts["text"],
            "negative": model.prompts["text"],
        },
        dataloader_drop_last=True,
        bf16=numbers == "bf16",
        fp16=numbers == "fp16",
        use_cpu=not on_cuda,
        eval_strategy="steps",
        eval_on_start=True,
        eval_steps=every,
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model=f"eval_{METRIC}",
        greater_is_better=True,
        logging_steps=max(1, steps // 100),
        disable_tqdm=True,
        report_to="none",
        seed=recipe.seed,
        dataloader_pin_memory=on_cuda,
    )
    arguments._n_gpu = 1  # on several cards a batch would have as many times its pairs
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=_dataset(pairs),
        loss=RankedAndKept(model, old, recipe.kept),
        evaluator=evaluator,
        callbacks=[
            EarlyStoppingCallback(recipe.patience),
            Progress(f"eval_{METRIC}", "held-out nDCG@10"),
        ],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _dataset(pairs: Sequence[Pair]) -> Any:
    """As the trainer reads it: columns of texts, and the numbers of the labels in each row."""
    from datasets import Dataset

    from agent.finetuning.retriever.loss import LABELS

    numbers: dict[str, int] = {}
    rows = []
    for pair in pairs:
        row: dict[str, Any] = {"anchor": pair.anchor, "positive": pair.positive}
        labels = [pair.label]
        if pair.negative is not None:
            row["negative"] = pair.negative.text
            labels.append(pair.negative.label)
        row[LABELS] = [numbers.setdefault(label, len(numbers)) for label in labels]
        rows.append(row)
    return Dataset.from_list(rows)
