"""What `auto` takes on a machine with CUDA: by what its card has free, and by what may be had.

Owns the ladder (Llama 3 8B in 16 bits, in 4, a GGUF of it in llama.cpp, the embedded model), and
the line that says what was taken and why. Downloads nothing, and loads nothing.

Why not 8 bits between 16 and 4: they decode at less than half the speed of 4 bits for one chat, by
bitsandbytes' own figures (docs/engines.md). MEDRAFT_QUANTIZE=8bit takes them.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.errors import AgentError
from agent.llms import gpu
from agent.llms.sizes import LLAMA_3_8B, Quantize, Shape, gib
from agent.settings import Settings
from index_store.errors import reason

NAME = "Llama 3 8B"
CUDA_MODEL = "meta-llama/Meta-Llama-3-8B-Instruct"
# One file of it in 4 bits (4.6 GiB), to be had without an account.
CUDA_GGUF = (
    "bartowski/Meta-Llama-3-8B-Instruct-GGUF",
    "Meta-Llama-3-8B-Instruct-Q4_K_M.gguf",
)

REFUSED = (401, 403, 404)  # by the Hub, to who has not accepted a model's terms

log = logging.getLogger("medraft")


@dataclass(frozen=True)
class Taken:
    """A model's name as MEDRAFT_MODEL has it, and the precision of its weights on the GPU."""

    model: str
    quantize: Quantize = "none"


def on_cuda(settings: Settings, by_any_engine: bool) -> Taken:
    """What MEDRAFT_MODEL=auto is here, for transformers or `by_any_engine`; said once. Downloads
    nothing.

    Raises AgentError where Llama 3 8B cannot be had, and the settings name an adapter or a
    fine-tuned model, which the embedded one would not do for.
    """
    quantize, why = taken_precision(NAME, _shapes(settings), settings)
    missing = _why_not_to_be_had(CUDA_MODEL) if quantize else too_large(NAME, LLAMA_3_8B, settings)
    if quantize is not None and missing is None:
        tell(why)
        return Taken(CUDA_MODEL, quantize)
    if settings.fine_tuned_model is not None or settings.adapter not in ("auto", "none"):
        raise AgentError(f"{missing}.")
    if quantize is None and by_any_engine and _gguf_is_here():
        tell(f"{missing}. Until then {CUDA_GGUF[1]} of the Hub's cache answers, in llama.cpp.")
        return Taken("/".join(CUDA_GGUF))
    tell(f"{missing}. Until then the embedded model answers.")
    return Taken("embedded")


@functools.cache
def tell(sentence: str) -> None:
    """Say it once a process, however often the decision is asked for; "" is nothing to say."""
    if sentence:
        log.warning("%s", sentence)


def taken_precision(
    name: str, shapes: Sequence[Shape], settings: Settings
) -> tuple[Quantize | None, str]:
    """The precision in which models of these shapes fit on the cards, all at once if they can, and
    the sentence that says so and why.

    What MEDRAFT_QUANTIZE insists on is taken whether it fits or not; None if nothing fits.
    """
    if settings.quantize != "auto":
        return settings.quantize, ""
    ladder: list[Quantize] = ["none"]
    if importlib.util.find_spec("bitsandbytes") is not None:
        ladder.append("4bit")
    free = gpu.free()
    for wanted in (shapes, shapes[:1]):
        for precision in ladder:
            needed = sum(shape.needs(precision, settings.context_window) for shape in wanted)
            if needed <= free:
                return precision, _why(name, precision, wanted, settings.context_window)
    return None, ""


def too_large(name: str, shape: Shape, settings: Settings) -> str:
    """What is said of a model that fits in no precision, without the full stop."""
    least: Quantize = "4bit" if importlib.util.find_spec("bitsandbytes") is not None else "none"
    how = "in 4 bits" if least == "4bit" else "in 16 bits (4 take bitsandbytes, the extra `gpu`)"
    if shape.own is not None:
        how = "as it is quantized"
    return (
        f"{name} needs {gib(shape.needs(least, settings.context_window))} of the GPU {how}, "
        f"and {gib(gpu.free())} are free: close other programs on it, lower "
        f"MEDRAFT_CONTEXT_WINDOW, or set MEDRAFT_ENGINE=llama_cpp and MEDRAFT_MODEL to a .gguf "
        f"file, as {'/'.join(CUDA_GGUF)}"
    )


def _shapes(settings: Settings) -> list[Shape]:
    return [LLAMA_3_8B] * (1 if settings.fine_tuned_model is None else 2)


def _why(name: str, precision: Quantize, shapes: Sequence[Shape], window: int) -> str:
    whole = gib(sum(shape.needs("none", window) for shape in shapes))
    room = f"{whole} of the GPU, and {gib(gpu.free())} are free"
    if precision == "none":
        how = "in 16 bits" if shapes[0].own is None else "as it is quantized"
        return f"{name} {how}: that needs {room}."
    return f"{name} in 4 bits: 16 bits need {room}; MEDRAFT_QUANTIZE=none insists on them."


@functools.cache
def _why_not_to_be_had(repository: str) -> str | None:
    """Why a gated repository cannot be loaded, without the full stop; None if it can."""
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError

    if _is_whole(repository):
        return None
    terms = (
        f"The Hub gives {repository} to those who have accepted its terms: do so at "
        f"https://huggingface.co/{repository}, log in with `hf auth login`, and start again"
    )
    if get_token() is None:
        return terms
    try:
        HfApi().auth_check(repository)
    except Exception as error:  # whatever the HTTP client raises for a Hub that is not reached
        if isinstance(error, HfHubHTTPError) and error.response.status_code in REFUSED:
            return terms
        return (
            f"{repository} is not on this machine, and the Hub cannot be reached "
            f"({reason(error)}): mend the connection, and start again"
        )
    return None


def _is_whole(repository: str) -> bool:
    """Whether the Hub's cache holds all of a checkpoint, and not a download that was broken off."""
    index = _cached(repository, "model.safetensors.index.json")
    if index is None:
        return False
    shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    needed = {"config.json", "tokenizer.json", "tokenizer_config.json", *shards}
    return all(_cached(repository, name) for name in needed)


def _cached(repository: str, name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, name)
    return Path(found) if isinstance(found, str) else None


def _gguf_is_here() -> bool:
    return _cached(*CUDA_GGUF) is not None and gpu.free_to_llama_cpp() > 0
