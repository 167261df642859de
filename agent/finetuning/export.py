"""An adapter in the forms that other programs read: GGUF for llama.cpp, a merged checkpoint.

Owns which model of MEDRAFT_MODEL's a form is made for or merged into, and the merging. Knows
nothing of training, nor of what a GGUF looks like inside (agent/llms/llama_cpp/lora.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from agent.errors import AgentError
from agent.llms import peft_adapter
from agent.llms.choice import decide
from agent.llms.llama_cpp import gguf_file
from agent.llms.llama_cpp.lora import write_gguf
from agent.settings import Settings
from index_store.disk import make_whole

Form = Literal["gguf", "checkpoint"]


def export(settings: Settings, adapter: Path, form: Form, target: Path) -> None:
    """Write `adapter` to `target`, for or merged into what MEDRAFT_MODEL means.

    Raises AgentError if `target` is there already, or the adapter does not fit.
    """
    if target.exists():
        raise AgentError(f"{target} is there already: give another --output, or delete it.")
    models = settings.home / "models"
    if form == "gguf":
        model = gguf_file.of(decide(settings, "llama_cpp").base, models)
        make_whole(target, lambda path: write_gguf(adapter, model, path))
    else:
        _, checkpoint = decide(settings, "huggingface").base.checkpoint(models)
        make_whole(target, lambda path: write_checkpoint(adapter, checkpoint, path))


def write_checkpoint(adapter: Path, checkpoint: str, target: Path) -> None:
    """Write the model at `checkpoint` with `adapter` merged into its weights, and its tokenizer.

    Raises AgentError if the adapter does not fit, or the checkpoint is not to be had.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    peft_adapter.read(adapter).check(checkpoint, peft_adapter.linear_modules(checkpoint))
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    merged: Any = PeftModel.from_pretrained(model, str(adapter))
    merged.merge_and_unload().save_pretrained(target)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(target)
