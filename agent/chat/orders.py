"""Orders about medicines and about being seen: to stop one, to change a dose, that it is safe, that
nobody need be seen.

Owns how a sentence gives one, in English and Spanish. Does not know who may give it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from agent.chat.medicines import Named
from agent.chat.support import content_words

OrderKind = Literal["stop", "change", "safe", "unseen"]

BEFORE = 60  # characters in which an order is negated

UP_TO = r"(?:[\w'-]+\s+){0,4}?"
_MEDICINE = (
    r"(?:MEDICINE|medic(?:ines?|ations?|amentos?|inas?)|meds|drugs?|tablets?|pills?|capsules?"
    r"|treatment|therapy|dos(?:e|es|age)|antibiotics?|steroids?|statins?|insulin"
    r"|(?:blood )?thinners?|anticoagulants?|antidepressants?|painkillers?|inhalers?|injections?"
    r"|contraceptives?|beta-?blockers?|diuretics?|vaccines?|chemo\w*|drops|creams?|ointment"
    r"|anti-?inflammator(?:y|ies)|nsaids?|antihistamines?|laxatives?|supplements?|prescription"
    r"|tratamiento|pastillas?|comprimidos?|c[aá]psulas?|dosis|antibi[oó]ticos?|corticoides?"
    r"|insulina|anticoagulantes?|antidepresivos?|analg[eé]sicos?|inhalador(?:es)?|f[aá]rmacos?)\b"
)
NOT = (
    r"(?:\b(?:do|does|should|must|need|can|could|may|would)\s*n[o'\u2019]?t|\bdon\s?[\u2019']?t"
    r"|\bcannot|\bnever|\bno\s+(?:longer\s+)?need\s+to|\bnot\s+(?:need|have|necessary|to)(?:\s+to)?"
    r"|\bneedn\W?t|\bneed\s+not|\b(?:should|must|can|could|may|do)\s+not|\bwithout)"
)
_NOT_MEANT = r"(?!\s+(?:lightly|personally|for\s+granted|as))"  # of a medicine
_STOPS = re.compile(
    rf"\b(?:stop(?:ping|ped)?|discontinu\w+|quit(?:ting)?|ceas\w+|come\s+off|coming\s+off|wean\w*"
    rf"|skip(?:ping)?|omit|withhold|leave\s+(?:out|off)|give\s+up|avoid(?:ing)?|refrain\s+from)\s+"
    rf"{UP_TO}(?:taking|{_MEDICINE})"
    r"|(?<!\bto\s)(?<!\bwill\s)(?<!\bcan\s)(?<!\bcould\s)(?<!\bmay\s)\bstop\s+(?:it|them)\b"
    rf"|{NOT}\s+{UP_TO}be\s+(?:taken|used|given|started|continued|applied|injected)\b"
    rf"{_NOT_MEANT}|\b(?:banned|withdrawn\s+from|(?:off|from)\s+the\s+market"
    r"|no\s+longer\s+(?:recommended|used|prescribed|sold|given))\b"
    rf"|{NOT}\s+{UP_TO}(?:tak(?:e|ing)|us(?:e|ing)|start|continue|apply|give|inject|have)\s+"
    rf"(?:it|them|these|those|any|this|that)\b{_NOT_MEANT}"
    rf"|{NOT}\s+{UP_TO}(?:tak(?:e|ing)|us(?:e|ing)|start|continue|apply|give|inject|have|need)\s+"
    rf"{UP_TO}{_MEDICINE}"
    rf"|\b(?:deje|dejar|deja|suspend\w+|interrump\w+|abandon\w+|evit(?:e|ar)|retir(?:e|ar))\s+"
    rf"{UP_TO}(?:tomar\w*|{_MEDICINE})"
    rf"|\bno\s+(?:\w+\s+){{0,3}}?(?:tom(?:e|es|ar)|us(?:e|es|ar)|necesita)\s+{UP_TO}"
    rf"(?:{_MEDICINE}|nada)|\bno\s+(?:lo|la|los|las)\s+(?:tome|tomes|use)\b",
    re.IGNORECASE,
)
_CHANGES = re.compile(
    rf"\b(?:doubl(?:e|ing)|tripl(?:e|ing)|halv(?:e|ing)|increas(?:e|ing)|rais(?:e|ing)"
    rf"|reduc(?:e|ing)|lower(?:ing)?|cut(?:ting)?|decreas(?:e|ing)|taper(?:ing)?|duplique"
    rf"|aument(?:e|ar)|reduzca|baje|suba)\s+(?:back\s+|down\s+|on\s+)?{UP_TO}{_MEDICINE}",
    re.IGNORECASE,
)
_SAFE = re.compile(
    r"\b(?:safe(?:r|st|ly)?(?!\s+(?:place|distance|side|hands))|harmless|segur[oa]s?"
    r"|inofensiv[oa]s?)\b",
    re.IGNORECASE,
)
_UNSURE = re.compile(
    r"\b(?:not|never|whether|if|until|unless|ask|check|how|no|nunca|si|pregunt\w+)\b|n[\u2019']t\b",
    re.IGNORECASE,
)
_MY_LACK = re.compile(r"\bI\s+do(?:\s+not|n[\u2019']?t)\s+have\b", re.IGNORECASE)
# "Never stop it at once" tells nobody to stop.
_NEGATED = re.compile(
    r"(?:\bnot|n[\u2019']?t|\bnever|\bwithout|\bbefore|\bno|\bsin|\bnunca|\bcannot|\bantes\s+de)\s+"
    r"(?:\w+\s+){0,2}$",
    re.IGNORECASE,
)
_LOOKED_AT = (
    r"(?:see|seen|visit\w*|go|call\w*|consult\w*|contact\w*|seek|attend\w*|worr\w+|doctors?|gp"
    r"|hospitals?|a&e|emergency|medical|tests?|check(?:ed|-?up)?|appointments?|follow-?up|scans?"
    r"|treatment|be\s+concerned)\b"
)
_UNSEEN = re.compile(
    rf"(?:\bno\s+(?:real\s+|further\s+|immediate\s+)?(?:need|reason)|\bnot\s+(?:need|necessary"
    rf"|needed|required|have\s+to)|n[\u2019']?t\s+(?:\w+\s+)?(?:need|have\s+to|require)"
    rf"|\bneed\s+not|\bneedn[\u2019']?t|\bunnecessary|\bno\s+longer\s+need)\s+(?:for\s+)?(?:to\s+)?"
    rf"(?:[\w'-]+\s+){{0,4}}?{_LOOKED_AT}"
    rf"|(?:\bnot|n[\u2019']?t)\s+(?:mean\s+|why\s+|a\s+reason\s+|enough\s+)(?:[\w'-]+\s+){{0,5}}?"
    rf"{_LOOKED_AT}"
    r"|\bnothing\s+(?:serious|dangerous|to\s+(?:worry|be\s+concerned)\s+about)"
    r"|\bno\s+(?:cause|reason|grounds?)\s+for\s+(?:concern|alarm|worry)"
    r"|\b(?:is|it's|are)\s+not\s+(?:an\s+emergency|dangerous|serious|urgent)\b"
    r"|\bno\s+(?:le\s+|te\s+)?(?:hace\s+falta|necesitas?|es\s+necesario|tienes?\s+que|hay\s+que"
    r"|hay\s+necesidad|requiere|precisa)\s+(?:[\w]+\s+){0,4}?(?:ver|vea|ir|vaya|acud\w+|visit\w+"
    r"|consult\w+|llam\w+|preocup\w+|m[eé]dico|doctor|urgencias|hospital|tratamiento|pruebas)\b"
    r"|\bno\s+es\s+(?:nada\s+)?(?:grave|serio|peligroso|urgente)|\bnada\s+(?:grave|serio"
    r"|de\s+qu[eé]\s+preocuparse)|\bno\s+hay\s+(?:de\s+qu[eé]\s+preocuparse"
    r"|motivos?\s+de\s+(?:preocupaci[oó]n|alarma))",
    re.IGNORECASE,
)
# Stems of words that every "no need to be seen" has.
_OF_BEING_SEEN = frozenset(
    {"need", "see", "seen", "docto", "gp", "worry", "neces", "hospi", "treat"}
)


@dataclass(frozen=True)
class Order:
    """A sentence that tells to stop, to change, what is safe, or that nobody need be seen; `things`
    are the medicines and classes that it speaks of, `words` the stems of its content words."""

    kind: OrderKind
    things: frozenset[str]
    words: frozenset[str]


def orders(text: str, there: Sequence[Named]) -> list[Order]:
    """What a text, which names the medicines `there`, tells to stop, to change or not to do, and
    what is safe."""
    plain = _placeholders(text, there)
    named = {each.medicine for each in there}
    things = named | {thing.lower() for thing in re.findall(_MEDICINE, plain, re.I)}
    words = frozenset(content_words(plain)) - _OF_BEING_SEEN
    return [Order(kind, frozenset(things - {"medicine"}), words) for kind in _told(plain)]


def _told(plain: str) -> Iterator[OrderKind]:
    """The kinds of order in a text whose medicines are placeholders."""
    patterns: dict[OrderKind, re.Pattern[str]] = {"stop": _STOPS, "change": _CHANGES}
    for kind, pattern in patterns.items():
        for found in pattern.finditer(plain):
            if not _NEGATED.search(plain[max(0, found.start() - BEFORE) : found.start()]):
                yield kind
                break
    if re.search(_MEDICINE, plain, re.IGNORECASE) and any(
        not _UNSURE.search(plain[max(0, found.start() - BEFORE) : found.start()])
        for found in _SAFE.finditer(plain)
    ):
        yield "safe"
    if _UNSEEN.search(plain):
        yield "unseen"


def _placeholders(text: str, there: Sequence[Named]) -> str:
    for named in reversed(there):
        text = f"{text[: named.start]}MEDICINE{text[named.end :]}"
    return _MY_LACK.sub("I lack", text)
