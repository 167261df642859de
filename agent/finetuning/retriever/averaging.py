"""Weights between what a model was and what it learned.

Owns the averaging, which forgets less than either end (WiSE-FT, Wortsman et al. 2022, arXiv
2109.01903). Knows nothing of what the weights are for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Averaging:
    """A model that is about to learn, and its weights as they are now.

    Of a LoRA, which is nothing before its first step, half of what it adds is half of its second
    factor.
    """

    def __init__(self, model: Any, scale: float) -> None:
        """`scale` is the share of what is learned, more than 0, at most 1."""
        self._scale = scale
        self._learning = [
            parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and ".lora_A." not in name
        ]
        self._old = [parameter.detach().clone() for parameter in self._learning]

    @torch.no_grad()
    def apply(self) -> None:
        """Bring the weights to what is kept of them."""
        for parameter, old in zip(self._learning, self._old, strict=True):
            parameter.lerp_(old.to(parameter.device), 1 - self._scale)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The same for a while: a model is judged as it will be kept."""
        new = [parameter.detach().clone() for parameter in self._learning]
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, learned in zip(self._learning, new, strict=True):
                    parameter.copy_(learned)
