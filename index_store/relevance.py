"""How likely a reply concerns the problem that a question is about.

Owns the measure and its form on the disk; `medraft finetune retriever` fits it to labelled pairs.
Does not know which probability is enough, nor how replies were found.

A cosine means something else for each question: for some, every reply is near. So it is told, too,
how far it stands out: in robust standard deviations from the median cosine of that question and the
rest of the index. A logistic function of both is the probability (Platt 1999).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from index_store.errors import StoreError

if TYPE_CHECKING:
    import numpy as np

FILE = "relevance.json"  # beside the model that it was fitted for
SAMPLE = 2048  # vectors of the index that stand for all of it
NORMAL = 1.4826  # median absolute deviations to a standard deviation, of a normal distribution


@dataclass(frozen=True)
class Relevance:
    """The logit of the probability: what cosine and standing weigh, and a constant."""

    cosine: float
    standing: float
    constant: float

    @classmethod
    def of(cls, folder: Path) -> Relevance:
        """What was fitted for the model in a folder; UNFITTED if nothing, or if there is none.

        Raises StoreError if it is damaged.
        """
        path = folder / FILE
        if not path.is_file():
            return UNFITTED
        try:
            weights = json.loads(path.read_text(encoding="utf-8"))
            return cls(*(float(weights[name]) for name in ("cosine", "standing", "constant")))
        except (OSError, ValueError, KeyError, TypeError):
            raise StoreError(
                f"{path} is damaged: train the retriever again with `medraft finetune retriever`, "
                "or delete that file."
            ) from None

    def probability(
        self, cosines: np.ndarray[Any, Any], standing: np.ndarray[Any, Any]
    ) -> list[float]:
        """Of each reply, by its cosine and how far that stands out, (n,) each."""
        logits = self.cosine * cosines + self.standing * standing + self.constant
        return [1 / (1 + math.exp(-max(-50.0, min(50.0, each)))) for each in logits.tolist()]


# For a model that nothing was fitted for: no probability, but one cosine for every question. 0.4 is
# as much as the default of MEDRAFT_MIN_RELEVANCE asks for.
UNFITTED = Relevance(cosine=10.0, standing=0.0, constant=-5.3863)


class Background:
    """A part of the index, against which a cosine is held."""

    def __init__(self, vectors: np.ndarray[Any, Any]) -> None:
        """Unit vectors (n, d), n >= 1."""
        self._vectors = vectors

    def standing(
        self, query: np.ndarray[Any, Any], cosines: np.ndarray[Any, Any]
    ) -> np.ndarray[Any, Any]:
        """How far each cosine with a query (d,) stands out, in robust standard deviations, (n,)."""
        import numpy as np

        usual = self._vectors @ query
        median = np.median(usual)
        spread = NORMAL * np.median(np.abs(usual - median))
        found: np.ndarray[Any, Any] = (cosines - median) / max(float(spread), 0.02)
        return found
