"""How much of a medicine, how often and for how long: as numbers that compare.

Owns how English and Spanish say them, in digits and in words. Does not know whose they are, nor
which sentence is about a medicine: `treats` tells whether one may be.

Doses are in milligrams, millilitres, units, per cent or pieces of a form (tablets), or of these for
each kilogram of body weight; rates in times a day, lengths in days. Of a range both ends are given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from agent.chat.numbers import PART, PART_SIGNS, SLASHED, SPELLED, number

_FORMS = {
    "piece": r"tablets?|tabs?|pills?|capsules?|caplets?|caps|comprimidos?|pastillas?|tabletas?"
    r"|c[aá]psulas?|grageas?|p[ií]ldoras?",
    "puff": r"puffs?|inhalations?|inhalaciones|inhalaci[oó]n|pulsaciones",
    "spray": r"sprays?|squirts?|nebulizaciones",
    "drop": r"drops?|gotas?",
    "spoon": r"spoon(?:ful)?s?",
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
    "teaspoon": (r"teaspoons?(?:fuls?)?|tsps?|cucharaditas?", 5),
    "tablespoon": (r"tablespoons?(?:fuls?)?|tbsps?|cucharadas?", 15),
    "iu": (r"i\.?u\.?|units?|international\s+units|ui|unidades(?:\s+internacionales)?", 1),
    "%": (r"%|per\s?cent|por\s+ciento", 1),
}
_IN_MG, _IN_ML = ("mg", "mcg", "g"), ("ml", "teaspoon", "tablespoon")
_FORM = "|".join(_FORMS.values())
_MEASURES = frozenset({*_IN_MG, *_IN_ML, "spoon", "puff"})  # "a gram", "a puff"
_SPACE = r"[ \u00a0\u2009\u202f]"
# "1 500 mg" is one number, but "2 500 mg tablets" are two tablets.
_STRENGTH = "|".join(_UNITS[unit][0] for unit in _IN_MG)
_COUNTED = rf"{_SPACE}[1-9]\d\d\s*-?\s*(?:{_STRENGTH})\s+(?:{_FORM})\b"
_WHOLE = (
    rf"(?:[1-9]\d{{0,2}}(?!{_COUNTED})(?:{_SPACE}\d{{3}}){{1,3}}(?!\d)(?:[.,]\d+)?"
    rf"|\d+(?:[.,]\d+)*|{SPELLED})"
)
_N = (
    rf"(?:{PART}(?:\s+(?:of|de)\b)?(?:\s+(?:an?|the|la|el)\b)?"
    rf"|{_WHOLE}(?:[\s-]+(?:and|y|&)[\s-]+{PART}|[\s-]?[{PART_SIGNS}]|(?:\s+|-){SLASHED})?)"
)
_DAYS = {"hour": Fraction(1, 24), "day": Fraction(1), "week": Fraction(7), "month": Fraction(30)}
_DAYS |= {"year": Fraction(360)}
_PERIODS = {
    "hour": r"hours?|hrs?|h|horas?",
    "day": r"days?|d[ií]as?|nights?|noches?|mornings?|evenings?|ma[nñ]anas?",
    "week": r"weeks?|wks?|semanas?",
    "month": r"months?|mes|meses",
    "year": r"years?|a[nñ]os?",
}
_PERIOD = "|".join(f"(?P<{name}>{words})" for name, words in _PERIODS.items())
_NOT_LABORATORY = r"(?!\s*(?:/|per\s+)\s*(?:d?l|ml|100|lit(?:re|er))\b)"
# Of these a spoon or a gram is a meal, and no dose.
_NOT_FOOD = (
    r"(?!(?:fuls?)?\s+(?:of|de)\s+(?:\w+\s+)?(?:salts?|sugar|honey|fib(?:re|er)|proteins?|fat|alcohol"
    r"|carbohydrates?|water|milk|lemon|oil|vinegar|oats|sal|az[uú]car|miel|fibra|prote[ií]nas?"
    r"|agua|leche|aceite|lim[oó]n)\b)"
)
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

# "500 mg to 1 g" is two doses, each with its unit; "500 to 1000 mg" is one range,
# and "500/125 mg" the two of one tablet.
_DOSE = re.compile(
    rf"(?:(?<![\w.,/])|(?<=\d[x\u00d7]))(?:(?<!\d[.,])(?P<first>\.\d+|{_N})\s*-?\s*"
    rf"(?:(?:{_TO}|/\s?)(?P<last>{_N})\s*-?\s*)?|(?P<article>an?)\s+)(?:{_UNIT})"
    rf"(?![\w]){_MORE}{_PER_KG}{_NOT_LABORATORY}{_NOT_FOOD}",
    re.IGNORECASE,
)
# "Two 200 mg tablets", "2 x 200 mg": how many there are of a strength.
_OF_STRENGTH = re.compile(
    rf"(?<![\w.,/]){_FIRST}{_LAST}(?:\s*(?P<by>[x\u00d7])\s*|\s+(?:of\s+(?:the\s+)?|de\s+)?)"
    rf"(?P<strength>(?:[1-9]\d*|0(?=[.,]))(?:[.,]\d+)?[\s-]*(?:{_STRENGTH}))\b"
    rf"(?P<form>[\s-]+(?:{_FORMS['piece']})\b)?",
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
    r"|(?P<third>third|tercer)\s+"
    rf"|{_FIRST}{_LAST}[\s-]*)?(?:{_PERIOD})\b"
    r"(?!\s+(?:and|y)\s+(?:every\s+)?(?:night|evening|noche))"
    r"|\bq\s?(?P<q>\d{1,2})\s?h(?:rs?)?\b",
    re.IGNORECASE,
)
_HOURLY = re.compile(
    rf"(?<![\w.,/]){_FIRST}{_LAST}"
    r"(?:[\s\u2010\u2011-]*hourly|[\u2010\u2011-](?P<interval>week|month)ly)\b",
    re.IGNORECASE,
)
# "Two a day", but not "within a day".
_EACH = r"(?:per|(?<!\bin )(?<!thin )(?<!fter )(?<!for )(?<!than )(?<!bout )(?<!only )(?<!just )a)"
_SET = re.compile(
    r"\b(?:(?P<day1>daily(?!\s+(?:li[fv]|activit|routine|basis|exercise|habit|work|walk))|nightly"
    r"|diariamente|diari[ao]s?|o\.?d\b|q\.?d\b|qhs|q\.?h\.?s|nocte|mane"
    rf"|{_EACH}\s+(?:day|night)(?!\s+off)|al\s+d[ií]a|por\s+d[ií]a|at\s+bedtime|a\s+diario"
    r"|tod[ao]s\s+l[ao]s\s+(?:d[ií]as|noches|ma[nñ]anas))"
    r"|(?P<half1>alternate\s+days|d[ií]as\s+alternos|un\s+d[ií]a\s+s[ií]\s+y\s+otro\s+no)"
    r"|(?P<need0>p\.?r\.?n|as\s+(?:needed|required)|when\s+(?:needed|required)|a\s+demanda"
    r"|seg[uú]n\s+necesidad)"
    r"|(?P<day2>b\.?i\.?d|b\.?d"
    r"|(?:morning|ma[nñ]ana)\s+(?:and|y)\s+(?:(?:in\s+the|at|every|por\s+la)\s+)?"
    r"(?:night|evening|noche))"
    r"|(?P<day3>t\.?i\.?d|t\.?d\.?s|(?:each|every)\s+meal|cada\s+comida)|(?P<day4>q\.?i\.?d|q\.?d\.?s)"
    rf"|(?P<day24>hourly)|(?P<week1>weekly|{_EACH}\s+week|semanalmente|a\s+la\s+semana)"
    rf"|(?P<week2>fortnightly)|(?P<month1>monthly|{_EACH}\s+month|al\s+mes|mensualmente))\b",
    re.IGNORECASE,
)
_RATES = {
    "need0": Fraction(0), "half1": Fraction(1, 2), "day1": Fraction(1), "day2": Fraction(2),
    "day3": Fraction(3), "day4": Fraction(4), "day24": Fraction(24), "week1": Fraction(1, 7),
    "week2": Fraction(1, 14), "month1": Fraction(1, 30),
}  # fmt: skip
_LONG = ("day", "week", "month", "year")
_OF_COURSE = "|".join(f"(?P<of_{name}>{_PERIODS[name]})" for name in _LONG)
_LENGTH = re.compile(
    r"\b(?:for|over|during|durante|por|unos|hasta|dura(?:r[aá])?|lasts?|duraci[oó]n:?|duration:?|x)\s+"
    r"(?:(?:a|the|an?|whole|other|about|around|roughly|at\s+least|up\s+to|next|first|further|full"
    r"|only|just|of|al\s+menos|unos|unas|los|las|hasta|pr[oó]xim[oa]s|aproximadamente|otros?)\s+)*"
    rf"(?:{_FIRST}{_LAST}[\s-]*)?(?:more\s+)?(?:{_PERIOD}|(?P<fortnight>fortnight))\b"
    rf"|(?<!\w)(?<!\d[.,]){_N.replace('?:', '?P<course>', 1)}[\s-]*"
    rf"(?P<long>{'|'.join(_LONG)})s?[\s-]+(?:of\s+)?"
    rf"(?:course|treatment|cycle|regimen|supply|{_FORM})\b"
    r"|\b(?:(?:courses?|treatment|tratamiento|ciclo|pauta)\s+(?:of|de|takes?|is|es)"
    r"|t[o\u00f3]m(?:[ae]|ar)(?:l[oa]s?)?(?:\s+\w+){0,7}?)\s+(?<!cada\s)(?<!hace\s)(?<!tras\s)"
    rf"{_FIRST.replace('<first>', '<of_course>')}[\s-]*(?:{_OF_COURSE})\b"
    r"(?!\s+(?:antes|despu|s[ií]\b))"
    r"|\b(?P<life>for\s+(?:the\s+rest\s+of\s+your\s+)?life|lifelong|indefinitely|forever"
    r"|de\s+por\s+vida|toda\s+la\s+vida|para\s+siempre|indefinidamente)\b",
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
    r"\b(?:tak(?:e|es|en|ing)|t[oó]m(?:e|ese|ar|a))\s+(?:(?:an?|some|your|the|short|deep|slow|warm"
    r"|cool|cold|hot|long|regular|quick|brisk|daily|few|small|blood|una?|muchos?|mucha|el|la|los"
    r"|las|su|sus)\s+){0,3}(?:walks?|baths?|showers?|breaks?|rests?|breaths?|naps?|sips?|steps?"
    r"|care|time|it\s+easy|notes?|temperature|pulse|place|stairs|photos?|pictures?|pressure"
    r"|readings?|days?|weeks?|ba[nñ]os?|duchas?|descansos?|aguas?|l[ií]quidos?|sol|aire|notas?"
    r"|fotos?|temperatura|tensi[oó]n|pulso)\b|\bblood\s+taken\b"
    r"|\b(?:appl(?:y|ied|ying)|apli(?:que|car|ca)\w*)\s+(?:\w+\s+){0,4}?(?:ice|compress(?:es)?"
    r"|packs?|heat|cold|warm\w*|pressure|sunscreen|moisturi[sz]ers?|hielo|compresas?|calor)\b",
    re.IGNORECASE,
)
_TIME_ALONE = 100  # characters: a longer text says something else than how often, too
_NUMBERS = frozenset({"first", "last", "article"})


class Dose(NamedTuple):
    """So much of a `unit` ("mg", "ml", "iu", "%" or a form, or "mg/kg" and so on), at `start` to
    `end` of the text; not `counted` is what bears a dose and claims none: "a tablet", and
    the gram of "two 500 mg tablets"."""

    start: int
    end: int
    amount: Fraction
    unit: str
    counted: bool = True


def doses(text: str) -> Iterator[Dose]:
    """Those in `text`, both ends of a range."""
    for found in _DOSE.finditer(text):
        unit = next(n for n, v in found.groupdict().items() if v and n not in _NUMBERS)
        unit = "%" if unit == "percent" else unit
        first = (found["article"] or found["first"]).lower()
        one = first in ("a", "an", "un", "una") and not found["more"]
        factor = _UNITS[unit][1] if unit in _UNITS else 1
        counted = not one or unit in _MEASURES
        unit = "mg" if unit in _IN_MG else "ml" if unit in _IN_ML else unit
        unit += "/kg" if found["per_kg"] or found["of_it_per_kg"] else ""
        amounts = _ends(found) or [Fraction(1)]
        amounts[-1] += Fraction(1, 2) if found["more"] else 0
        for amount in amounts:
            yield Dose(found.start(), found.end(), amount * factor, unit, counted)
    for found in _OF_STRENGTH.finditer(text):
        if found["by"] or found["form"]:
            for amount in _ends(found):
                yield Dose(found.start(), found.end(), amount, "piece")
                # "Two 500 mg tablets" bears "1 g", too.
                for dose in doses(found["strength"]):
                    yield Dose(found.start(), found.end(), amount * dose.amount, dose.unit, False)


def rates(text: str) -> set[Fraction]:
    """How often, in times a day; 0 is as needed."""
    found: set[Fraction] = set()
    for match in _TIMES.finditer(text):
        fixed = {"once": 1, "twice": 2, "thrice": 3}
        times = [Fraction(n) for name, n in fixed.items() if match[name]] or _ends(match)
        found |= {count / _period(match) for count in times}
    for match in _EVERY.finditer(text):
        spans = [Fraction(int(match["q"]), 24)] if match["q"] else []
        if not spans:
            ordinal = {"other": 2, "third": 3}
            counts = [Fraction(n) for name, n in ordinal.items() if match[name]]
            counts = counts or _ends(match) or [Fraction(1)]
            spans = [count * _period(match) for count in counts]
        found |= {1 / days for days in spans if days}
    for match in _HOURLY.finditer(text):
        between = _DAYS[(match["interval"] or "hour").lower()]
        found |= {1 / (count * between) for count in _ends(match) if count}
    covered = [m.span() for p in (_TIMES, _EVERY, _HOURLY, _LENGTH) for m in p.finditer(text)]
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
            found.add(number(match["course"]) * _DAYS[match["long"].lower()])
        elif match["of_course"]:
            days = next(_DAYS[name] for name in _LONG if match[f"of_{name}"])
            found.add(number(match["of_course"]) * days)
        elif not match["hour"]:
            found |= {count * _period(match) for count in _ends(match) or [Fraction(1)]}
    return found


def treats(text: str) -> bool:
    """Whether a sentence speaks of a treatment that somebody takes or applies."""
    return _TREATS.search(_HARMLESS.sub(" ", text)) is not None


def is_time_alone(text: str) -> bool:
    """Whether a text says how often or for how long, and nothing else."""
    if len(text) > _TIME_ALONE:
        return False
    rest = text
    for pattern in (_TIMES, _EVERY, _HOURLY, _LENGTH, _SET):
        rest = pattern.sub(" ", rest)
    return rest != text and not re.search(r"[^\W\d_]{4,}", rest)


def _ends(match: re.Match[str]) -> list[Fraction]:
    return [number(match[end]) for end in ("first", "last") if match[end] is not None]


def _period(match: re.Match[str]) -> Fraction:
    told = match.groupdict()
    if told.get("daily"):
        return _DAYS["day"]
    if told.get("weekly"):
        return _DAYS["week"]
    return next(_DAYS[name] for name in _PERIODS if told.get(name))
