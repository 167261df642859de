"""A turn as spans: its steps with their times, counts and names of ours, and no words.

Owns what is told. Values are numbers and names of ours, many of them those of the figures
(`metrics.py`), never anything that somebody said, nor who. Does not know whether they are wanted,
nor where they go.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from agent.chat import otel
from agent.chat.events import Event, Finished, Retrieved, Routed
from agent.chat.metrics import Figures
from agent.chat.otel import Span
from agent.errors import kind_of

Step = Literal["route", "retrieve", "generate"]


class Trace:
    """One turn's: tell it each event, and do each step in `step`. Used through `traced`."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._turn = Span("turn")

    @contextmanager
    def step(self, name: Step) -> Iterator[None]:
        """Around a step of the turn, however it ends."""
        part = Span(name)
        self._turn.parts.append(part)
        with _timed(part):
            yield

    def see(self, event: Event) -> None:
        """Note what an event tells of the turn, and the figures do not."""
        match event:
            case Routed(route, _):
                self._tell("route.reason", route.reason.name.lower())
            case Retrieved(sources, _, _):
                self._tell("sources", len(sources))
            case Finished():
                self._finish(event)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Around the turn, which is handed over when it has ended."""
        try:
            with _timed(self._turn):
                yield
        finally:
            figures = self._figures
            self._tell("behaviour", figures.behaviour)
            self._tell("outcome", "failed" if self._turn.error else figures.outcome)
            self._tell("triage.verdict", figures.verdict)
            if figures.kind:
                self._tell("triage.kind", figures.kind)
            otel.send(self._turn)

    def _finish(self, finished: Finished) -> None:
        timing = finished.timing
        # OpenTelemetry's own names, where it has one.
        self._turn.attributes["gen_ai.usage.input_tokens"] = timing.prompt_tokens
        self._turn.attributes["gen_ai.usage.output_tokens"] = timing.tokens
        if timing.first_token_ms is not None:
            self._tell("first_token_ms", timing.first_token_ms)

    def _tell(self, name: str, value: str | int | float) -> None:
        self._turn.attributes[f"medraft.{name}"] = value


@contextmanager
def traced(figures: Figures) -> Iterator[Trace]:
    """Around a turn, however it ends; within `counted`, whose figures see each event first."""
    trace = Trace(figures)
    with trace.whole():
        yield trace


@contextmanager
def _timed(span: Span) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        span.error = kind_of(error)
        raise
    finally:
        span.end()
