"""A transformers checkpoint: its tokenizer, and its weights as the machine likes them best.

Owns dtype, placement and quantization, and the sentences for what goes wrong before and while a
checkpoint loads. Knows nothing of adapters, nor of who answers with it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from agent.errors import AgentError
from agent.llms import auto, gpu
from agent.llms.choice import Choice, Weights
from agent.llms.sizes import BESIDE, Quantize, quantized, shape_of
from agent.settings import Settings
from index_store.device import is_full, usable
from index_store.errors import first_sentence


@dataclass(frozen=True)
class Checkpoint:
    """A directory or a Hub name (`source`), and the setting that names it."""

    name: str
    source: str
    setting: str
    quantize: Quantize

    @cached_property
    def tokenizer(self) -> Any:
        """Raises AgentError if it is not to be had."""
        try:
            return AutoTokenizer.from_pretrained(self.source)
        except Exception as error:
            raise AgentError(self._why(error)) from None

    def load(self) -> Any:
        """The model, ready to answer: seconds on a CPU, a minute for 8B on a GPU.

        Raises AgentError if it is not to be had, what `is_full` knows if it does not fit.
        """
        try:
            return loaded(self.source, self.quantize, _dtype()).eval()
        except Exception as error:
            if is_full(error):
                raise
            raise AgentError(self._why(error)) from None

    def has_room(self) -> bool:
        """Whether the GPU has room for its weights now, asked before they load."""
        if not torch.cuda.is_available():
            return True
        return shape_of(self.source).weights(self.quantize) + BESIDE <= sum(_free().values())

    def _why(self, error: Exception) -> str:
        """A sentence from what transformers raised, which wraps what the Hub client raised."""
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
        )
        from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # what it raises

        causes = list(_causes(error))
        answers = [cause for cause in causes if isinstance(cause, HfHubHTTPError)]
        if any(isinstance(answer, GatedRepoError) for answer in answers):
            return (
                f"The Hub gives {self.name} only to those who have accepted its terms: do so at "
                f"https://huggingface.co/{self.source}, then log in with `hf auth login`, or "
                "correct HF_TOKEN if it is set."
            )
        if any(isinstance(answer, RepositoryNotFoundError) for answer in answers):
            return (
                f"The Hub has no model {self.name}, or it is private: correct {self.setting}, or "
                "log in with `hf auth login`."
            )
        if any(answer.response.status_code in (401, 403) for answer in answers):
            return (
                f"The Hub does not take the token for {self.name}: log in with `hf auth login`, "
                "and correct HF_TOKEN if it is set."
            )
        away = (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.TransportError)
        if any(isinstance(cause, away) for cause in causes):
            return (
                f"The Hub cannot be reached, and {self.name} is not on this machine: mend the "
                f"connection, or let {self.setting} name a folder that holds the model."
            )
        said = first_sentence(error)
        return f"transformers cannot load {self.name}: {said} Correct {self.setting}."


def loaded(source: str, quantize: Quantize, dtype: torch.dtype) -> Any:
    """The model, all of it on the GPU if there is one: to answer, or to train. One that is
    quantized on the disk stays as it is.

    Raises what transformers raises, and what `is_full` knows if it does not fit.
    """
    try:
        if quantize != "none" and quantized(source):
            quantize = "none"
        placement = _placement(quantize, dtype)
        model = AutoModelForCausalLM.from_pretrained(source, **placement)
    except ValueError as error:
        if "dispatched on the CPU or the disk" in str(error):  # what bitsandbytes refuses
            raise torch.cuda.OutOfMemoryError from None
        raise
    # What several cards have no room for is left on the disk, from where each token of an answer
    # would take seconds, and nothing can be trained.
    on_gpu = (parameter.device.type == "cuda" for parameter in model.parameters())
    if torch.cuda.is_available() and not all(on_gpu):
        raise torch.cuda.OutOfMemoryError
    return model


def precision(sources: Sequence[str], choice: Choice, settings: Settings) -> Quantize:
    """That of the weights: the choice's, or what fits of checkpoints whose shape is known now.

    Raises AgentError if nothing fits, before the weights are downloaded.
    """
    if choice.quantize != "auto":
        return choice.quantize
    if not torch.cuda.is_available():
        return "none"
    shapes = [shape_of(source) for source in sources]
    taken, why = auto.taken_precision(choice.base.name, shapes, settings)
    if taken is None:
        raise AgentError(f"{auto.too_large(choice.base.name, shapes[0], settings)}.")
    auto.tell(why)
    return taken


def check(base: Weights, quantize: str) -> None:
    """Refuse at once what this machine cannot do. Raises AgentError."""
    # The embedded model runs on a CPU as well; whoever asks for it by name may have it so.
    trouble = gpu.trouble()
    if trouble and (base.auto or not base.embedded or torch.cuda.is_available()):
        raise AgentError(trouble)
    if torch.cuda.is_available():
        if quantize in ("8bit", "4bit") and importlib.util.find_spec("bitsandbytes") is None:
            raise AgentError(
                f"MEDRAFT_QUANTIZE={quantize} needs bitsandbytes, which is not installed: run "
                '`pip install -e ".[gpu]"`, or unset it.'
            )
        return
    if quantize in ("8bit", "4bit"):
        raise AgentError(
            f"MEDRAFT_QUANTIZE={quantize} needs a CUDA GPU, and there is none here: unset it."
        )


def _dtype() -> torch.dtype:
    """That of weights which answer."""
    if not torch.cuda.is_available():
        return torch.float32
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16


def _free() -> dict[int, int]:
    """Bytes that each card has free, with what torch holds in reserve there."""
    cuda = torch.cuda
    return {
        n: cuda.mem_get_info(n)[0] + cuda.memory_reserved(n) - cuda.memory_allocated(n)
        for n in usable()
    }


def _placement(quantize: Quantize, dtype: torch.dtype) -> dict[str, Any]:
    placement: dict[str, Any] = {"dtype": dtype}
    if not torch.cuda.is_available():
        return placement
    # Left to itself, transformers would use 90 % of one card, of which a quantized model gets 90 %
    # again, and put the rest on the CPU.
    free = _free()
    if len(free) > 1:
        placement |= {"device_map": "auto", "max_memory": free}
    else:
        placement["device_map"] = {"": 0}
    if quantize == "8bit":
        placement["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
    elif quantize == "4bit":
        placement["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return placement


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
