"""The GPU of this machine: what it is, why torch cannot use it, and what it has free.

Owns the question to nvidia-smi, and the sentence for a card that is of no use. Knows no model and
no setting.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from dataclasses import dataclass

from index_store.device import without_code

PATIENCE = 30.0  # seconds for nvidia-smi, which wakes the card first


@dataclass(frozen=True)
class Card:
    """Its name and its driver's version, as nvidia-smi tells them."""

    name: str
    driver: str


@functools.cache
def card() -> Card | None:
    """The first card; None if there is no nvidia-smi, or it finds none. Imports no torch."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return None
    command = [smi, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    name, _, driver = next(iter(told.stdout.splitlines()), "").rpartition(", ")
    return Card(name, driver) if name else None


def trouble() -> str | None:
    """One sentence if torch can do nothing with the card that is there, None otherwise.

    A card that CUDA_VISIBLE_DEVICES hides is not there.
    """
    found = card()
    if found is None or os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return None
    import torch

    built = torch.version.cuda
    if built is None:
        return (
            f"This machine has an NVIDIA GPU ({found.name}), but PyTorch {torch.__version__} is a "
            "build for CPUs: run `pip uninstall -y torch && pip install torch`, or set "
            "CUDA_VISIBLE_DEVICES=-1 to do without the GPU."
        )
    if not torch.cuda.is_available():
        return (
            f"PyTorch {torch.__version__}, built for CUDA {built}, does not see this machine's "
            f"{found.name}, whose driver is {found.driver}: update the driver to one for CUDA "
            f"{built}, install the PyTorch for the driver that is there "
            "(https://pytorch.org/get-started/locally/), or set CUDA_VISIBLE_DEVICES=-1 to do "
            "without the GPU."
        )
    if (lacking := without_code()) is not None:
        return (
            f"PyTorch {torch.__version__}, built for CUDA {built}, has no code for this machine's "
            f"{found.name} (compute capability {lacking[0]}.{lacking[1]}, driver {found.driver}): "
            "install a PyTorch that has (https://pytorch.org/get-started/locally/), or set "
            "CUDA_VISIBLE_DEVICES=-1 to do without the GPU."
        )
    return None


@functools.cache
def free() -> int:
    """Bytes that all cards together had free when this process first asked, before its models."""
    import torch

    return sum(torch.cuda.mem_get_info(number)[0] for number in range(torch.cuda.device_count()))


def free_to_llama_cpp() -> int:
    """Bytes free on the GPUs that llama.cpp computes on; 0 for the build that PyPI has."""
    import xllamacpp

    devices = xllamacpp.get_device_info()
    return sum(each["memory_free"] for each in devices if each["type"].name.endswith("_TYPE_GPU"))
