"""Where torch computes on this machine: on CUDA, if it sees a card and was built for it.

Owns that question, and which errors mean that the card's memory is full; embedding and LLM ask both
alike. Knows no model.
"""

from __future__ import annotations

# What CUDA and cuBLAS raise, as plain RuntimeErrors, beside torch's own error.
FULL = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory", "cudaErrorMemoryAllocation")


def device() -> str:
    """The torch device to compute on, "cuda" or "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() and without_code() is None else "cpu"


def without_code() -> tuple[int, int] | None:
    """The compute capability of a card that torch sees and has no code for, if there is one.

    Code for a capability (`sm_75`) runs on all of the same major number that are not older, and
    what is compiled on the card itself (`compute_75`) on all that are not older.
    """
    import torch

    built = [each.rstrip("af").split("_") for each in torch.cuda.get_arch_list()]
    for number in range(torch.cuda.device_count() if built else 0):
        major, minor = torch.cuda.get_device_capability(number)
        for kind, code in built:
            if int(code) <= 10 * major + minor and (kind == "compute" or code[:-1] == str(major)):
                break
        else:
            return major, minor
    return None


def is_full(error: BaseException) -> bool:
    """Whether the GPU had no memory for what raised this."""
    import torch

    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in FULL)
