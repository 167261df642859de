"""Weights between what a model was and what it learned.

Owns the averaging, which forgets less than either end (WiSE-FT, Wortsman et al. 2022, arXiv
2109.01903). Knows nothing of what the weights are for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch


class Averaging:
    """Weights that are about to learn, as they are now."""

    def __init__(self, learning: Iterable[torch.nn.Parameter], scale: float) -> None:
        """`scale` is the share of what is learned, more than 0, at most 1."""
        self._scale = scale
        self._learning = [*learning]
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
