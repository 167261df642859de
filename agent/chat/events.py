"""What happens in a turn, in the order in which it happens: the stream that a screen shows."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from agent.behaviour import Behaviour

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore

    from agent.chat.claims import ClaimKind
    from agent.chat.support import Supported
    from agent.routing.router import Route


# Whose words an answer is: an LLM's, in a behaviour, or medraft's own in place of them.
Speaker = Behaviour | Literal["medraft"]


@dataclass(frozen=True)
class Emergency:
    """An emergency in the message: its kind, and the notice for the patient (Markdown)."""

    kind: str
    notice: str


@dataclass(frozen=True)
class HeldBack:
    """No LLM answers the emergency that was told: medraft's own words follow."""


@dataclass(frozen=True)
class Advice:
    """No emergency, but for a person to look at soon: a line above the answer, which follows."""

    text: str


@dataclass(frozen=True)
class Routed:
    """The decision, and the behaviour that it makes of this answer if replies are found; None:
    medraft answers, and no LLM."""

    route: Route
    behaviour: Behaviour | None


@dataclass(frozen=True)
class Retrieved:
    """The doctors' replies that go into the prompt, none if nothing fitted; those that were found
    and `left_out`: they address a model (agent.safety.injection), say nothing that may be said to
    this patient (agent.chat.particulars), or there is no room; and the
    `behaviour` that this makes of the answer: without replies, the LLM's alone; None: medraft
    answers, and no LLM."""

    sources: list[NodeWithScore]
    left_out: list[NodeWithScore]
    behaviour: Behaviour | None


@dataclass(frozen=True)
class Waiting:
    """The engine is busy: so many answers are before this one. Told again when it changes."""

    before: int


@dataclass(frozen=True)
class Notice:
    """Before the answer begins: another LLM has to go from the engine's memory, and this one to be
    loaded. `text` says which; a page in another language says it in its own words."""

    text: str


@dataclass(frozen=True)
class Delta:
    """The next piece of the answer."""

    text: str


def since(start: float) -> float:
    """Milliseconds since a time of `time.perf_counter`."""
    return round((time.perf_counter() - start) * 1000, 1)


@dataclass
class Timing:
    """Milliseconds since the message was handed over; `retrieve_ms` is the search's own length."""

    route_ms: float = 0.0
    retrieve_ms: float = 0.0
    first_token_ms: float | None = None
    total_ms: float = 0.0
    tokens: int = 0
    prompt_tokens: int = 0  # of what the LLM read, none where none was asked


@dataclass(frozen=True)
class Unborne:
    """A sentence of the answer, from `start` to `end`, with claims that neither a shown reply nor
    the patient bears, and their kinds; it is only there where claims are not checked."""

    start: int
    end: int
    kinds: list[ClaimKind]


@dataclass
class Claims:
    """What became of claims that nobody bears (agent.chat.claims): how often a sentence was asked
    for anew, how many were left out, and those that stand in the answer."""

    asked_anew: int = 0
    left_out: int = 0
    unborne: list[Unborne] = field(default_factory=list)


@dataclass(frozen=True)
class Finished:
    """The answer is whole: the LLM ended it (`ended`), or it was cut where it was long enough or
    began to repeat itself. A stopped one does not get here. `support` tells which of its sentences
    a source supports, by the source's number in `Retrieved.sources`, from 1; in the answer its
    citation, [1], stands behind the sentence. `speaker` is who gave it; None: nobody said a
    word."""

    answer: str
    timing: Timing = field(default_factory=Timing)
    ended: bool = True
    support: list[Supported] = field(default_factory=list)
    claims: Claims = field(default_factory=Claims)
    speaker: Speaker | None = None


Event = Emergency | HeldBack | Advice | Routed | Retrieved | Waiting | Notice | Delta | Finished
