"""What a machine must not say alone: doses, medicines, "stop taking it", "it is safe for you", "no
need to see anyone".

Owns which claims a sentence makes, and whether the replies that are shown, or the patient's own
words, bear them. Does not know what becomes of a sentence that nobody bears, nor who wrote it.

A medicine must be named in a shown reply or by the patient, by whatever name; a dose, a frequency
and a length of treatment must stand there too, in a passage (a sentence and its neighbours) that
names the medicine which they are given for. To stop or not to take a medicine, to change a dose,
that one is safe, or that nobody need be seen must be said by a shown reply of the same thing: a
patient who asks "may I stop it?" bears nothing. Of an LLM that knows no medicine, whatever it
states of one must have a reply that names it: that the patient did bears nothing, either. The rules
are English and Spanish.

What it cannot see: a medicine that `medicines` does not know, a class without a name and a number
("an antibiotic may help"), advice that is dangerous without any of these words, and that a dose of
a shown reply was meant for somebody of another age or weight.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal

from agent.chat.amounts import Dose, doses, is_time_alone, lengths, rates, treats
from agent.chat.medicines import Named, medicines
from agent.chat.numbers import PART_SIGNS
from agent.chat.orders import NOT, UP_TO, Order, orders, orders_anything
from agent.chat.support import sentences, states

ClaimKind = Literal["medicine", "dose", "frequency", "length", "stop", "change", "safe", "unseen"]

ALIKE = 0.5  # share of the words that an order must have in common with the reply that gives it

_KNOWS_NOT = re.compile(
    r"(?:\bcan(?:not|\s?['\u2019]?t)|n['\u2019]t|\b(?:not|no|nothing|rather))\b.{0,60}"
    r"\b(?:say|tell|know(?:ing)?|guess|answer|state|explain|judge|quote)\b",
    re.IGNORECASE,
)
# Of Markdown and HTML, and what no one sees; "2*200 mg" has none.
_MARKUP = re.compile(
    r"(?<!\d)[*_`~]+|[*_`~]+(?!\d)|</?[a-z]{1,10}\s?/?>|[\u00ad\u200b-\u200d\u2060\ufeff]",
    re.IGNORECASE,
)
_HOW_OFTEN = re.compile(r"\b(?:how\s+(?:many|much|often|long)|cu[aá]nt[oa]s?)\b.*\?", re.IGNORECASE)
# Between a dose and its medicine.
_OF = re.compile(r"\s*(?:of|de)?\s*", re.IGNORECASE)
# With these words a sentence may begin to claim something; until then its words may go on.
_MAY_CLAIM = re.compile(
    rf"\d|[{PART_SIGNS}%]|\b(?:stop\w*|discontinu\w+|quit\w*|ceas\w+|com(?:e|ing)\s+off|wean\w*|skip\w*"
    rf"|omit|hold(?:ing)?|withhold|leave\s+(?:out|off)|give\s+up|avoid\w*|refrain|doubl\w+|tripl\w+|halv\w+"
    rf"|increas\w+|rais\w+|reduc\w+|lower\w*|cut\w*|decreas\w+|taper\w*|dej\w+|suspend\w+"
    rf"|interrump\w+|abandon\w+|evit\w+|retir\w+|duplique|aument\w+|baje|suba|unnecessary|nothing"
    rf"|nada|no\s+(?:\w+\s+)?(?:need|reason|cause|grounds)|needn\W?t|\w+n[\u2019']t\s+(?:mean|an?"
    rf"|why|enough)|not\s+(?:an?|why|mean|enough|necessary|needed|required|worth|danger\w+|serious|urgent)"
    rf"|(?:not|don[\u2019']?t|never)\s+(?:bother|go|see|call|visit|consult|contact|seek|ring)"
    rf"|(?:is|are)n[\u2019']t|nobody|no\s?-?one\s+need|no\s+(?:medical|doctor\w*|hospital|tests?|visit)"
    rf"|cancel\w*|postpone|forgo|paus\w+|innecesari\w+|sin\s+necesidad"
    rf"|no\s+(?:vaya|acuda|llame|consulte|visite|pida|busque)"
    rf"|no\s+(?:le|te|hace|necesita\w*|es|tiene\w*|hay|requiere|precisa|lo|la|los|las|us\w+|tom\w+)"
    rf"|not\s+be|banned|withdrawn|market|no\s+longer|lifelong|indefinitely|indefinidamente"
    rf"|safe\w*|harmless|segur[oa]s?|inofensiv\w+)\b"
    rf"|{NOT}\s+{UP_TO}(?:us(?:e|ing)|start|continue|give|have|need|requir\w+)\b",
    re.IGNORECASE,
)


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
        return before[-1] if before else next((each.medicine for each in self.medicines), None)

    @cached_property
    def treats(self) -> bool:
        """Whether it speaks of a treatment."""
        return bool(self.named) or treats(self.text)

    @property
    def timed(self) -> bool:
        """Whether its rates and lengths are those of a treatment, and not of a walk; a sentence
        of nothing else ("Twice a day for a week.") goes on from one that says of what."""
        if _HOW_OFTEN.search(self.text):
            return False
        return bool(self.doses) or self.treats or is_time_alone(self.text)

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
        return orders(self.text, self.medicines)


class Borne:
    """What the shown replies and the patient's own messages bear."""

    def __init__(
        self, replies: Sequence[str], patient: Sequence[str], knows_medicines: bool = True
    ) -> None:
        """`knows_medicines`: whether the LLM may speak of one that only the patient names."""
        of_replies = [w for text in replies for w in _windows(text)]
        self._windows = [*of_replies, *(w for text in patient for w in _windows(text))]
        treated = [w for text in patient for w in _windows(_of_treatment(text))]
        self._timed = [*of_replies, *treated]
        self._named = frozenset(m for window in self._windows for m in window.named)
        naming = self._windows if knows_medicines else of_replies
        self._sourced = frozenset(m for window in naming for m in window.named)
        said = [_one_line(text[slice(*span)]) for text in replies for span in sentences(text)]
        self._orders = [order for sentence in said for order in Facts(sentence).orders]

    def unborne(self, sentence: str) -> frozenset[ClaimKind]:
        """The kinds of claim in a sentence that nothing bears."""
        facts = Facts(_one_line(sentence))
        found: set[ClaimKind] = {order.kind for order in facts.orders if not self._gives(order)}
        unsourced = not facts.named <= self._sourced and states(sentence)
        if not facts.named <= self._named or (unsourced and not _KNOWS_NOT.search(sentence)):
            found.add("medicine")
        for dose in filter(lambda dose: dose.counted, facts.doses):
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
                for window in self._timed
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
    begun = _one_line(begun)
    facts = Facts(begun)
    return bool(
        _MAY_CLAIM.search(begun)
        or facts.timed
        or any(dose.counted for dose in facts.doses)
        or orders_anything(begun, facts.medicines)
    )


def _of_treatment(text: str) -> str:
    """A patient's words without the sentences that tell how often and how long they suffer."""
    said = [text[slice(*span)] for span in sentences(text)]
    return "\n\n".join(
        s for s in said if (f := Facts(_one_line(s))).timed or not f.rates | f.lengths
    )


def _windows(text: str) -> list[Facts]:
    """Each sentence with its neighbours."""
    said = [_one_line(text[slice(*span)]) for span in sentences(text)]
    return [Facts(" ".join(said[max(0, place - 1) : place + 2])) for place in range(len(said))]


def _one_line(text: str) -> str:
    """Its words alone, with one space between: a pattern that skips many takes the square of their
    number, and "do **not** take" says what "do not take" does."""
    return " ".join(_MARKUP.sub("", html.unescape(text)).split())
