"""Figures of the turns of this process, for Prometheus: counts, times, and no words.

Owns what is counted, of which event. Labels are names of ours (behaviours, kinds of emergencies and
errors), never anything that somebody said. Does not know who reads the figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import (
    GC_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from agent.chat.events import (
    Advice,
    Emergency,
    Event,
    Finished,
    HeldBack,
    Retrieved,
    Routed,
    Waiting,
)
from agent.errors import kind_of

SECONDS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 5, 8, 13, 21, 34, 60, 120)
RATES = (1, 2, 5, 10, 15, 20, 30, 40, 60, 80, 120, 200, 400)

# Not prometheus_client's own, which refuses a module that is loaded again (chainlit run --watch).
registry = CollectorRegistry()
registry.register(PROCESS_COLLECTOR)
registry.register(GC_COLLECTOR)

turns = Counter(
    "medraft_turns",
    "Turns by behaviour (medraft: our own words, none: not known yet) and by how they ended: "
    "finished, cut (long enough), stopped, failed",
    ["behaviour", "outcome"],
    registry=registry,
)
running = Gauge("medraft_turns_running", "Turns under way", registry=registry)
waiting = Gauge("medraft_turns_waiting", "Turns in the engine's line", registry=registry)
triage = Counter(
    "medraft_triage",
    "Messages by verdict: emergency, soon, none; and by the kind of emergency",
    ["verdict", "kind"],
    registry=registry,
)
retrievals = Counter(
    "medraft_retrievals",
    "Searches by what came of them: sources, left_out (none of them for the model), nothing",
    ["found"],
    registry=registry,
)
retrieval_seconds = Histogram(
    "medraft_retrieval_seconds", "A search's time", buckets=SECONDS, registry=registry
)
first_token_seconds = Histogram(
    "medraft_first_token_seconds",
    "From a message to the first token of its answer",
    ["behaviour"],
    buckets=SECONDS,
    registry=registry,
)
tokens_per_second = Histogram(
    "medraft_tokens_per_second",
    "Of an answer, after its first token",
    ["behaviour"],
    buckets=RATES,
    registry=registry,
)
tokens = Counter("medraft_tokens", "Tokens read and written", ["kind"], registry=registry)
errors = Counter(
    "medraft_errors", "Failed turns by kind: the name of an error", ["kind"], registry=registry
)


class Figures:
    """One turn's: tell it each event. Used through `counted`."""

    def __init__(self) -> None:
        self.behaviour = "none"
        self.outcome = "stopped"
        self.verdict, self.kind = "none", ""
        self._waits = False

    def see(self, event: Event) -> None:
        """Count an event."""
        self._wait(isinstance(event, Waiting))
        match event:
            case Emergency(kind):
                self.verdict, self.kind = "emergency", kind
            case HeldBack():
                self.behaviour = "medraft"
            case Advice():
                self.verdict = "soon"
            case Routed(_, behaviour):
                self.behaviour = behaviour or "medraft"
            case Retrieved(sources, left_out, behaviour):
                self.behaviour = behaviour or "medraft"
                found = "sources" if sources else "left_out" if left_out else "nothing"
                retrievals.labels(found).inc()
            case Finished():
                self._finish(event)

    def end(self) -> None:
        """Count the turn."""
        self._wait(False)
        triage.labels(self.verdict, self.kind).inc()
        turns.labels(self.behaviour, self.outcome).inc()

    def _wait(self, waits: bool) -> None:
        if waits != self._waits:
            waiting.inc(1 if waits else -1)
        self._waits = waits

    def _finish(self, finished: Finished) -> None:
        self.outcome = "finished" if finished.ended else "cut"
        timing = finished.timing
        if timing.retrieve_ms:
            retrieval_seconds.observe(timing.retrieve_ms / 1000)
        tokens.labels("read").inc(timing.prompt_tokens)
        tokens.labels("written").inc(timing.tokens)
        if timing.first_token_ms is None or not timing.tokens:
            return
        first_token_seconds.labels(self.behaviour).observe(timing.first_token_ms / 1000)
        if (left := timing.total_ms - timing.first_token_ms) > 0 and timing.tokens > 1:
            rate = (timing.tokens - 1) / left * 1000
            tokens_per_second.labels(self.behaviour).observe(rate)


@contextmanager
def counted() -> Iterator[Figures]:
    """Around a turn, however it ends."""
    figures = Figures()
    with running.track_inprogress():
        try:
            yield figures
        except Exception as error:
            figures.outcome = "failed"
            errors.labels(kind_of(error)).inc()
            raise
        finally:
            figures.end()


def exposition() -> bytes:
    """All of it, as Prometheus reads it."""
    return generate_latest(registry)
