"""What a machine must not say alone: doses, medicines, "stop taking it", "it is safe for you", "no
need to see anyone".

Owns which claims a sentence makes, and whether the replies that are shown, or the patient's own
words, bear them. Does not know what becomes of a sentence that nobody bears, nor who wrote it.

A medicine must be named in a shown reply or by the patient, by whatever name; a dose, a frequency
and a length of treatment must stand there too, in a passage (a sentence and its neighbours) that
names the medicine which they are given for. To stop or not to take a medicine, to change a dose,
that one is safe, or that nobody need be seen must be said by a shown reply of the same thing: a
patient who asks "may I stop it?" bears nothing. The rules are English and Spanish.

What it cannot see: a medicine that `medicines` does not know, a class without a name and a number
("an antibiotic may help"), advice that is dangerous without any of these words, and that a dose of
a shown reply was meant for somebody of another age or weight.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal

from agent.chat.amounts import Dose, doses, lengths, rates, treats
from agent.chat.medicines import Named, medicines
from agent.chat.support import content_words, sentences

Kind = Literal["medicine", "dose", "frequency", "length", "stop", "change", "safe", "unseen"]

BEFORE = 60  # characters in which an order is negated
ALIKE = 0.5  # share of the words that an order must have in common with the reply that gives it

_UP_TO = r"(?:[\w'-]+\s+){0,4}?"
_MEDICINE = (
    r"(?:MEDICINE|medic(?:ines?|ations?|amentos?|inas?)|meds|drugs?|tablets?|pills?|capsules?"
    r"|treatment|therapy|dos(?:e|es|age)|antibiotics?|steroids?|statins?|insulin"
    r"|(?:blood )?thinners?|anticoagulants?|antidepressants?|painkillers?|inhalers?|injections?"
    r"|contraceptives?|beta-?blockers?|diuretics?|vaccines?|chemo\w*|drops|creams?|ointment"
    r"|anti-?inflammator(?:y|ies)|nsaids?|antihistamines?|laxatives?|supplements?|prescription"
    r"|tratamiento|pastillas?|comprimidos?|c[aá]psulas?|dosis|antibi[oó]ticos?|corticoides?"
    r"|insulina|anticoagulantes?|antidepresivos?|analg[eé]sicos?|inhalador(?:es)?|f[aá]rmacos?)\b"
)
_NOT = (
    r"(?:\b(?:do|does|should|must|need|can|could|may|would)\s*n[o'\u2019]?t|\bdon\s?[\u2019']?t"
    r"|\bcannot|\bnever|\bno\s+(?:longer\s+)?need\s+to|\bnot\s+(?:need|have|necessary|to)(?:\s+to)?"
    r"|\bneedn\W?t|\bneed\s+not|\b(?:should|must|can|could|may|do)\s+not|\bwithout)"
)
_NOT_MEANT = r"(?!\s+(?:lightly|personally|for\s+granted|as))"  # of a medicine
_STOPS = re.compile(
    rf"\b(?:stop(?:ping|ped)?|discontinu\w+|quit(?:ting)?|ceas\w+|come\s+off|coming\s+off|wean\w*"
    rf"|skip(?:ping)?|omit|withhold|leave\s+(?:out|off)|give\s+up|avoid(?:ing)?|refrain\s+from)\s+"
    rf"{_UP_TO}(?:taking|{_MEDICINE})"
    r"|(?<!\bto\s)(?<!\bwill\s)(?<!\bcan\s)(?<!\bcould\s)(?<!\bmay\s)\bstop\s+(?:it|them)\b"
    rf"|{_NOT}\s+{_UP_TO}be\s+(?:taken|used|given|started|continued|applied|injected)\b"
    rf"{_NOT_MEANT}|\b(?:banned|withdrawn\s+from|(?:off|from)\s+the\s+market"
    r"|no\s+longer\s+(?:recommended|used|prescribed|sold|given))\b"
    rf"|{_NOT}\s+{_UP_TO}(?:tak(?:e|ing)|us(?:e|ing)|start|continue|apply|give|inject|have)\s+"
    rf"(?:it|them|these|those|any|this|that)\b{_NOT_MEANT}"
    rf"|{_NOT}\s+{_UP_TO}(?:tak(?:e|ing)|us(?:e|ing)|start|continue|apply|give|inject|have|need)\s+"
    rf"{_UP_TO}{_MEDICINE}"
    rf"|\b(?:deje|dejar|deja|suspend\w+|interrump\w+|abandon\w+|evit(?:e|ar)|retir(?:e|ar))\s+"
    rf"{_UP_TO}(?:tomar\w*|{_MEDICINE})"
    rf"|\bno\s+(?:\w+\s+){{0,3}}?(?:tom(?:e|es|ar)|us(?:e|es|ar)|necesita)\s+{_UP_TO}"
    rf"(?:{_MEDICINE}|nada)|\bno\s+(?:lo|la|los|las)\s+(?:tome|tomes|use)\b",
    re.IGNORECASE,
)
_CHANGES = re.compile(
    rf"\b(?:doubl(?:e|ing)|tripl(?:e|ing)|halv(?:e|ing)|increas(?:e|ing)|rais(?:e|ing)"
    rf"|reduc(?:e|ing)|lower(?:ing)?|cut(?:ting)?|decreas(?:e|ing)|taper(?:ing)?|duplique"
    rf"|aument(?:e|ar)|reduzca|baje|suba)\s+(?:back\s+|down\s+|on\s+)?{_UP_TO}{_MEDICINE}",
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
# Between a dose and its medicine.
_OF = re.compile(r"\s*(?:of|de)?\s*", re.IGNORECASE)
# With these words a sentence may begin to claim something; until then its words may go on.
_MAY_CLAIM = re.compile(
    rf"\d|[½¼%]|\b(?:stop\w*|discontinu\w+|quit\w*|ceas\w+|com(?:e|ing)\s+off|wean\w*|skip\w*"
    rf"|omit|withhold|leave\s+(?:out|off)|give\s+up|avoid\w*|refrain|doubl\w+|tripl\w+|halv\w+"
    rf"|increas\w+|rais\w+|reduc\w+|lower\w*|cut\w*|decreas\w+|taper\w*|dej\w+|suspend\w+"
    rf"|interrump\w+|abandon\w+|evit\w+|retir\w+|duplique|aument\w+|baje|suba|unnecessary|nothing"
    rf"|nada|no\s+(?:\w+\s+)?(?:need|reason|cause|grounds)|needn\W?t|\w+n[\u2019']t\s+(?:mean|an?"
    rf"|why|enough)|not\s+(?:an?|why|mean|enough|necessary|required|danger\w+|serious|urgent)"
    rf"|no\s+(?:le|te|hace|necesita\w*|es|tiene\w*|hay|requiere|precisa|lo|la|los|las|us\w+|tom\w+)"
    rf"|not\s+be|banned|withdrawn|market|no\s+longer|lifelong|indefinitely|indefinidamente"
    rf"|safe\w*|harmless|segur[oa]s?|inofensiv\w+)\b"
    rf"|{_NOT}\s+{_UP_TO}(?:us(?:e|ing)|start|continue|give|have|need|requir\w+)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Order:
    """A sentence that tells to stop, to change, what is safe, or that nobody need be seen; `things`
    are the medicines and classes that it speaks of, `words` the stems of its content words."""

    kind: Kind
    things: frozenset[str]
    words: frozenset[str]


@dataclass(frozen=True)
class Facts:
    """What a text says that could be a claim."""

    text: str

    @cached_property
    def medicines(self) -> list[Named]:
        """Where each is named, and which it is."""
        return medicines(self.text)

    @cached_property
    def named(self) -> frozenset[str]:
        """The medicines."""
        return frozenset(each.medicine for each in self.medicines)

    @cached_property
    def doses(self) -> list[Dose]:
        """Where each stands, and how much of what it is."""
        return list(doses(self.text))

    @cached_property
    def amounts(self) -> frozenset[tuple[Fraction, str]]:
        """The doses alone."""
        return frozenset((dose.amount, dose.unit) for dose in self.doses)

    def given_for(self, dose: Dose) -> str | None:
        """The medicine of a dose: the one right after it ("500 mg of X"), or else the last before
        it, or the first."""
        for each in self.medicines:
            if _OF.fullmatch(self.text, dose.end, each.start):
                return each.medicine
        before = [each.medicine for each in self.medicines if each.start <= dose.start]
        return before[-1] if before else next(iter(self.named), None)

    @cached_property
    def treats(self) -> bool:
        """Whether it speaks of a treatment."""
        return bool(self.named) or treats(self.text)

    @property
    def timed(self) -> bool:
        """Whether its rates and lengths are those of a treatment, and not of a walk."""
        return bool(self.doses) or self.treats

    @cached_property
    def rates(self) -> frozenset[Fraction]:
        """Times a day."""
        return frozenset(rates(self.text))

    @cached_property
    def lengths(self) -> frozenset[Fraction]:
        """Days of treatment."""
        return frozenset(lengths(self.text))

    @cached_property
    def orders(self) -> list[Order]:
        """What it tells to stop, to change or not to do, and what is safe."""
        plain = _placeholders(self.text)
        things = self.named | {thing.lower() for thing in re.findall(_MEDICINE, plain, re.I)}
        words = frozenset(content_words(plain)) - _OF_BEING_SEEN
        return [Order(kind, frozenset(things - {"medicine"}), words) for kind in _told(plain)]


class Borne:
    """What the shown replies and the patient's own messages bear."""

    def __init__(self, replies: Sequence[str], patient: Sequence[str]) -> None:
        self._windows = [w for text in (*replies, *patient) for w in _windows(text)]
        self._named = frozenset(m for window in self._windows for m in window.named)
        said = [_one_line(text[slice(*span)]) for text in replies for span in sentences(text)]
        self._orders = [order for sentence in said for order in Facts(sentence).orders]

    def unborne(self, sentence: str) -> frozenset[Kind]:
        """The kinds of claim in a sentence that nothing bears."""
        facts = Facts(_one_line(sentence))
        found: set[Kind] = {order.kind for order in facts.orders if not self._gives(order)}
        if not facts.named <= self._named:
            found.add("medicine")
        for dose in facts.doses:
            if (dose.unit != "%" or facts.treats) and not self._has(facts, dose):
                found.add("dose")
        if facts.timed and not self._times(facts, lambda window: window.rates):
            found.add("frequency")
        if facts.timed and not self._times(facts, lambda window: window.lengths):
            found.add("length")
        return frozenset(found)

    def _has(self, facts: Facts, dose: Dose) -> bool:
        """Whether a passage has this dose, of the medicine that it is given for."""
        medicine = facts.given_for(dose)
        return any(
            (dose.amount, dose.unit) in window.amounts
            and (medicine is None or medicine in window.named)
            for window in self._windows
        )

    def _times(self, facts: Facts, of: Callable[[Facts], frozenset[Fraction]]) -> bool:
        """Whether each of a sentence's rates or lengths stands in a passage with one of its
        medicines, if it names any."""
        return all(
            any(
                value in of(window) and (not facts.named or facts.named & window.named)
                for window in self._windows
            )
            for value in of(facts)
        )

    def _gives(self, order: Order) -> bool:
        for given in self._orders:
            alike = len(order.words & given.words) >= ALIKE * max(1, len(order.words))
            # What is said of one medicine is not said of all.
            of_it = order.things <= given.things and bool(order.things) == bool(given.things)
            if given.kind == order.kind and of_it and alike:
                return True
        return False


def may_claim(begun: str) -> bool:
    """Whether a sentence that has begun so may turn out to claim something."""
    return bool(_MAY_CLAIM.search(begun) or treats(begun) or medicines(begun) or any(doses(begun)))


def _told(plain: str) -> Iterator[Kind]:
    """The kinds of order in a text whose medicines are placeholders."""
    patterns: tuple[tuple[Kind, re.Pattern[str]], ...] = (("stop", _STOPS), ("change", _CHANGES))
    for kind, pattern in patterns:
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


def _placeholders(text: str) -> str:
    for named in reversed(medicines(text)):
        text = f"{text[: named.start]}MEDICINE{text[named.end :]}"
    return _MY_LACK.sub("I lack", text)


def _windows(text: str) -> list[Facts]:
    """Each sentence with its neighbours."""
    said = [_one_line(text[slice(*span)]) for span in sentences(text)]
    return [Facts(" ".join(said[max(0, place - 1) : place + 2])) for place in range(len(said))]


def _one_line(text: str) -> str:
    """With one space between words: a pattern that skips many takes the square of their number."""
    return " ".join(text.split())
