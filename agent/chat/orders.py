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
    r"|medicaci[oó]n|insulina|anticoagulantes?|antidepresivos?|analg[eé]sicos?|inhalador(?:es)?|f[aá]rmacos?)\b"
)
NOT = (
    r"(?:\b(?:do|does|should|must|need|can|could|may|would)\s*n[o'\u2019]?t|\bdon\s?[\u2019']?t"
    r"|\bcannot|\bnever|\bno\s+(?:longer\s+)?need\s+to|\bnot\s+(?:need|have|necessary|to)(?:\s+to)?"
    r"|\bneedn\W?t|\bneed\s+not|\b(?:should|must|can|could|may|do)\s+not|\bwithout)"
)
_NOT_MEANT = r"(?!\s+(?:lightly|personally|for\s+granted|as))"  # of a medicine
# Between "not" and "take": "do not stop taking it", "don't forget to take it" tell to take it.
_STILL = (
    r"(?:(?!(?:stop|quit|discontinu|forget|hesitat|delay|skip|miss|fail|afraid|before|until|unless"
    r"|dej|suspend|interrump|abandon|olvid|dud|tem)\w*\s)[\w'-]+\s+){0,4}?"
)
_TAKING = r"(?:tak(?:e|ing)|us(?:e|ing)|start|continue|keep|apply|give|inject|have)"
_MAY_BE = (
    r"\s+(?:(?!not\b|never\b|n[o\u2019']t\b)\w+\s+){0,3}?"
    r"(?:can|could|may|might|should|must|has\s+to|have\s+to|ought\s+to|needs?\s+to|(?:is|are)\s+to)"
    r"\s+(?:(?:now|also|safely|simply|then|just|therefore|probably|immediately)\s+)?be\s+(?:\w+ly\s+)?"
)
_BY_SOMEBODY = r"\b(?!\s+(?:only\s+)?by\b)"
_DEBE = (
    r"\s+(?:(?!no\b|nunca\b)\w+\s+){0,2}?(?:se\s+)?"
    r"(?:debe|deber[ií]a|puede|tiene\s+que|ha\s+de)\s+(?:ser\s+)?"
)
_WORD = r"\b(?=\w)"  # an order begins with a word: elsewhere none of its forms is tried
_STOPS = re.compile(
    rf"{_WORD}(?:\b(?:stop(?:ping|ped)?|discontinu\w+|quit(?:ting)?|ceas\w+|(?:come|coming|get|getting)\s+off"
    rf"|wean\w*|skip(?:ping)?|omit|withhold|leave\s+(?:out|off)|give\s+up|avoid(?:ing)?|hold\s+off"
    rf"|paus(?:e|ing)|halt|suspend|refrain\s+from|(?:stay|keep)\s+(?:away\s+from|off)"
    rf"|steer\s+clear\s+of|(?:go|do)\s+without|no\s+longer\s+(?:need|require)s?"
    rf"|tak(?:e|ing)\s+no(?:\s+more)?|miss\s+your\s+next)\s+{UP_TO}(?:taking|{_MEDICINE})"
    rf"|\b(?:leav|throw|put|tak)(?:e|ing)?\s+{UP_TO}{_MEDICINE}\s+(?:out|off|away)\b"
    # As doctors say it of a medicine by name; "hold the salbutamol inhaler upright" is no order.
    r"|\bhold(?:ing)?\s+(?:(?:the|your|that|this|all|morning|evening|next|dose|of)\s+){0,4}MEDICINE\b"
    r"(?!\s+(?:(?:inhaler|tablet|pill|spray|drop|gel|cream|patch|pen)(?:e?s)?|upright|under|against|above)\b)"
    r"|(?<!\bto\s)(?<!\bwill\s)(?<!\bcan\s)(?<!\bcould\s)(?<!\bmay\s)\bstop\s+(?:it|them)\b"
    rf"|{_MEDICINE}{_MAY_BE}(?:stopped|discontinued|withheld|suspended|omitted|avoided|paused|halted"
    rf"|held|withdrawn|interrupted|left\s+out){_BY_SOMEBODY}"
    rf"|{_MEDICINE}\s+(?:is|are)(?:\s+(?:not|no\s+longer)|n[\u2019']t)\s+(?:needed|necessary|required)\b"
    rf"|{_MEDICINE}\s+(?:is|are)\s+unnecessary\b"
    rf"|{NOT}\s+{UP_TO}be\s+(?:taken|used|given|started|continued|applied|injected)\b"
    rf"{_NOT_MEANT}|\b(?:banned|withdrawn\s+from|(?:off|from)\s+the\s+market"
    r"|no\s+longer\s+(?:recommended|used|prescribed|sold|given))\b"
    rf"|{NOT}\s+{_STILL}{_TAKING}\s+(?:it|them|these|those|any|this|that)\b{_NOT_MEANT}"
    rf"|{NOT}\s+{_STILL}(?:{_TAKING}|need)\s+{_STILL}{_MEDICINE}"
    rf"|\b(?:deje|dejar|deja|suspend\w+|interrump\w+|abandon\w+|evit(?:e|ar)|retir(?:e|ar)"
    rf"|s[aá]lte(?:se)?|omit(?:a|ir)|prescind\w+)\s+{UP_TO}(?:tomar\w*|{_MEDICINE})"
    rf"|{_MEDICINE}{_DEBE}(?:suspend|interrump|abandon|retir|evit|dej)\w+"
    rf"|\bno\s+{_STILL}(?:tom(?:e|es|ar|ando)|us(?:e|es|ar|ando)|necesita|precisa|(?:hace|hacen)\s+falta)\s+"
    rf"{UP_TO}(?:{_MEDICINE}|nada)|\bno\s+(?:lo|la|los|las)\s+(?:tome|tomes|use)\b)",
    re.IGNORECASE,
)
_CHANGES = re.compile(
    rf"{_WORD}(?:\b(?:doubl(?:e|ing)|tripl(?:e|ing)|halv(?:e|ing)|increas(?:e|ing)|rais(?:e|ing)"
    rf"|reduc(?:e|ing)|lower(?:ing)?|cut(?:ting)?|decreas(?:e|ing)|taper(?:ing)?"
    rf"|switch(?:ing)?\s+(?:to|from)|tak(?:e|ing)\s+(?:more|less|fewer|extra)|duplique"
    rf"|aument(?:e|ar)|reduzca|reducir|baje|suba|bajar|subir)\s+(?:back\s+|down\s+|on\s+)?{UP_TO}{_MEDICINE}"
    rf"|{_MEDICINE}{_MAY_BE}(?:doubled|tripled|halved|increased|raised|reduced|lowered|cut|decreased"
    rf"|tapered){_BY_SOMEBODY}"
    rf"|\b(?:tak(?:e|ing)|us(?:e|ing))\s+(?:more|less)\s+than\s+(?:\w+\s+)?(?:prescribed|directed|ordered)"
    r"|\b(?:tome|tomar|use|usar)\s+(?:el\s+doble|m[aá]s\s+de\s+lo\s+(?:recetado|prescrito|indicado))\b)",
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
_DOCTOR = (
    r"(?:doctors?|gp|physician|specialist|pharmacist|nurse|cardiologist|psychiatrist|m[eé]dic[oa]"
    r"|especialista|farmac[eé]utic[oa])"
)
# What is asked, or what a doctor may decide, tells nobody to do it.
_LEFT_OPEN = re.compile(
    r"(?:\bwhether|\bsi\s+(?:debe|deber[ií]a|puede|conviene|hay\s+que|tiene\s+que))\b[^.,;:]*$"
    rf"|\b{_DOCTOR}\s+(?:may|might|could|can|will|would|puede|podr[ií]a)\s+"
    r"(?:(?!you\b|le\b|te\b)\w+\s+){0,3}$",
    re.IGNORECASE,
)
_SUGGESTS = re.compile(
    r"\b(?:why\s+(?:not|don)|how\s+about|what\s+about|por\s+qu[eé]\s+no|qu[eé]\s+tal)", re.I
)
_LOOKED_AT = (
    r"(?:see|seen|visit\w*|go|call\w*|consult\w*|contact\w*|seek|attend\w*|worr\w+|doctors?|gp"
    r"|hospitals?|a&e|emergency|medical|tests?|check(?:ed|-?up)?|appointments?|follow-?up|scans?"
    r"|treatment|be\s+concerned)\b"
)
_BY_WHOM = (
    r"(?:doctors?|gp|physicians?|specialists?|hospital|a&e|emergency|ambulance|clinic|nurse|anyone"
    r"|anybody|medical|appointment|visit|check-?up|examination|tests?|scan|follow-?up|attention)\b"
)
_A_FEW = r"(?:(?!before\b|after\b|until\b|during\b|while\b|when\b|if\b|unless\b)[\w'\u2019-]+\s+)"
_UNSEEN = re.compile(
    rf"(?:\bno\s+(?:real\s+|further\s+|immediate\s+)?(?:need|reason)|\bnot\s+(?:need|necessary"
    rf"|needed|required|require|have\s+to|worth)|n[\u2019']?t\s+(?:\w+\s+)?(?:need|have\s+to|require"
    rf"|worth)|\bneed\s+not|\bneedn[\u2019']?t|\bunnecessary|\bno\s+longer\s+need|\bno\s+point(?:\s+in)?)"
    rf"\s+(?:for\s+)?(?:to\s+)?{_A_FEW}{{0,4}}?{_LOOKED_AT}"
    rf"|(?:\bnot|n[\u2019']?t)\s+(?:mean\s+|why\s+|a\s+reason\s+|enough\s+)(?:[\w'-]+\s+){{0,5}}?"
    rf"{_LOOKED_AT}"
    rf"|\b{_BY_WHOM}[\w\s]{{0,30}}?(?:\b(?:is|are)(?:\s+not|n[\u2019']t)\s+(?:\w+ly\s+)?"
    r"(?:needed|necessary|required|worth\w*)|\b(?:is|are)\s+unnecessary)\b"
    rf"|\bno\s+{_A_FEW}{{0,2}}?{_BY_WHOM}\s+(?:\w+\s+){{0,2}}?(?:needed|necessary|required)\b"
    r"|\b(?:nobody|no\s?-?one)\s+needs?\s+(?:to\s+)?(?:look|see|check|examine)\b"
    rf"|(?<!you )(?<!they )(?<!\bI )(?<!we )(?:\bdo\s+not|\bdon[\u2019']?t|\bnever)\s+"
    rf"(?:bother|go|see|call|visit|consult|contact|seek|ring)\s+{_A_FEW}{{0,4}}?{_BY_WHOM}"
    r"|\bnothing\s+(?:serious|dangerous|to\s+(?:worry|be\s+concerned)\s+about)"
    r"|\bno\s+(?:cause|reason|grounds?)\s+for\s+(?:concern|alarm|worry)"
    r"|(?<!if )(?<!if it )\b(?:is|it's|are)(?:\s+not|n[\u2019']t)\s+"
    r"(?:an\s+emergency|dangerous|serious|urgent)\b"
    r"|\bno\s+(?:le\s+|te\s+)?(?:hace\s+falta|necesitas?|es\s+(?:necesario|preciso)|tienes?\s+que"
    r"|hay\s+que|hay\s+necesidad|hay\s+por\s+qu[eé]|requiere|precisa)\s+(?:[\w]+\s+){0,4}?(?:ver|vea"
    r"|ir|vaya|acud\w+|visit\w+|consult\w+|llam\w+|preocup\w+|alarm\w+|m[eé]dic[oa]|doctor|urgencias"
    r"|hospital|tratamiento|pruebas|atenci[oó]n|revisi[oó]n)\b"
    r"|(?:\bsin\s+necesidad\s+de|\b(?:es\s+)?innecesari[oa])\s+(?:\w+\s+){0,3}?(?:ver|ir|acud\w+"
    r"|visit\w+|consult\w+|llam\w+|m[eé]dic[oa])\b"
    r"|\bno\s+(?:vaya|acuda|llame|consulte|visite|pida|busque)\s+(?:\w+\s+){0,3}?(?:m[eé]dic[oa]|doctor"
    r"|urgencias|hospital|ambulancia|cita|consulta|emergencias)\b"
    r"|\bno\s+es\s+(?:nada\b|una?\s+(?:emergencia|urgencia)|grave|serio|peligroso|urgente)"
    r"|\bno\s+tiene\s+importancia|\bnada\s+(?:grave|serio|de\s+qu[eé]\s+preocuparse)"
    r"|\bno\s+hay\s+(?:de\s+qu[eé]\s+preocuparse|motivos?\s+de\s+(?:preocupaci[oó]n|alarma))",
    re.IGNORECASE,
)
_MISSES = re.compile(
    rf"\b(?:skip|cancel|miss|postpone|put\s+off|forgo|c[aá]ncele|anule|posponga)\s+{_A_FEW}{{0,3}}?"
    rf"(?:{_BY_WHOM}|cita|consulta|m[eé]dico)",
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
    things = named | {
        thing.lower().removesuffix("s") for thing in re.findall(_MEDICINE, plain, re.I)
    }
    words = frozenset(content_words(plain)) - _OF_BEING_SEEN
    return [Order(kind, frozenset(things - {"medicine"}), words) for kind in _told(plain)]


def orders_anything(text: str, there: Sequence[Named]) -> bool:
    """Whether `orders` would find any."""
    return any(_told(_placeholders(text, there)))


def _told(plain: str) -> Iterator[OrderKind]:
    """The kinds of order in a text whose medicines are placeholders."""
    asks = plain.rstrip("\"'\u201d\u2019)*_ ").endswith("?")
    suggested = _SUGGESTS.sub("", plain)  # "why not stop it?"
    if not asks or suggested != plain:
        plain = suggested
        if _orders(_STOPS, plain):
            yield "stop"
        if _orders(_CHANGES, plain):
            yield "change"
    if any(
        not _UNSURE.search(plain[max(0, found.start() - BEFORE) : found.start()])
        for found in _SAFE.finditer(plain)
    ) and re.search(_MEDICINE, plain, re.IGNORECASE):
        yield "safe"
    if _UNSEEN.search(plain) or _orders(_MISSES, plain):
        yield "unseen"


def _orders(pattern: re.Pattern[str], plain: str) -> bool:
    """Whether it is found where nothing negates it or leaves it open."""
    for found in pattern.finditer(plain):
        before = plain[max(0, found.start() - BEFORE) : found.start()]
        if not _NEGATED.search(before) and not _LEFT_OPEN.search(before):
            return True
    return False


def _placeholders(text: str, there: Sequence[Named]) -> str:
    for named in reversed(there):
        text = f"{text[: named.start]}MEDICINE{text[named.end :]}"
    return _MY_LACK.sub("I lack", text)
