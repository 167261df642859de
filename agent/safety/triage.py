"""How urgent a patient's message is, and of which kind.

Owns the verdict: the encoder's probabilities, raised by the phrases that nobody may miss, against
the thresholds of their price; and the threads of the messages to be answered, so that no other work
is before them. Does not know what is said to the patient (`emergency.py`), nor what a verdict does
to a conversation (`watch.py`).

A notice too many costs a line and some trust, a missed one may cost a life; docs/safety.md says
how the thresholds weigh the two.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import get_args

from agent.errors import AgentError
from agent.safety.phrases import tells_no_more_than_who, unmistakable
from agent.understanding.encoder import Reading, behind, shipped
from agent.understanding.labels import Degree, Kind, Said

KINDS = get_args(Kind)
# Probabilities from which on: a crisis of suicide, now or not; an ambulance now; a person soon.
CRISIS, NOW, SOON = 0.4, 0.33, 0.5
RAISED = 2.3  # log odds that an unmistakable phrase adds
SHORT = 2000  # characters of a batch of earlier messages, read in some tenths of a second
# A thread for each length in characters: a line waits for no letter, and a letter for no book.
_threads = {most: ThreadPoolExecutor(1, "triage") for most in (SHORT, 8000, 32_000, math.inf)}


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


async def judged(text: str) -> Verdict:
    """The verdict on the message to be answered, which waits for nothing but others of its length.

    Raises as `triage`.
    """
    thread = next(each for most, each in _threads.items() if len(text) <= most)
    (found,) = await asyncio.get_running_loop().run_in_executor(thread, verdicts, [text])
    return found


async def judged_earlier(texts: Sequence[str], message: str) -> list[Verdict]:
    """The verdicts on the messages before `message`, which was judged; batch by batch, so that a
    turn that is stopped reads no more of them."""
    found: list[Verdict] = []
    while len(found) < len(texts):
        batch = [texts[len(found)]]
        for text in texts[len(found) + 1 :]:
            if sum(map(len, batch)) + len(text) > SHORT:
                break
            batch.append(text)
        # With the message, by whose phrase it is told whether all goes without the encoder.
        found += (await behind(verdicts, [*batch, message]))[:-1]
    return found


def triage(text: str) -> Verdict:
    """The verdict on `text`, a patient's message.

    Any string is accepted, of any length. It takes milliseconds: call it off the event loop.
    Raises AgentError if the encoder cannot be loaded.
    """
    return verdicts([text])[0]


def verdicts(texts: list[str]) -> list[Verdict]:
    """The verdict on each of several messages, read together.

    Raises AgentError if the encoder cannot be loaded, unless the last one, which is the message
    to be answered, has a phrase that needs no encoder.
    """
    try:
        readings = shipped().read([Said(text) for text in texts])
    except AgentError:
        plain = [_by_phrases(text) for text in texts]
        if not plain[-1].emergency:
            raise
        return plain
    return [judge(text, reading) for text, reading in zip(texts, readings, strict=True)]


def judge(text: str, reading: Reading) -> Verdict:
    """What the encoder read, and the phrases, as a verdict. It has seen ages and weeks in letters
    of danger most of all, and takes them for it where they stand alone, as in an answer."""
    if tells_no_more_than_who(text):
        return CALM
    phrases = unmistakable(text)
    raised = RAISED if phrases else 0.0
    urgent, crisis = _odds(1 - reading.degree["none"], raised), reading.crisis
    now = urgent * reading.degree["now"] / (1 - reading.degree["none"] or 1)
    if "suicide" in phrases:
        crisis = _odds(crisis, raised)
    if crisis >= CRISIS:
        return Verdict("now" if now >= urgent / 2 else "soon", "suicide")
    more = math.exp(RAISED)
    likely = {kind: reading.kind[kind] * (more if kind in phrases else 1) for kind in KINDS}
    if now >= NOW:
        return Verdict("now", max(KINDS, key=lambda kind: likely[kind]))
    if urgent < SOON:
        return CALM
    del likely["suicide"]  # which is a crisis, or nothing of the sort
    return Verdict("soon", max(likely, key=lambda kind: likely[kind]))


def _by_phrases(text: str) -> Verdict:
    kinds = unmistakable(text)
    return Verdict("now", "suicide" if "suicide" in kinds else kinds[0]) if kinds else CALM


def _odds(probability: float, added: float) -> float:
    """`probability` with `added` log odds."""
    more = probability * math.exp(added)
    return more / (more + 1 - probability)
