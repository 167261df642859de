"""How sure a figure is: intervals by bootstrap, paired tests by permutation, Holm's correction.

Knows nothing of what is measured. Everything is seeded: the same answers give the same figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 9_999
BATCH = 256  # resamples in memory at once
SEED = 0
LEVEL = 0.95
NOISE = 0.05  # a difference with a corrected p-value from here on is noise

Values = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` questions with its 95 % interval (percentile bootstrap, Efron 1979)."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Difference:
    """Mean of `first - second` over the questions that have both, its interval, and the p-value
    of a paired sign-flip test, two-sided, corrected by Holm 1979 within its family."""

    first: str
    second: str
    by: Estimate
    p: float

    @property
    def noise(self) -> bool:
        return not self.p < NOISE


def estimate(values: Values) -> Estimate | None:
    """Of the mean of `values`, shape (n,), NaN where there is none; None if there are none."""
    from scipy.stats import bootstrap

    there = values[~np.isnan(values)]
    if len(there) == 0:
        return None
    mean = float(there.mean())
    if len(there) == 1 or np.ptp(there) == 0:  # nothing to draw from
        return Estimate(mean, mean, mean, len(there))
    interval = bootstrap(
        (there,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=BATCH,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return Estimate(mean, float(interval.low), float(interval.high), len(there))


def differences(pairs: Sequence[tuple[str, Values, str, Values]]) -> list[Difference]:
    """Compare each `(name, values, other name, its values)`, shapes (n,), question by question.

    All that are given are one family of Holm's correction. A pair that has no question in common
    is left out.
    """
    named, by, p_values = [], [], []
    for first, values, second, others in pairs:
        difference = values - others
        told = estimate(difference)
        if told is not None:
            named.append((first, second))
            by.append(told)
            p_values.append(_sign_flip(difference[~np.isnan(difference)]))
    return [
        Difference(first, second, told, p)
        for (first, second), told, p in zip(named, by, holm(p_values), strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the family-wise error stays below the level."""
    corrected = [1.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def _sign_flip(difference: Values) -> float:
    from scipy.stats import permutation_test

    if not difference.any():
        return 1.0
    if len(difference) == 1:
        return 1.0
    result = permutation_test(
        (difference,),
        lambda values, axis: values.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=BATCH,
        rng=np.random.default_rng(SEED),
    )
    return float(result.pvalue)
