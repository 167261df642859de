"""The medicines that a text names, by generic and by brand name.

Owns the list (`data/medicines.txt`, which says where it is from), how a name is found however it is
spelled, and which names mean the same medicine. Does not know what is said of a medicine.

What is not in the list is known by its end where it has a stem of the international nonproprietary
names (WHO, The use of stems in the selection of INN, 2018): -cillin, -sartan, -prazole, ... Spanish
and British spellings are read as one with the list's: "amoxicilina", "amoxycillin". What it cannot
see: a brand that is neither listed nor built so, and a class ("antibiotics"), which is no medicine
that anybody takes.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

LIST = Path(__file__).parent / "data" / "medicines.txt"
LONGEST = 3  # words in a name
FUZZY = 7  # letters from which on a name's spelling may vary

_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")
# After `_key`: y is i, double letters are one, and the vowel at the end is gone.
_STEMS = re.compile(
    r"[a-z-]{2,}(?:cilin|micin|floxacin|ciclin|conazol|prazol|nidazol|bendazol|sartan|vastatin"
    r"|dipin|olol|pril|gliptin|gliflozin|glutid|limab|zumab|ximab|tumab|tinib|ciclovir|tegravir"
    r"|parin|triptan|setron|oxetin|azepam|azolam|profen|tidin|tiazid|barbital|lukast|tropium"
    r"|xaban|gatran|mectin|renon|metason|nisolon|caserin|fibrat|dronat|formin)"
)
# Words that differ from a brand by the vowel at its end alone, or are spelled nearly like one.
_ORDINARY = frozenset({"regain", "regains", "concert", "concerts", "cocaine", "control", "became"})
# Of the body's own insulin, not of one that is injected.
_BODYS_OWN = re.compile(
    r"\W*(?:resistan\w+|resistente|sensitiv\w+|levels?|produc\w+|secre\w+|response|spikes?)\b",
    re.IGNORECASE,
)


class Named(NamedTuple):
    """A medicine at `start` to `end` of a text, by the name that all its names share."""

    start: int
    end: int
    medicine: str


def medicines(text: str) -> list[Named]:
    """Those that `text` names, in their order."""
    words = [word for whole in _WORD.finditer(text) for word in _parts(whole)]
    found: list[Named] = []
    place = 0
    while place < len(words):
        length, medicine = _at(text, words, place)
        if medicine:
            found.append(Named(words[place][0], words[place + length - 1][1], medicine))
        place += length
    return found


def named_in(text: str) -> set[str]:
    """Which medicines `text` names, by whatever name."""
    return {each.medicine for each in medicines(text)}


def _parts(word: re.Match[str]) -> list[tuple[int, int]]:
    """A word's place, or those of its parts where only they are known: "aspirin-based"."""
    if "-" not in word[0] or _known(word[0]):
        return [word.span()]
    start = word.start()
    return [(start + part.start(), start + part.end()) for part in re.finditer(r"[^-]+", word[0])]


def _at(text: str, words: list[tuple[int, int]], place: int) -> tuple[int, str | None]:
    """How many words from `place` on are a medicine's name, and its medicine; or 1 and None."""
    begins = _key(_plain(text[slice(*words[place])])) in _beginnings()
    longest = min(LONGEST, len(words) - place) if begins else 1
    for length in range(longest, 0, -1):
        start, end = words[place][0], words[place + length - 1][1]
        medicine = _known(" ".join(text[a:b] for a, b in words[place : place + length]))
        if medicine == "insulin" and _BODYS_OWN.match(text, end):
            medicine = None
        if medicine and not re.search(r"[.;:\n]", text[start:end]):
            return length, medicine
    return 1, None


@lru_cache(10_000)
def _known(name: str) -> str | None:
    plain = _plain(name)
    if plain in _ORDINARY:
        return None
    key = _key(plain)
    listed = _names().get(plain) or _names().get(key)
    if listed is None and " " not in key and len(key) >= FUZZY:
        return key if _STEMS.fullmatch(key) else None
    return listed


@cache
def _names() -> dict[str, str]:
    names: dict[str, str] = {}
    for line in LIST.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        generic, _, others = line.partition(":")
        for name in (generic, *others.split(",")):
            if plain := _plain(name.strip()):
                names[plain] = generic
                if len(plain) >= FUZZY:
                    names[_key(plain)] = generic
    return names


@cache
def _beginnings() -> frozenset[str]:
    """The first words of the names that have several."""
    return frozenset(_key(name.split()[0]) for name in _names() if " " in name)


@lru_cache(10_000)
def _plain(name: str) -> str:
    """Small letters without accents."""
    letters = unicodedata.normalize("NFKD", name).casefold().replace("\u2019", "'")
    return "".join(c for c in letters if not unicodedata.combining(c))


@lru_cache(10_000)
def _key(plain: str) -> str:
    """What American, British and Spanish spellings of a name have in common."""
    words = []
    for word in plain.split():
        for one, other in (("ph", "f"), ("th", "t"), ("ch", "c"), ("y", "i"), ("oe", "e")):
            word = word.replace(one, other)
        word = re.sub(r"([a-z])\1", r"\1", word)
        word = re.sub(r"^e(?=s[^aeiou])", "", word)
        words.append(re.sub(r"[aeo]?s?$", "", word) or word)
    return " ".join(words)
