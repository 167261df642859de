"""Documents with other numbers and medicines, so that only who reads them can answer.

Owns how they are changed: each whole number in digits by another of its size, each medicine by one
of its own kind (`data/medicines.txt`), and the same everywhere in one prompt. Such texts teach
copying, and are no advice.

Knows nothing of what is said of them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

MEDICINES = Path(__file__).parent / "data" / "medicines.txt"
_NUMBER = re.compile(r"(?<![\w.,/:-])\d{1,4}(?!\w|[.,/:]\d)")
_FACTORS = (0.5, 0.75, 1.25, 1.5, 2)


@cache
def kinds() -> dict[str, tuple[str, ...]]:
    """Every medicine by its generic name, and those of its kind."""
    lines = MEDICINES.read_text(encoding="utf-8").splitlines()
    groups = [tuple(line.split()) for line in lines if line and not line.startswith("#")]
    return {name: group for group in groups for name in group}


def medicines(text: str) -> set[str]:
    """The medicines that a text names, in lower case."""
    return {name for name in re.findall(r"[a-z-]{5,}", text.lower()) if name in kinds()}


class Altered:
    """The changes of one prompt, drawn for what stands in `texts`."""

    def __init__(self, texts: Sequence[str], draw: random.Random) -> None:
        whole = "\n".join(texts)
        self._by: dict[str, str] = {}
        for number in sorted(set(_NUMBER.findall(whole))):
            self._by[number] = _another(int(number), draw)
        there = medicines(whole)
        free = {name: [n for n in kinds()[name] if n not in there] for name in sorted(there)}
        for name, others in free.items():
            if left := [n for n in others if n not in self._by.values()]:
                self._by[name] = draw.choice(left)

    def __call__(self, text: str) -> str:
        """`text` with the changes made."""
        text = _NUMBER.sub(lambda found: self._by.get(found[0], found[0]), text)
        return re.sub(r"[A-Za-z-]{5,}", self._medicine, text)

    def _medicine(self, found: re.Match[str]) -> str:
        other = self._by.get(found[0].lower(), found[0])
        return other.capitalize() if found[0][0].isupper() else other


def _another(number: int, draw: random.Random) -> str:
    if number < 10:
        return str(draw.choice([n for n in range(2, 10) if n != number]))
    rounded = 5 if number % 5 == 0 else 1
    other = max(rounded, round(number * draw.choice(_FACTORS) / rounded) * rounded)
    return str(other if other != number else number + rounded)
