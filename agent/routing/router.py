"""Retrieve doctors' replies for this message, or not.

Owns the decision, its score and its reason, and which of the patient's earlier turns a message goes
on from. Its state is nothing but the conversation: each of the patient's turns is read in the light
of the health turn before it and of the doctor's words between them. Knows nothing of the index, of
embeddings or of any LLM.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from agent.routing.about import is_asked
from agent.understanding.encoder import Reading, shipped
from agent.understanding.labels import Said

# The probability of a health question from which on it is looked up: to look up too much costs less
# than too little. By the totals of the sets of docs/evaluation.md.
HEALTH = 0.5
UNSURE = 0.75  # up to here it is said to be unsure
# The probability of a new subject from which on what was said before is left out: by the totals of
# "A message that goes on" in docs/evaluation.md.
OPENS = 0.7
REACH = 16  # messages before: what a message goes on from is no farther back
ABOUT = 0.6  # the probability of a question about medraft from which on it answers itself


class Reason(StrEnum):
    """Why a message is looked up, or not."""

    HEALTH = "a health question"
    FOLLOWS = "goes on about the patient's health"
    UNSURE = "perhaps a health question, so better looked up"
    OTHER = "not a health question"
    ABOUT = "a question about medraft, which answers it itself"
    ALWAYS = "retrieval is set to always"
    NEVER = "retrieval is set to never"


@dataclass(frozen=True)
class Route:
    """What the router decided: `score` is the probability of a health question."""

    retrieve: bool
    score: float | None
    reason: Reason


def route(messages: Sequence[Mapping[str, str]]) -> tuple[Route, list[str]]:
    """Judge the last of {"role", "content"} messages, which is the user's; and which turns to
    search with: the health turns that it goes on from, oldest first, and itself.

    It takes milliseconds: call it off the event loop. Raises AgentError if the encoder cannot be
    loaded.
    """
    *earlier, last = messages
    thread: list[str] = []
    reply = ""
    for message in earlier[-REACH:]:
        if message["role"] == "assistant":
            reply = message["content"]
        if message["role"] != "user":
            continue
        reading = _read(message["content"], thread, reply)
        if reading.topic["health"] >= HEALTH:
            thread = [*(thread if _goes_on(reading) else []), message["content"]]
            reply = ""
    reading = _read(last["content"], thread, reply)
    goes_on = bool(thread) and _goes_on(reading)
    score = reading.topic["health"]
    if is_asked(last["content"]) or (score < HEALTH and reading.topic["about"] >= ABOUT):
        return Route(False, round(score, 4), Reason.ABOUT), [last["content"]]
    decided = Route(score >= HEALTH, round(score, 4), _reason(score, goes_on))
    return decided, [*(thread if goes_on else []), last["content"]]


def _read(text: str, thread: Sequence[str], reply: str) -> Reading:
    said = Said(text, thread[-1], reply) if thread else Said(text)
    return shipped().read([said])[0]


def _goes_on(reading: Reading) -> bool:
    return reading.stands["opens"] < OPENS


def _reason(score: float, goes_on: bool) -> Reason:
    if score < HEALTH:
        return Reason.OTHER
    if score < UNSURE:
        return Reason.UNSURE
    return Reason.FOLLOWS if goes_on else Reason.HEALTH
