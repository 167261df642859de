"""Traces: what a collector gets of a turn, that no word is in it, and that off is off."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agent import settings
from agent.chat import otel
from agent.chat.engine import PatientChatEngine
from agent.chat.events import Delta, Emergency, Retrieved
from agent.errors import AgentError
from agent.routing.embedding import TurnEmbedding
from index_store.embedding import EMBEDDED, Embed
from index_store.retriever import DoctorReplyRetriever
from index_store.store import IndexStore

from browsing import Server, command, free_port, refused
from scripted import ScriptedLLM
from serving import loaded, serving

COMPLAINT = (
    "Zwieback brings my migraines back, says Penelope Quibbleworth. What helps against them?"
)
CHEST = "I have crushing chest pain and my left arm is numb"
ANSWER = ["Xylophones ", "soothe ", "nobody, ", "Penelope."]
SERVE = [sys.executable, "-c", "from agent.cli import main; main()", "serve", "--port"]


class Collector:
    """An OTLP collector: what it got, as bytes and as spans."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.bodies: list[bytes] = []
        self.got: list[bytes] = []  # addresses and headers, too

    def spans(self) -> list[Any]:
        """All of them, by when they began."""
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        resources = [each for request in requests for each in request.resource_spans]
        found = [s for each in resources for scope in each.scope_spans for s in scope.spans]
        return sorted(found, key=lambda span: int(span.start_time_unix_nano))


@pytest.fixture
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.bodies.append(body)
            got.got += [self.path.encode(), str(self.headers).encode(), body]
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        got = Collector(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield got
        server.shutdown()


@pytest.fixture
async def on(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """The collector of this process; it has all when `otel.end` was awaited."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=ward")
    monkeypatch.setattr(otel, "PATIENCE", 60)
    otel.begin()
    yield collector
    await otel.end()


@pytest.fixture
def llm() -> ScriptedLLM:
    llm = ScriptedLLM()
    llm.script = list(ANSWER)
    return llm


@pytest.fixture
def engine(llm: ScriptedLLM, embed_questions: Embed, sample_index: Path) -> PatientChatEngine:
    """A conversation over the small index with its scripted LLM."""
    retriever = DoctorReplyRetriever(
        IndexStore.open(sample_index, EMBEDDED), embed_questions, 2, 0.01
    )
    return loaded(llm, retriever, TurnEmbedding(embed_questions)).conversation()


def attributes(span: Any) -> dict[str, Any]:
    values = [(each.key, each.value) for each in span.attributes]
    return {key: getattr(value, value.WhichOneof("value")) for key, value in values}


def tree(spans: list[Any]) -> dict[str, list[str]]:
    """The steps below each turn, in their order; a turn is known by its trace."""
    names: dict[str, list[str]] = {s.trace_id.hex(): [] for s in spans if s.name == "turn"}
    turns = {s.trace_id: s.span_id for s in spans if s.name == "turn"}
    for span in spans:
        if span.name != "turn":
            assert span.parent_span_id == turns[span.trace_id]
            names[span.trace_id.hex()].append(span.name)
    return names


def words(*texts: str) -> set[bytes]:
    return {word.encode() for text in texts for word in re.findall(r"\w{4,}", text.lower())}


async def test_a_turn_is_a_span_with_its_steps(on: Collector, engine: PatientChatEngine) -> None:
    async with aclosing(engine.turn(COMPLAINT)) as events:
        seen = [event async for event in events]
    found = next(event for event in seen if isinstance(event, Retrieved))
    await otel.end()
    turn, *steps = on.spans()
    assert tree([turn, *steps]) == {turn.trace_id.hex(): ["route", "retrieve", "generate"]}
    assert not turn.parent_span_id and not turn.status.code
    told = attributes(turn)
    assert told.pop("medraft.first_token_ms") > 0
    assert told.pop("gen_ai.usage.input_tokens") > 10
    assert told == {
        "medraft.behaviour": "RAG",
        "medraft.outcome": "finished",
        "medraft.triage.verdict": "none",
        "medraft.route.reason": "health",
        "medraft.sources": len(found.sources),
        "gen_ai.usage.output_tokens": 4,
    }
    assert all(not attributes(step) and not step.events for step in steps)
    resource = ExportTraceServiceRequest.FromString(on.bodies[0]).resource_spans[0].resource
    assert attributes(resource) == {
        "service.name": "medraft",
        "deployment.environment.name": "ward",
    }


async def test_no_word_of_a_patient_an_answer_or_a_reply_is_in_them(
    on: Collector, engine: PatientChatEngine, llm: ScriptedLLM
) -> None:
    replies = ""
    for ending in ([], [ValueError(COMPLAINT)], [AgentError(COMPLAINT)]):
        llm.script = [*ANSWER, *ending]
        try:
            async with aclosing(engine.turn(COMPLAINT)) as events:
                async for event in events:
                    if isinstance(event, Retrieved):
                        found = [*event.sources, *event.left_out]
                        replies += " ".join(f"{n.get_content()} {n.node.metadata}" for n in found)
        except (ValueError, AgentError):
            pass
    notice = ""
    async with aclosing(engine.turn(f"{CHEST}, {COMPLAINT}")) as events:
        async for event in events:
            if isinstance(event, Emergency | Delta):
                notice += event.notice if isinstance(event, Emergency) else event.text
    await otel.end()
    assert len(tree(on.spans())) == 4 and "dark room" in replies and notice
    sent = b"\n".join(on.got).lower()
    said = words(COMPLAINT, CHEST, *ANSWER, replies, notice)
    assert {b"zwieback", b"penelope", b"migraines", b"soothe", b"ibuprofen"} < said
    assert {word for word in said if word in sent and word not in OURS} == set()


# Names of ours that were sent: some of them are words that somebody may have said, too.
OURS = (
    b"turn route retrieve generate medraft.behaviour medraft.outcome medraft.sources rag finished "
    b"medraft.triage.verdict medraft.triage.kind emergency cardiac medraft.route.reason health "
    b"medraft.first_token_ms gen_ai.usage.input_tokens gen_ai.usage.output_tokens error.type failed"
)


async def test_an_emergency_and_a_failure_and_a_stop(
    on: Collector, engine: PatientChatEngine, llm: ScriptedLLM
) -> None:
    async with aclosing(engine.turn(CHEST)) as events:
        assert [event async for event in events]
    engine.reset()
    engine.retrieval = "never"
    llm.script = ["Rest ", AgentError("The engine has no room.", key="too_long")]
    with pytest.raises(AgentError):
        async with aclosing(engine.turn("Hello there")) as events:
            assert [event async for event in events]
    llm.script = ["Rest "] * 4
    async with aclosing(engine.turn("Hello there")) as events:
        async for event in events:
            if isinstance(event, Delta):
                break
    await otel.end()
    spans = on.spans()
    assert list(tree(spans).values()) == [[], ["route", "generate"], ["route", "generate"]]
    urgent, failed, stopped = [attributes(span) for span in spans if span.name == "turn"]
    assert urgent["medraft.triage.verdict"] == "emergency"
    assert urgent["medraft.triage.kind"] == "cardiac"
    assert (urgent["medraft.behaviour"], urgent["medraft.outcome"]) == ("medraft", "finished")
    assert (failed["medraft.outcome"], failed["error.type"]) == ("failed", "too_long")
    assert stopped["medraft.outcome"] == "stopped" and "error.type" not in stopped
    errors = [span.name for span in spans if span.status.code]
    assert errors == ["turn", "generate"] and not any(span.status.message for span in spans)


@pytest.mark.slow
async def test_neither_who_asks_nor_how_by_the_endpoint(
    on: Collector, llm: ScriptedLLM, tmp_path: Path
) -> None:
    chosen = settings.load(home=tmp_path, max_tokens=100, llm="base")
    async with serving(lambda: loaded(llm), chosen) as served:
        await served.until_ready()
        served.client.headers["traceparent"] = f"00-{'ab' * 16}-{'cd' * 8}-01"
        served.client.headers["tracestate"] = "said=zwieback"
        served.client.headers["baggage"] = "said=zwieback"
        said = [{"role": "user", "content": "Hello zwieback"}]
        await served.answer(said, user="zwieback")
        await served.ask(said, model="zwieback")
    await otel.end()
    assert list(tree(on.spans()).values()) == [["route", "generate"]]
    assert b"zwieback" not in b"".join(on.got).lower()


OFF = """
import asyncio, os, sys
import agent.cli.serve, agent.serving.server, agent.serving.beginning
from agent.chat import otel
from serving import loaded
from scripted import ScriptedLLM

async def turn():
    engine = loaded(ScriptedLLM(), retrieval="never").conversation()
    engine.watchful = False
    assert [event async for event in engine.turn("Hello there")]
    await otel.end()

for values in (
    {},
    {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
    {"OTEL_SDK_DISABLED": "TRUE", "OTEL_TRACES_EXPORTER": "otlp"},
    {"OTEL_TRACES_EXPORTER": "", "OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    {"OTEL_SERVICE_NAME": "ward", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:9"},
):
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        del os.environ[name]
    os.environ |= values
    otel.begin()
    asyncio.run(turn())
    loaded_ = [name for name in sys.modules if name.startswith("opentelemetry")]
    assert not loaded_, (values, loaded_)
"""


@pytest.mark.slow
def test_nothing_is_imported_where_they_are_off() -> None:
    folder = Path(__file__).parent
    subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path[:0] = {[str(folder.parent), str(folder)]}\n{OFF}",
        ],
        check=True,
    )


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "OTEL_TRACES_EXPORTER is 'zipkin': set it to otlp"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318", "address as http://localhost:4318"),
        (
            "OTEL_BSP_SCHEDULE_DELAY",
            "-1",
            "variable of OpenTelemetry cannot be used: .* must be positive",
        ),
    ],
)
def test_what_the_variables_cannot_mean_is_said(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv(variable, value)
    with pytest.raises(AgentError, match=said):
        otel.begin()


def test_without_the_extra_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(AgentError) as told:
        otel.begin()
    assert str(told.value) == (
        "OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, and OpenTelemetry is not installed: "
        "pip install 'medraft[otel]', or unset it."
    )


@pytest.mark.parametrize("served_by", ["serve", "page"])
def test_a_server_that_is_told_to_end_sends_what_is_left(
    served_by: str,
    collector: Collector,
    app_root: Path,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    port = free_port()
    arguments = [*SERVE, str(port)] if served_by == "serve" else command(port)
    wanted = environment | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "3600000",  # it is the end that sends them
        "MEDRAFT_ENDPOINT": "true",
    }
    without = wanted | {"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318"}
    refused(arguments, app_root, without, "OTEL_EXPORTER_OTLP_ENDPOINT is 'localhost:4318'")
    log = tmp_path / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments, cwd=app_root, env=wanted, stdout=output, stderr=output
        )
    server = Server(f"http://127.0.0.1:{port}", log, process)
    try:
        # An emergency's notice waits for no model.
        asked = {"model": "auto", "messages": [{"role": "user", "content": CHEST}]}
        while (answer := post(server, asked)) is None:
            time.sleep(0.05)
        assert answer["medraft"]["emergency_kind"] == "cardiac"
        assert not collector.bodies
    finally:
        process.terminate()
        process.wait(120)
    (turn,) = collector.spans()
    assert attributes(turn)["medraft.triage.kind"] == "cardiac"
    assert {word for word in words(CHEST) if word in b"".join(collector.got).lower()} == set()


def post(server: Server, asked: dict[str, Any]) -> dict[str, Any] | None:
    """The answer, or None while there is no server."""
    assert server.process.poll() is None, server.log.read_text(encoding="utf-8")
    try:
        url = f"{server.url}/v1/chat/completions"
        response = httpx.post(url, json=asked, timeout=60, trust_env=False)
    except httpx.ConnectError:
        return None
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer
