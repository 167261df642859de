"""The GPU of this machine: what it is, why torch cannot use it, and what it has free.

Owns the question to nvidia-smi and to torch, and the sentence for a card that is of no use. Knows
no model and no setting.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from index_store.device import usable
from index_store.errors import reason

DEVICES = Path("/dev")  # where NVIDIA's driver has a file for each card
PATIENCE = 30.0  # seconds for nvidia-smi, which wakes the card first


@dataclass(frozen=True)
class Card:
    """Its name and its driver's version, as nvidia-smi tells them, or what that says instead."""

    name: str = "NVIDIA"
    driver: str = "unknown"
    fault: str | None = None


@functools.cache
def card() -> Card | None:
    """The first card; None if nvidia-smi finds none, or there is neither it nor a card's file.

    Imports no torch.
    """
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return Card() if any(DEVICES.glob("nvidia[0-9]*")) else None
    command = [smi, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.SubprocessError) as error:
        return Card(fault=reason(error))
    said = next(iter((told.stdout + told.stderr).splitlines()), "")
    if "No devices" in said:
        return None
    if told.returncode:
        return Card(fault=said.rstrip(". ") or f"exit status {told.returncode}")
    name, _, driver = said.rpartition(", ")
    return Card(name, driver) if name else None


def trouble(every: bool = False) -> str | None:
    """One sentence if torch can do nothing with the card that is there, None otherwise.

    Of several cards the first counts, and the others are left alone; `every`: all of them, for
    what computes on all that torch sees. A card that CUDA_VISIBLE_DEVICES hides is not there.
    """
    found = card()
    if found is None or os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return None
    import torch

    built = torch.version.cuda
    if found.fault is not None and not torch.cuda.is_available():
        return (
            f"PyTorch sees no GPU, and nvidia-smi fails ({found.fault}): start the machine again, "
            "install NVIDIA's driver anew, or set CUDA_VISIBLE_DEVICES=-1 to do without the GPU."
        )
    if built is None:
        return (
            f"This machine has a GPU ({found.name}), but PyTorch {torch.__version__} is a "
            "build for CPUs: run `pip uninstall -y torch && pip install torch`, or set "
            "CUDA_VISIBLE_DEVICES=-1 to do without the GPU."
        )
    if not torch.cuda.is_available():
        return (
            f"PyTorch {torch.__version__}, built for CUDA {built}, does not see this machine's "
            f"GPU ({found.name}), whose driver is {found.driver}: update the driver to one for "
            f"CUDA {built}, install the PyTorch for the driver that is there "
            "(https://pytorch.org/get-started/locally/), or set CUDA_VISIBLE_DEVICES=-1 to do "
            "without the GPU."
        )
    cards = usable()
    for number in range(torch.cuda.device_count() if every else 1):
        if number not in cards:
            major, minor = torch.cuda.get_device_capability(number)
            return (
                f"PyTorch {torch.__version__}, built for CUDA {built}, has no code for this "
                f"machine's {torch.cuda.get_device_name(number)} (compute capability "
                f"{major}.{minor}, driver {found.driver}): install a PyTorch that has "
                "(https://pytorch.org/get-started/locally/), or let CUDA_VISIBLE_DEVICES name "
                "other GPUs, or -1 to do without."
            )
    return None


@functools.cache
def free() -> int:
    """Bytes that the cards had free together when this process first asked, before its models."""
    import torch

    return sum(torch.cuda.mem_get_info(number)[0] for number in usable())


def free_to_llama_cpp() -> int:
    """Bytes free on the GPUs that llama.cpp computes on; 0 for the build that PyPI has."""
    import xllamacpp

    devices = xllamacpp.get_device_info()
    return sum(each["memory_free"] for each in devices if each["type"].name.endswith("_TYPE_GPU"))
