"""How much of a medicine, how often and for how long: as numbers that compare.

Owns how English and Spanish say them, in digits and in words. Does not know whose they are, nor
which sentence is about a medicine: `treats` tells whether one may be.

Doses are in milligrams, millilitres, units, per cent or pieces of a form (tablets, drops), or of
these for each kilogram of body weight; rates in times a day, lengths in days. Of a range both ends
are given.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple

_WORDS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy five": 75,
    "eighty": 80, "ninety": 90, "a hundred": 100, "one hundred": 100, "two hundred": 200,
    "three hundred": 300, "four hundred": 400, "five hundred": 500, "six hundred": 600,
    "eight hundred": 800, "a thousand": 1000, "one thousand": 1000, "a couple of": 2,
    "uno": 1, "una": 1, "un": 1, "dos": 2, "tres": 3, "cuatro": 4, "cinco": 5, "seis": 6,
    "siete": 7, "ocho": 8, "nueve": 9, "diez": 10, "doce": 12, "catorce": 14, "quince": 15,
    "veinte": 20, "treinta": 30, "cuarenta": 40, "cincuenta": 50, "cien": 100, "doscientos": 200,
    "trescientos": 300, "cuatrocientos": 400, "quinientos": 500, "seiscientos": 600, "mil": 1000,
}  # fmt: skip
_PARTS = {
    "half": Fraction(1, 2), "a half": Fraction(1, 2), "one half": Fraction(1, 2),
    "quarter": Fraction(1, 4), "a quarter": Fraction(1, 4), "one quarter": Fraction(1, 4),
    "three quarters": Fraction(3, 4), "media": Fraction(1, 2), "medio": Fraction(1, 2),
    "un cuarto": Fraction(1, 4), "tres cuartos": Fraction(3, 4),
}  # fmt: skip
PART_SIGNS = "½¼¾⅓⅔⅛"
_LONGEST = 100  # digits of a number that are read: of some thousands Python makes none
_FORMS = {
    "piece": r"tablets?|tabs?|pills?|capsules?|caplets?|caps|comprimidos?|pastillas?|tabletas?"
    r"|c[aá]psulas?|grageas?|p[ií]ldoras?",
    "puff": r"puffs?|inhalations?|inhalaciones|inhalaci[oó]n|pulsaciones",
    "spray": r"sprays?|squirts?|nebulizaciones",
    "drop": r"drops?|gotas?",
    "teaspoon": r"teaspoons?(?:fuls?)?|tsps?|cucharaditas?",
    "spoon": r"tablespoons?(?:fuls?)?|tbsps?|spoon(?:ful)?s?|cucharadas?",
    "sachet": r"sachets?|sobres?",
    "dose": r"doses?|dosis|tomas",
    "patch": r"patch(?:es)?(?!\s+of)|parches?",
    "lozenge": r"lozenges?",
    "suppository": r"suppositor(?:y|ies)|pessar(?:y|ies)|supositorios?|[oó]vulos?",
    "injection": r"injections?|shots?|jabs?|vials?|ampoules?|inyecci[oó]n|inyecciones|ampollas?",
}
_UNITS: dict[str, tuple[str, int | Fraction]] = {
    "mg": (r"mgs?|milligram(?:me)?s?|miligramos?", 1),
    "mcg": (r"mcgs?|[µμ]g|ug|microgram(?:me)?s?|microgramos?", Fraction(1, 1000)),
    "g": (r"g|gms?|gr|gram(?:me)?s?|gramos?", 1000),
    "ml": (r"mls?|cc|millilit(?:er|re)s?|mililitros?", 1),
    "iu": (r"i\.?u\.?|units?|international\s+units|ui|unidades(?:\s+internacionales)?", 1),
    "%": (r"%|per\s?cent|por\s+ciento", 1),
}
_MASS = frozenset({"mg", "mcg", "g"})
_FORM = "|".join(_FORMS.values())


def _spelled(words: Iterable[str]) -> str:
    """A pattern for any of these, the longest first."""
    return "|".join(w.replace(" ", r"[\s-]+") for w in sorted(words, key=len, reverse=True))


_SLASHED = r"(?:1[/\u2044][2348]|2[/\u2044]3|3[/\u2044]4)(?![\d/\u2044])"
_PART = rf"(?:[{PART_SIGNS}]|{_SLASHED}|(?:{_spelled(_PARTS)})\b)"
_SPACE = r"[ \u00a0\u2009\u202f]"
# "1 500 mg" is one number, but "2 500 mg tablets" are two tablets.
_STRENGTH = "|".join(_UNITS[unit][0] for unit in sorted(_MASS))
_COUNTED = rf"{_SPACE}[1-9]\d\d\s*-?\s*(?:{_STRENGTH})\s+(?:{_FORM})\b"
_WHOLE = (
    rf"(?:[1-9]\d{{0,2}}(?!{_COUNTED})(?:{_SPACE}\d{{3}}){{1,3}}(?!\d)(?:[.,]\d+)?"
    rf"|\d+(?:[.,]\d+)*|(?:{_spelled(_WORDS)})\b)"
)
_N = (
    rf"(?:{_PART}(?:\s+(?:of|de)\b)?(?:\s+an?\b)?|{_WHOLE}(?:[\s-]+(?:and|y|&)[\s-]+{_PART}"
    rf"|[\s-]?[{PART_SIGNS}]|(?:\s+|-){_SLASHED})?)"
)
_DAYS = {"hour": Fraction(1, 24), "day": Fraction(1), "week": Fraction(7), "month": Fraction(30)}
_DAYS |= {"year": Fraction(365)}
_PERIODS = {
    "hour": r"hours?|hrs?|h|horas?",
    "day": r"days?|d[ií]as?|nights?|noches?|mornings?|evenings?|ma[nñ]anas?",
    "week": r"weeks?|wks?|semanas?",
    "month": r"months?|mes|meses",
    "year": r"years?|a[nñ]os?",
}
_PERIOD = "|".join(f"(?P<{name}>{words})" for name, words in _PERIODS.items())
_NOT_LABORATORY = r"(?!\s*(?:/|per\s+)\s*(?:d?l|ml|100|lit(?:re|er))\b)"
_KG = (
    r"\s*(?:/|\b(?:per|por|each|every|cada|por\s+cada|an?)\b)\s*"
    r"(?:kgs?|kilos?|kilogram(?:me)?s?|kilogramos?)\b"
)
_PER_KG = rf"(?:(?P<per_kg>{_KG})|(?=\s+(?:of|de)\s+[\w-]+(?P<of_it_per_kg>{_KG})))?"
# "One tablet and a half", but not "one tablet, and half an hour later".
_MORE = (
    r"(?P<more>[\s-]+(?:and[\s-]+a[\s-]+half|y\s+medi[oa])\b"
    rf"(?![\s-]+(?:an?|hours?|horas?|{_FORM})\b))?"
)
_TO = r"\s*(?:-|\u2013|\u2014|\bto\b|\bor\b|\band\b|\ba\b|\bo\b|\by\b)\s*"
# Within a row of numbers, 1,1,1,..., none is a first one: the row is read once.
_FIRST, _LAST = rf"(?<!\d[.,])(?P<first>{_N})", rf"(?:{_TO}(?P<last>{_N}))?"
_UNIT = "|".join(
    [f"(?P<{name if name != '%' else 'percent'}>{words})" for name, (words, _) in _UNITS.items()]
    + [f"(?P<{name}>{words})" for name, words in _FORMS.items()]
)

# "500 mg to 1 g" is two doses, each with its unit; "500 to 1000 mg" is one range.
_DOSE = re.compile(
    rf"(?<![\w.,/]){_FIRST}(?:\s*-?\s*)(?:{_TO}(?P<last>{_N})\s*-?\s*)?(?:{_UNIT})"
    rf"(?![\w]){_MORE}{_PER_KG}{_NOT_LABORATORY}",
    re.IGNORECASE,
)
_TIMES = re.compile(
    rf"\b(?:(?P<once>once|una\s+vez)|(?P<twice>twice)|(?P<thrice>thrice)"
    rf"|{_FIRST}{_LAST}[\s-]*(?:times|veces|[x\u00d7]))"
    rf"[\s/-]*(?:(?:a|per|each|every|in|al?|por|cada|a\s+la|in\s+a)\s+)?(?:{_PERIOD}"
    r"|(?P<daily>dail?y|nightly|diari[ao]s?)|(?P<weekly>weekly|semanal(?:es)?))\b",
    re.IGNORECASE,
)
_EVERY = re.compile(
    rf"\b(?:(?:every|each|cada)\s+|c/\s*)(?:(?P<other>other|second|alternate)\s+"
    rf"|{_FIRST}{_LAST}[\s-]*)?(?:{_PERIOD})\b|\bq(?P<q>\d{{1,2}})h\b",
    re.IGNORECASE,
)
_HOURLY = re.compile(rf"(?<![\w.,/]){_FIRST}{_LAST}[\s\u2010\u2011-]*hourly\b", re.IGNORECASE)
_SET = re.compile(
    r"\b(?:(?P<day1>daily(?!\s+(?:li[fv]|activit|routine|basis|exercise|habit|work|walk))|nightly"
    r"|diariamente|diari[ao]s?|o\.?d\b|q\.?d\b|qhs|q\.?h\.?s|(?:a|per)\s+(?:day|night)"
    r"|al\s+d[ií]a|por\s+d[ií]a|at\s+bedtime)"
    r"|(?P<day2>b\.?i\.?d|b\.?d)|(?P<day3>t\.?i\.?d|t\.?d\.?s)|(?P<day4>q\.?i\.?d|q\.?d\.?s)"
    r"|(?P<day24>hourly)|(?P<week1>weekly|(?:a|per)\s+week|semanalmente|a\s+la\s+semana)"
    r"|(?P<week2>fortnightly)|(?P<month1>monthly|(?:a|per)\s+month|al\s+mes|mensualmente))\b",
    re.IGNORECASE,
)
_RATES = {
    "day1": Fraction(1), "day2": Fraction(2), "day3": Fraction(3), "day4": Fraction(4),
    "day24": Fraction(24), "week1": Fraction(1, 7), "week2": Fraction(1, 14),
    "month1": Fraction(1, 30),
}  # fmt: skip
_LENGTH = re.compile(
    r"\b(?:for|over|during|durante|por|unos)\s+"
    r"(?:(?:a|the|an?other|about|around|roughly|at\s+least|up\s+to|next|first|further|full"
    r"|only|just|of|al\s+menos|unos|unas|los|las|hasta|pr[oó]xim[oa]s|aproximadamente|otros?)\s+)*"
    rf"(?:{_FIRST}{_LAST}[\s-]*)?(?:more\s+)?(?:{_PERIOD}|(?P<fortnight>fortnight))\b"
    rf"|(?<!\w)(?<!\d[.,]){_N.replace('?:', '?P<course>', 1)}[\s-]*"
    r"(?P<long>day|week|month|year)s?[\s-]+"
    r"(?:course|treatment|cycle|regimen|supply)\b"
    r"|\b(?P<life>for\s+(?:the\s+rest\s+of\s+your\s+)?life|lifelong|indefinitely|de\s+por\s+vida"
    r"|indefinidamente)\b",
    re.IGNORECASE,
)

# What tells that a sentence with a rate or a length is about a treatment.
_TREATS = re.compile(
    rf"\b(?:{_FORM}|creams?|ointments?|gels?|lotions?|inhalers?|medicines?|medications?|drugs?"
    r"|treatments?|courses?|antibiotics?|steroids?|painkillers?|antihistamines?|vitamins?"
    r"|supplements?|dos(?:age|ing)|prescri\w+|tak(?:e|es|en|ing)|appl(?:y|ied|ying)|inject\w*"
    r"|inhale\w*|swallow\w*|administ\w+|tom(?:e|ar|a|as|en|arlo|arla)|apli(?:que|car|ca)\w*"
    r"|inyect\w+|trague|medicamentos?|medicinas?|f[aá]rmacos?|tratamientos?|pomadas?|cremas?"
    r"|antibi[oó]ticos?|jarabes?|inhalador(?:es)?)\b",
    re.IGNORECASE,
)
# "Take a walk", "apply ice": done to oneself, and no medicine.
_HARMLESS = re.compile(
    r"\b(?:tak(?:e|es|en|ing)|tom(?:e|ar|a))\s+(?:(?:an?|some|your|the|short|deep|slow|warm|cool"
    r"|cold|hot|long|regular|quick|brisk|daily|few|small|una?|mucha)\s+){0,3}(?:walks?|baths?"
    r"|showers?|breaks?|rests?|breaths?|naps?|sips?|steps?|care|time|it\s+easy|note|temperature"
    r"|pulse|place|ba[nñ]os?|duchas?|descansos?|agua)\b"
    r"|\b(?:appl(?:y|ied|ying)|apli(?:que|car|ca)\w*)\s+(?:\w+\s+){0,4}?(?:ice|compress(?:es)?"
    r"|packs?|heat|cold|warm\w*|pressure|sunscreen|moisturi[sz]ers?|hielo|compresas?|calor)\b",
    re.IGNORECASE,
)


class Dose(NamedTuple):
    """So much of a `unit` ("mg", "ml", "iu", "%" or a form, or "mg/kg" and so on), at `start` to
    `end` of the text."""

    start: int
    end: int
    amount: Fraction
    unit: str


def doses(text: str) -> Iterator[Dose]:
    """Those in `text`, both ends of a range."""
    for found in _DOSE.finditer(text):
        unit = next(n for n, v in found.groupdict().items() if v and n not in ("first", "last"))
        unit = "%" if unit == "percent" else unit
        one = found["first"].lower() in ("un", "una") and not found["more"]
        # "A tablet" says no number, and neither does "one" in Spanish, which is the same word.
        if one and unit not in _UNITS:
            continue
        factor = _UNITS[unit][1] if unit in _UNITS else 1
        unit = "mg" if unit in _MASS else unit
        unit += "/kg" if found["per_kg"] or found["of_it_per_kg"] else ""
        amounts = _ends(found)
        amounts[-1] += Fraction(1, 2) if found["more"] else 0
        for amount in amounts:
            yield Dose(found.start(), found.end(), amount * factor, unit)


def rates(text: str) -> set[Fraction]:
    """How often, in times a day."""
    found: set[Fraction] = set()
    for match in _TIMES.finditer(text):
        fixed = {"once": 1, "twice": 2, "thrice": 3}
        times = [Fraction(n) for name, n in fixed.items() if match[name]] or _ends(match)
        found |= {number / _period(match) for number in times}
    for match in _EVERY.finditer(text):
        between = [Fraction(int(match["q"]), 24)] if match["q"] else []
        if not between:
            numbers = [Fraction(2)] if match["other"] else _ends(match) or [Fraction(1)]
            between = [number * _period(match) for number in numbers]
        found |= {1 / days for days in between if days}
    for match in _HOURLY.finditer(text):
        found |= {24 / hours for hours in _ends(match) if hours}
    told = (_TIMES, _EVERY, _HOURLY, _LENGTH)
    covered = [match.span() for pattern in told for match in pattern.finditer(text)]
    for match in _SET.finditer(text):
        if not any(start <= match.start() < end for start, end in covered):
            found |= {rate for name, rate in _RATES.items() if match[name]}
    return found


def lengths(text: str) -> set[Fraction]:
    """For how long, in days; 0 is for life."""
    found: set[Fraction] = set()
    for match in _LENGTH.finditer(text):
        if match["life"]:
            found.add(Fraction(0))
        elif match["fortnight"]:
            found.add(Fraction(14))
        elif match["course"]:
            found.add(_number(match["course"]) * _DAYS[match["long"].lower()])
        elif not match["hour"]:
            found |= {number * _period(match) for number in _ends(match) or [Fraction(1)]}
    return found


def treats(text: str) -> bool:
    """Whether a sentence speaks of a treatment that somebody takes or applies."""
    return _TREATS.search(_HARMLESS.sub(" ", text)) is not None


def _ends(match: re.Match[str]) -> list[Fraction]:
    return [_number(match[end]) for end in ("first", "last") if match[end] is not None]


def _period(match: re.Match[str]) -> Fraction:
    told = match.groupdict()
    if told.get("daily"):
        return _DAYS["day"]
    if told.get("weekly"):
        return _DAYS["week"]
    return next(_DAYS[name] for name in _PERIODS if told.get(name))


def _number(said: str) -> Fraction:
    """What `_N` found."""
    said = re.sub(r"[\s-]+", " ", said.lower())
    if said not in _WORDS:
        said = re.sub(r"( of| de)?( an?)?$", "", said)  # "half of a"
    said = re.sub(rf"(?<=\d) ?(?=[{PART_SIGNS}]|\d[/\u2044])", " and ", said)
    return sum(map(_plain, re.split(r" (?:and|y|&) ", said)), Fraction())


def _plain(said: str) -> Fraction:
    if said in _WORDS or said in _PARTS:
        return Fraction(_WORDS.get(said) or _PARTS[said])
    if part := re.fullmatch(r"(\d)[/\u2044](\d)", unicodedata.normalize("NFKC", said)):
        return Fraction(int(part[1]), int(part[2]))
    said = said.replace(" ", "")[:_LONGEST]
    if re.fullmatch(r"\d{1,3}(?:[.,]\d{3})+", said) and not said.startswith("0"):
        return Fraction(re.sub(r"[.,]", "", said))
    whole, _, rest = said.replace(",", ".").partition(".")
    return Fraction(f"{whole}.{rest.replace('.', '') or '0'}")
