"""Which patients an LLM may learn from, which steer its training, and which it is judged by.

Owns the division, by patient: it follows from the patient's words alone, so that it is the same
in every run, on every machine, and does not move when a data set grows. Knows nothing of what
the parts are used for.
"""

from __future__ import annotations

import hashlib
import re
from typing import Literal

Split = Literal["train", "validation", "test"]

TEST, VALIDATION = 10, 5  # of a hundred patients


def split(patient: str) -> Split:
    """The part that a patient belongs to, by what they wrote; case and punctuation do not count."""
    words = " ".join(re.findall(r"\w+", patient.casefold()))
    place = int.from_bytes(hashlib.sha256(words.encode()).digest()[:4], "big") % 100
    if place < TEST:
        return "test"
    return "validation" if place < TEST + VALIDATION else "train"
