"""How urgent a patient's message is, and of which kind.

Owns the verdict: the encoder's probabilities, raised by the phrases that nobody may miss, against
the thresholds of their price. Does not know what is said to the patient (`emergency.py`), nor what
a verdict does to a conversation (`watch.py`).

A notice too many costs a line and some trust, a missed one may cost a life; docs/safety.md says
how the thresholds weigh the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from agent.safety.phrases import unmistakable
from agent.understanding.encoder import Reading, shipped
from agent.understanding.labels import Degree, Kind, Said

# Probabilities from which on: an ambulance now; a crisis of suicide, now or not; a person soon.
NOW, CRISIS, SOON = 0.5, 0.5, 0.6
RAISED = 3.0  # log odds that an unmistakable phrase adds


@dataclass(frozen=True)
class Verdict:
    """How soon somebody must look at it, and the kind of emergency that it is or comes nearest."""

    degree: Degree
    kind: Kind | None

    @property
    def emergency(self) -> bool:
        """Whether it gets the notice: now, or a crisis of suicide."""
        return self.degree == "now" or (self.degree == "soon" and self.kind == "suicide")


CALM = Verdict("none", None)


def triage(text: str) -> Verdict:
    """The verdict on `text`, a patient's message.

    Any string is accepted, of any length. It takes milliseconds: call it off the event loop.
    Raises AgentError if the encoder cannot be loaded.
    """
    return verdicts([text])[0]


def verdicts(texts: list[str]) -> list[Verdict]:
    """The verdict on each of several messages, read together."""
    readings = shipped().read([Said(text) for text in texts])
    return [judge(text, reading) for text, reading in zip(texts, readings, strict=True)]


def judge(text: str, reading: Reading) -> Verdict:
    """What the encoder read, and the phrases, as a verdict."""
    now, soon = reading.degree["now"], reading.degree["soon"]
    kinds: dict[Kind, float] = {kind: reading.kind[kind] for kind in get_args(Kind)}
    if phrase := unmistakable(text):
        odds = math.exp(RAISED)
        whole = odds * now + 1 - now
        now, soon = odds * now / whole, soon / whole
        kinds[phrase] *= odds
    kind = max(kinds, key=lambda each: kinds[each])
    if kind == "suicide" and now + soon >= CRISIS:
        return Verdict("now" if now >= soon else "soon", kind)
    if now >= NOW:
        return Verdict("now", kind)
    if now + soon >= SOON:
        return Verdict("soon", kind)
    return CALM
