"""Training a LoRA adapter on files of examples: TRL's SFTTrainer and PEFT.

Owns how model, trainer and examples are set up for a run. The loss counts the answer alone, its
end-of-turn token included. LoRA as vLLM takes it: no DoRA, no bias, a rank of 16 at most. The same
code trains SmolLM2 on a CPU and Llama 3 8B on CUDA, where bf16 or fp16, gradient checkpointing and
4 bits are settings of its own; that part has never run on a GPU so far.

Knows nothing of what the examples hold, of a run's folder (`run.py`), nor of serving.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from agent.errors import AgentError
from agent.finetuning import run
from agent.finetuning.prepare import TRAIN, VALIDATION
from agent.finetuning.recipe import Training
from agent.llms import gpu
from agent.llms.choice import decide
from agent.llms.interface import END_TOKENS
from agent.settings import Settings
from index_store.device import device, is_full
from index_store.errors import StoreError, first_sentence
from index_store.lines import json_lines

SCALED = ("logits_scaling", "logit_scale", "final_logit_softcapping")  # in a config.json
PADDING = ("<|finetune_right_pad_id|>", "<|reserved_special_token_0|>", "<|endoftext|>", "<pad>")


def check(training: Training, examples: Path) -> None:
    """Refuse at once what would fail later. Raises AgentError."""
    training.check()
    for name in (TRAIN, VALIDATION):
        if not (examples / name).is_file():
            raise AgentError(
                f"There is no {name} in {examples}: make it with `medraft finetune examples "
                f"--output {examples}`."
            )
    # The model may be spread over all the cards that torch sees.
    if (trouble := gpu.trouble(every=True)) is not None:
        raise AgentError(trouble)
    if training.four_bit and device() == "cpu":
        raise AgentError("--four-bit needs a CUDA machine: leave it out on this one.")
    if training.four_bit and importlib.util.find_spec("bitsandbytes") is None:
        raise AgentError(
            "--four-bit needs bitsandbytes, which is not installed: run "
            '`pip install -e ".[gpu]"`, or leave it out.'
        )
    for name in (TRAIN, VALIDATION):
        _rows(examples / name)


def check_reporter(name: str) -> None:
    """Raise AgentError unless transformers can report to it here."""
    from transformers.integrations.integration_utils import (
        INTEGRATION_TO_CALLBACK,
        get_available_reporting_integrations,
    )

    if name == "none" or name in get_available_reporting_integrations():
        return
    if name not in INTEGRATION_TO_CALLBACK:
        known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
        raise AgentError(f"transformers cannot report to {name!r}: --report-to takes {known}.")
    raise AgentError(
        f"{name} is not installed: pip install {name}, or leave --report-to {name} out."
    )


def train(
    settings: Settings,
    training: Training,
    examples: Path,
    output: Path,
    report_to: str = "none",
) -> dict[str, Any]:
    """Train, or go on with a run that was killed; the adapter lies in `output` afterwards.

    Loss and learning rate go to `report_to` as well, by its own variables: what transformers knows.

    Returns what `training.json` holds. Raises AgentError if a setting is out of range, the
    examples are missing, the model does not load, or `output` holds another run.
    """
    check(training, examples)
    check_reporter(report_to)
    name, checkpoint = decide(settings, "huggingface").base.checkpoint(settings.home / "models")
    record = run.record_of(name, training, examples)
    run.claim(output, record)

    def trainer() -> Any:
        return _trainer(checkpoint, training, examples, output / run.CHECKPOINTS, report_to)

    try:
        made, went = run.through(trainer, output)
    except RuntimeError as error:
        if not is_full(error):
            raise
        smaller = "" if training.four_bit else "add --four-bit, "
        raise AgentError(
            f"The GPU's memory is too small for {training.at_once} examples of {name} at once: "
            f"close other programs on it, lower --at-once, {smaller}or choose a smaller "
            f"MEDRAFT_MODEL. To begin anew, delete {output}."
        ) from None

    record |= went | {
        "best_validation_loss": made.state.best_metric,
        "best_step": made.state.best_global_step,
        "history": run.points(made.state.log_history),
    }
    run.finish(output, made.model, name, record)
    return record


def _trainer(
    checkpoint: str,
    training: Training,
    examples: Path,
    checkpoints: Path,
    report_to: str = "none",
) -> Any:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import EarlyStoppingCallback, PrinterCallback
    from trl.trainer.sft_config import SFTConfig

    from agent.finetuning.progress import Progress
    from agent.finetuning.trainer import AnswerTrainer

    rows = {name: _rows(examples / name) for name in (TRAIN, VALIDATION)}
    steps = max(1, round(len(rows[TRAIN]) / training.batch_size * training.epochs))
    every = max(1, steps // training.evaluations)
    numbers = run.precision()
    on_cuda = torch.cuda.is_available()
    arguments = SFTConfig(
        output_dir=str(checkpoints),
        num_train_epochs=training.epochs,
        per_device_train_batch_size=training.at_once,
        per_device_eval_batch_size=training.at_once,
        gradient_accumulation_steps=training.batch_size // training.at_once,
        learning_rate=training.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, steps // 20),
        train_sampling_strategy="group_by_length",
        max_length=None,  # an example cut short would be one that never ends
        completion_only_loss=True,
        bf16=numbers == "bf16",
        fp16=numbers == "fp16",
        use_cpu=not on_cuda,
        gradient_checkpointing=on_cuda,
        eval_strategy="steps",
        eval_on_start=True,
        eval_steps=every,
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        logging_steps=max(1, steps // 100),
        disable_tqdm=True,
        report_to=report_to,
        seed=training.seed,
        dataloader_pin_memory=on_cuda,
    )
    model, tokenizer = _model(checkpoint, numbers, training.four_bit)
    trainer = AnswerTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows[TRAIN]),
        eval_dataset=Dataset.from_list(rows[VALIDATION]),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=training.rank,
            lora_alpha=2 * training.rank,
            target_modules="all-linear",
            bias="none",
            task_type="CAUSAL_LM",
        ),
        callbacks=[EarlyStoppingCallback(training.patience), Progress()],
    )
    trainer.remove_callback(PrinterCallback)
    # TRL casts the adapter of a quantized model to bf16, which a card without bf16 does not train.
    adapted: Any = trainer.model
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    ends = {tokenizer.convert_tokens_to_ids(token) for token in END_TOKENS}
    prepared: Any = trainer.train_dataset
    if not ends & set(prepared[0]["labels"][-2:]):
        raise AgentError(
            f"The chat template of {checkpoint} ends no answer with a token that its engine stops "
            f"at ({', '.join(END_TOKENS)}): a model trained with it would never stop."
        )
    return trainer


def _model(checkpoint: str, precision: run.Precision, four_bit: bool) -> tuple[Any, Any]:
    import torch
    from transformers import AutoConfig, AutoTokenizer

    from agent.llms.huggingface.checkpoint import loaded

    low = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    try:
        config = AutoConfig.from_pretrained(checkpoint).get_text_config()
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        if any(getattr(config, name, None) not in (None, 1.0) for name in SCALED):
            raise AgentError(
                f"{checkpoint} scales what its head says (as Gemma 2, Granite and Cohere do), and "
                "`medraft finetune train` learns from it unscaled: name another MEDRAFT_MODEL."
            )
        # PEFT keeps the adapter itself in 32 bits.
        model = loaded(checkpoint, "4bit" if four_bit else "none", low)
    except (OSError, ValueError, ImportError) as error:
        raise AgentError(
            f"transformers cannot load {checkpoint}: {first_sentence(error)} "
            "Correct MEDRAFT_MODEL, or accept the model's terms on the Hub and log in with "
            "`hf auth login`."
        ) from None
    tokenizer.pad_token = _padding(tokenizer)
    return model, tokenizer


def _padding(tokenizer: Any) -> str:
    """A token to pad with that ends nothing: were it the end of turn, no answer would end."""
    vocabulary = tokenizer.get_vocab()
    for token in (tokenizer.pad_token, *PADDING):
        if token in vocabulary and token != tokenizer.eos_token:
            return token
    raise AgentError("This model's tokenizer has no token to pad with besides its end of turn.")


def _rows(path: Path) -> list[dict[str, Any]]:
    """Raises AgentError for a file that is empty, or a line that is no example."""
    anew = "Make it anew with `medraft finetune examples`."
    try:
        lines = [*json_lines(path)]
    except StoreError as error:
        raise AgentError(f"{error} {anew}") from None
    rows = []
    for number, row in lines:
        if not isinstance(row, dict) or not {"prompt", "completion"} <= row.keys():
            raise AgentError(f"Line {number} of {path} has no prompt and completion. {anew}")
        rows.append({"prompt": row["prompt"], "completion": row["completion"]})
    if not rows:
        raise AgentError(f"{path} is empty: give a larger data set as --source.")
    return rows
