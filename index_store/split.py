"""Which patients an LLM may learn from, which steer its training, and which it is judged by.

Owns the division, by patient: it follows from the patient's words alone, so that it is the same
in every run, on every machine, and does not move when a data set grows. Knows nothing of what
the parts are used for.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Literal

from index_store.cleaning import normalise
from index_store.dataset import Dialogue
from index_store.markup import text_of

Split = Literal["train", "validation", "test"]

TEST, VALIDATION = 10, 5  # of a hundred patients
TOO_ALIKE = 0.6  # Jaccard index of the words above which a reply counts as the target itself


def split(patient: str) -> Split:
    """The part that a patient belongs to, by what they wrote; case and punctuation do not count,
    nor whether it was cleaned: an index may keep it as it was, and training never does."""
    words = " ".join(re.findall(r"\w+", normalise(text_of(patient)).casefold()))
    place = int.from_bytes(hashlib.sha256(words.encode()).digest()[:4], "big") % 100
    if place < TEST:
        return "test"
    return "validation" if place < TEST + VALIDATION else "train"


def gives_away(dialogue: Dialogue, turns: Sequence[str], answer: str) -> bool:
    """Whether a document holds the reply that is to be given to a patient's `turns`: it is of
    the same patient, or its words are nearly those of `answer`."""
    words, target = _vocabulary(dialogue.doctor), _vocabulary(answer)
    alike = len(words & target) > TOO_ALIKE * len(words | target)
    return dialogue.patient in turns or alike


def _vocabulary(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))
