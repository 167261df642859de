"""Where spans go: to a collector, by OpenTelemetry's SDK, if its own variables ask for traces.

Owns which variables ask (OTEL_*), that nothing of OpenTelemetry is imported unless one does, and
that what is left is sent before the process ends. Does not know what a span tells.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.errors import AgentError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

EXPORTER = "OTEL_TRACES_EXPORTER"
# Of each pair the first is for traces alone, and wins.
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PATIENCE = 5  # seconds for what is left at the end, if the collector does not answer

_provider: TracerProvider | None = None  # there from `begin` to `end`, if traces are asked for


@dataclass
class Span:
    """Something that took its time, in nanoseconds since the epoch, and the parts of it; `error`
    is the kind of what made it fail."""

    name: str
    begun: int = field(default_factory=time.time_ns)
    ended: int = 0
    attributes: dict[str, str | int | float] = field(default_factory=dict)
    error: str = ""
    parts: list[Span] = field(default_factory=list)

    def end(self) -> None:
        """It ends now."""
        self.ended = time.time_ns()


def begin() -> None:
    """Have spans sent, if a variable asks for traces. Raises AgentError if they cannot be."""
    global _provider
    asking = _asking()
    if asking is None or _provider is not None:
        return
    _check()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise AgentError(
            f"{asking} asks for traces, and OpenTelemetry is not installed: "
            "pip install 'medraft[otel]', or unset it."
        ) from None
    try:
        sending = BatchSpanProcessor(OTLPSpanExporter())
    except ValueError as error:
        said = str(error).rstrip(".")
        raise AgentError(f"A variable of OpenTelemetry cannot be used: {said}.") from None
    # What its users name and nothing else: other detectors tell the command and its owner.
    named = Resource({"service.name": "medraft"}).merge(OTELResourceDetector().detect())
    # Never OpenTelemetry's global one, where other libraries' spans would come in, with words.
    _provider = TracerProvider(resource=named, shutdown_on_exit=False)
    _provider.add_span_processor(sending)


def send(span: Span) -> None:
    """Hand a span over with its parts, which a thread sends; nothing, if no traces are wanted."""
    if _provider is not None:
        from opentelemetry.context import Context

        # Within nothing: a client's own trace could bring words in its state.
        _hand_over(_provider.get_tracer("medraft"), span, Context())


async def end() -> None:
    """Send what is left, for so long as PATIENCE goes; call it when no turn is under way."""
    global _provider
    if _provider is None:
        return
    # A thread that nobody waits for: the SDK's own patience is half a minute.
    last = threading.Thread(target=_provider.shutdown, daemon=True)
    _provider = None
    last.start()
    await asyncio.to_thread(last.join, PATIENCE)


def _asking() -> str | None:
    """The variable that asks for traces; an empty one is none."""
    if _value("OTEL_SDK_DISABLED").lower() == "true" or _value(EXPORTER).lower() == "none":
        return None
    return next((name for name in (EXPORTER, *ENDPOINTS) if _value(name)), None)


def _check() -> None:
    """Raise AgentError for what the SDK would only say to a log, if at all."""
    if _value(EXPORTER).lower() not in ("", "otlp"):
        raise AgentError(f"{EXPORTER} is {_value(EXPORTER)!r}: set it to otlp or none.")
    protocol = next(filter(_value, PROTOCOLS), None)
    if protocol and _value(protocol) != "http/protobuf":
        raise AgentError(f"{protocol} is {_value(protocol)!r}: set it to http/protobuf.")
    endpoint = next(filter(_value, ENDPOINTS), None)
    if endpoint and not _value(endpoint).startswith(("http://", "https://")):
        raise AgentError(
            f"{endpoint} is {_value(endpoint)!r}: set it to an address as http://localhost:4318."
        )


def _value(name: str) -> str:
    return os.environ.get(name, "").strip()


def _hand_over(tracer: Tracer, span: Span, within: Context) -> None:
    from opentelemetry.trace import StatusCode, set_span_in_context

    made = tracer.start_span(
        span.name, within, attributes=dict(span.attributes), start_time=span.begun
    )
    for part in span.parts:
        _hand_over(tracer, part, set_span_in_context(made, within))
    if span.error:
        made.set_attribute("error.type", span.error)
        made.set_status(StatusCode.ERROR)
    made.end(span.ended)
