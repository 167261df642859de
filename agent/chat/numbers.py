"""Numbers as English and Spanish say them, in digits, in words and as fractions.

Owns the patterns of numbers in words and of fractions, and what any number in a text amounts to.
Does not know what is counted.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from fractions import Fraction

_ONES = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "uno": 1, "una": 1, "un": 1, "dos": 2, "tres": 3, "cuatro": 4, "cinco": 5,
    "seis": 6, "siete": 7, "ocho": 8, "nueve": 9,
}  # fmt: skip
_TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70,
    "eighty": 80, "ninety": 90, "treinta": 30, "cuarenta": 40, "cincuenta": 50, "sesenta": 60,
    "setenta": 70, "ochenta": 80, "noventa": 90,
}  # fmt: skip
_BETWEEN = {
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15,
    "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19, "diez": 10,
    "doce": 12, "trece": 13, "catorce": 14, "quince": 15, "veinte": 20, "veinticinco": 25,
}  # fmt: skip
_HUNDREDS = {
    "cien": 100, "ciento": 100, "doscientos": 200, "trescientos": 300, "cuatrocientos": 400,
    "quinientos": 500, "seiscientos": 600, "setecientos": 700, "ochocientos": 800,
    "novecientos": 900,
}  # fmt: skip
_WORDS = {"a": 1} | _ONES | _TENS | _BETWEEN | _HUNDREDS
_PARTS = {
    "half": Fraction(1, 2), "a half": Fraction(1, 2), "one half": Fraction(1, 2),
    "quarter": Fraction(1, 4), "a quarter": Fraction(1, 4), "one quarter": Fraction(1, 4),
    "three quarters": Fraction(3, 4), "media": Fraction(1, 2), "medio": Fraction(1, 2),
    "un cuarto": Fraction(1, 4), "tres cuartos": Fraction(3, 4), "la mitad": Fraction(1, 2),
    "a third": Fraction(1, 3), "one third": Fraction(1, 3), "two thirds": Fraction(2, 3),
    "un tercio": Fraction(1, 3), "dos tercios": Fraction(2, 3),
}  # fmt: skip
PART_SIGNS = "½¼¾⅓⅔⅛"
_LONGEST = 100  # digits of a number that are read: of some thousands Python makes none


def _spelled(words: Iterable[str]) -> str:
    """A pattern for any of these, the longest first."""
    return "|".join(w.replace(" ", r"[\s-]+") for w in sorted(words, key=len, reverse=True))


def _below_thousand() -> str:
    """A pattern for what is said in words: "a hundred and twenty-five", "ciento veinte"."""
    below = (
        rf"(?:(?:{_spelled(_TENS)})(?:(?:[\s-]+|\s+y\s+)(?:{_spelled(_ONES)})\b)?"
        rf"|{_spelled(_BETWEEN)}|{_spelled(_ONES)})\b"
    )
    hundreds = rf"(?:(?:a|{_spelled(_ONES)})[\s-]+hundred|{_spelled(_HUNDREDS)})\b"
    return rf"(?:{hundreds}(?:(?:[\s-]+and)?[\s-]+{below})?|{below})"


_BELOW = _below_thousand()
SPELLED = (
    rf"(?:a\s+couple\s+of\b|(?:(?:a|{_BELOW})[\s-]+thousand|(?:{_BELOW}\s+)?mil)\b"
    rf"(?:(?:\s+and)?\s+{_BELOW})?|{_BELOW})"
)
SLASHED = r"(?:1[/\u2044][2348]|2[/\u2044]3|3[/\u2044]4)(?![\d/\u2044])"
PART = rf"(?:[{PART_SIGNS}]|{SLASHED}|(?:{_spelled(_PARTS)})\b)"


def number(said: str) -> Fraction:
    """What a number amounts to that a pattern of digits, `SPELLED` and `PART` has found."""
    said = re.sub(r"[\s-]+", " ", said.lower())
    if said == "a couple of":
        return Fraction(2)
    said = re.sub(r"( of| de)?( an?| the| la| el)?$", "", said)  # "half of a"
    said = re.sub(rf"(?<=\d) ?(?=[{PART_SIGNS}]|\d[/\u2044])", " and ", said)
    return sum(map(_plain, re.split(r" (?:and|y|&) ", said)), Fraction())


def _plain(said: str) -> Fraction:
    if said in _PARTS:
        return _PARTS[said]
    if said[0].isalpha():
        return _spelled_out(said)
    if part := re.fullmatch(r"(\d)[/\u2044](\d)", unicodedata.normalize("NFKC", said)):
        return Fraction(int(part[1]), int(part[2]))
    said = said.replace(" ", "")[:_LONGEST]
    if re.fullmatch(r"\d{1,3}(?:[.,]\d{3})+", said) and not said.startswith("0"):
        return Fraction(re.sub(r"[.,]", "", said))
    whole, _, rest = said.replace(",", ".").partition(".")
    return Fraction(f"{whole}.{rest.replace('.', '') or '0'}")


def _spelled_out(said: str) -> Fraction:
    thousands = below = 0
    for word in said.split():
        if word == "hundred":
            below *= 100
        elif word in ("thousand", "mil"):
            thousands, below = 1000 * max(below, 1), 0
        else:
            below += _WORDS[word]
    return Fraction(thousands + below)
