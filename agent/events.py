"""What happens in a turn, in the order in which it happens: the stream that a screen shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore

    from agent.behaviour import Behaviour
    from agent.router import Route


@dataclass(frozen=True)
class Emergency:
    """A red flag in the message: its kind, and the notice for the patient (Markdown)."""

    kind: str
    notice: str


@dataclass(frozen=True)
class Routed:
    """The decision, and the behaviour that it makes of this answer."""

    route: Route
    behaviour: Behaviour


@dataclass(frozen=True)
class Retrieved:
    """The doctors' replies that go into the prompt; none if nothing was close enough."""

    sources: list[NodeWithScore]


@dataclass(frozen=True)
class Waiting:
    """The engine is busy: so many answers are before this one. Told again when it changes."""

    before: int


@dataclass(frozen=True)
class Notice:
    """Something about the engine that the patient should know, before the answer begins."""

    text: str


@dataclass(frozen=True)
class Delta:
    """The next piece of the answer."""

    text: str


@dataclass
class Timing:
    """Milliseconds since the message was handed over (route and retrieve: their own length)."""

    route_ms: float = 0.0
    retrieve_ms: float = 0.0
    first_token_ms: float | None = None
    total_ms: float = 0.0
    tokens: int = 0


@dataclass(frozen=True)
class Finished:
    """The answer ended by itself or at its longest; a stopped one does not get here."""

    answer: str
    timing: Timing = field(default_factory=Timing)


Event = Emergency | Routed | Retrieved | Waiting | Notice | Delta | Finished
