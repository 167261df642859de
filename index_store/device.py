"""Where torch computes on this machine: on CUDA, if it sees a card and was built for it.

Owns that question, how fine a processor multiplies fast, and which errors mean that the card's
memory is full; whoever computes asks alike. Knows no model.
"""

from __future__ import annotations

# What CUDA and cuBLAS raise, as plain RuntimeErrors, beside torch's own error.
FULL = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory", "cudaErrorMemoryAllocation")


def device() -> str:
    """The torch device to compute on, "cuda" (the first card) or "cpu"."""
    return "cuda" if 0 in usable() else "cpu"


def usable() -> list[int]:
    """The numbers of the cards that torch sees and has code for.

    Code for a capability (`sm_75`) runs on all of the same major number that are not older, and
    what is compiled on the card itself (`compute_75`) on all that are not older.
    """
    import torch

    # A driver that is too old for torch counts cards, too.
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    built = [each.rstrip("af").split("_") for each in torch.cuda.get_arch_list()]

    def has_code(number: int) -> bool:
        major, minor = torch.cuda.get_device_capability(number)
        return any(
            int(code) <= 10 * major + minor and (kind == "compute" or code[:-1] == str(major))
            for kind, code in built
        )

    return [number for number in range(count) if not built or has_code(number)]


def multiplies_bf16() -> bool:
    """Whether this processor multiplies numbers of 16 bits (bfloat16) itself, twice as fast."""
    import torch

    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def is_full(error: BaseException) -> bool:
    """Whether the GPU had no memory for what raised this."""
    import torch

    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in FULL)
