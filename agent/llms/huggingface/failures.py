"""What goes wrong on the way to an answer, and the one sentence that is said of it.

Owns the sentences, and which errors mean that the GPU is lost to this process. Knows nothing of who
answers.
"""

from __future__ import annotations

import gc

import torch

from agent.errors import AgentError
from index_store.device import is_full
from index_store.errors import reason

# After these CUDA refuses all that this process asks of it.
LOST = ("device-side assert", "illegal memory access", "unspecified launch failure")


class NotANumber(Exception):
    """The model computes no numbers any more: in 16 bits some run over."""


def answer_error(error: Exception) -> AgentError:
    """One sentence for the patient."""
    if isinstance(error, AgentError):
        return error
    if is_full(error):
        return AgentError(
            "The GPU's memory is full: close other programs on it, set MEDRAFT_QUANTIZE=4bit, "
            "lower MEDRAFT_CONTEXT_WINDOW, or choose a smaller MEDRAFT_MODEL."
        )
    if isinstance(error, NotANumber):
        return AgentError(
            "The model's numbers ran over in 16 bits, so that there is no answer to this: ask in "
            "other words, or set MEDRAFT_QUANTIZE=8bit or another MEDRAFT_MODEL."
        )
    if any(sign in str(error) for sign in LOST):
        return AgentError(
            f"The GPU is lost to this process ({reason(error)}): start medraft again."
        )
    return AgentError(
        f"transformers failed while answering ({type(error).__name__}: {reason(error)}): ask "
        "again, and if it fails again start medraft again."
    )


def free_memory() -> None:
    """Give back to the GPU what nothing refers to any more."""
    gc.collect()
    torch.cuda.empty_cache()
