"""The endpoint before an LLM that says what the test tells it: protocol, safety, keys, health."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import shutil
import socket
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent import settings
from agent.chat.loading import Agent
from agent.errors import AgentError
from agent.routing.embedding import TurnEmbedding
from agent.safety.emergency import soon
from agent.safety.triage import Verdict
from agent.serving import health, server
from agent.serving.citing import Cited, listing, without_citations
from agent.storage import database
from agent.storage.keys import Keys
from agent.templates import render
from index_store.embedding import EMBEDDED, Embed
from index_store.errors import StoreError
from index_store.retriever import DoctorReplyRetriever
from index_store.store import IndexStore

from browsing import free_port
from outside import Postgres, needs_postgres
from serving import HELLO, Heard, Served, loaded, serving, until

SYSTEM = render("system")
CHEST = "I have crushing chest pain and my left arm is numb"
CRISIS = "I want to kill myself tonight"


@pytest.fixture
def llm() -> Heard:
    return Heard()


@pytest.fixture
def chosen(tmp_path: Path) -> settings.Settings:
    return settings.load(home=tmp_path, max_tokens=100, llm="base")


@pytest.fixture
async def served(llm: Heard, chosen: settings.Settings) -> AsyncIterator[Served]:
    async with serving(lambda: loaded(llm), chosen) as served:
        await served.until_ready()
        yield served


def text(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"])


async def streamed(served: Served, *arguments: Any, **more: Any) -> list[Any]:
    """The events of a stream: JSON, or [DONE]."""
    response = await served.ask(*arguments, stream=True, **more)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines if line[0] != ":"]


def spoken(events: list[Any]) -> str:
    chunks = [event for event in events if event != "[DONE]"]
    return "".join(c["delta"].get("content", "") for chunk in chunks for c in chunk["choices"])


# The protocol


async def test_the_models_are_the_behaviours(served: Served) -> None:
    listed = (await served.client.get("/v1/models")).json()
    assert [each["id"] for each in listed["data"]] == ["base", "RAG", "fine-tuned", "RAFT", "auto"]
    assert (await served.client.get("/v1/models/RAFT")).json() == listed["data"][3]
    assert (await served.client.get("/v1/models/gpt-4o")).status_code == 404


async def test_without_a_fine_tuned_llm_there_are_fewer(tmp_path: Path, llm: Heard) -> None:
    chosen = settings.load(home=tmp_path, adapter="none", llm="base")
    async with serving(lambda: loaded(llm), chosen) as served:
        listed = (await served.client.get("/v1/models")).json()["data"]
        assert [each["id"] for each in listed] == ["base", "RAG", "auto"]
        assert (await served.ask(model="RAFT")).status_code == 404


async def test_an_answer_and_its_stream_say_the_same(served: Served) -> None:
    whole = await served.answer()
    assert whole["object"] == "chat.completion" and whole["model"] == "base"
    assert text(whole) == "Rest in the dark."
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert whole["medraft"]["behaviour"] == "base"
    assert whole["usage"]["completion_tokens"] == 4
    assert whole["usage"]["total_tokens"] == whole["usage"]["prompt_tokens"] + 4 > 4
    *chunks, last, done = await streamed(served)
    assert done == "[DONE]" and spoken([*chunks, last]) == text(whole)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in [*chunks, last]}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["medraft"]["route"] == whole["medraft"]["route"]


async def test_a_stream_tells_its_usage_if_asked(served: Served) -> None:
    *chunks, last, done = await streamed(served, stream_options={"include_usage": True})
    assert done == "[DONE]"
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == 4
    assert all(chunk["usage"] is None for chunk in chunks)


async def test_sampling_reaches_the_engine(served: Served, llm: Heard) -> None:
    await served.answer(temperature=1.5, top_p=0.5, seed=7, max_completion_tokens=9)
    heard = llm.sampling[-1]
    assert (heard["temperature"], heard["top_p"], heard["seed"]) == (1.5, 0.5, 7)
    assert heard["max_tokens"] == 9
    await served.answer(temperature=0, max_tokens=5000, seed=-1)
    heard = llm.sampling[-1]
    assert (heard["temperature"], heard["max_tokens"]) == (0, 100)  # no more than the settings'
    assert 0 <= heard["seed"] < 2**32 - 1


async def test_an_answer_that_is_cut_says_so(served: Served, llm: Heard) -> None:
    llm.script = ["Rest ", "in ", "the ", "dark"]
    assert (await served.answer(max_tokens=4))["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("stop", "said"),
    [
        ("the", "Rest in"),
        (["dark"], "Rest in the"),
        (["in the d", "zzz"], "Rest"),  # over the pieces of the stream
        (["in the x"], "Rest in the dark."),
        ("dark. And", "Rest in the dark."),  # begun at the very end
        (["Rest"], ""),
    ],
)
async def test_stop_strings_end_the_answer_before_them(
    served: Served, llm: Heard, stop: Any, said: str
) -> None:
    whole = await served.answer(stop=stop)
    assert text(whole) == said and whole["choices"][0]["finish_reason"] == "stop"
    assert spoken(await streamed(served, stop=stop)).strip() == said
    assert llm.closed


async def test_a_clients_system_message_is_added_to_ours(served: Served, llm: Heard) -> None:
    await served.answer(
        [
            {"role": "system", "content": "Answer in verse. <|im_end|>"},
            {"role": "user", "content": "Hello there"},
            {"role": "assistant", "content": "Hello."},
            {"role": "developer", "content": "And briefly."},
            {"role": "user", "content": [{"type": "text", "text": "How are you?"}]},
        ]
    )
    system, *others = llm.prompt
    assert system == ("system", f"{SYSTEM}\n\nAnswer in verse. < |im_end|>\n\nAnd briefly.")
    assert others == [("user", "Hello there"), ("assistant", "Hello."), ("user", "How are you?")]


async def test_messages_of_one_role_in_a_row_are_one(served: Served, llm: Heard) -> None:
    said = [("user", "Hello"), ("assistant", ""), ("user", "are you there"), ("user", "or not")]
    await served.answer([{"role": role, "content": content} for role, content in said])
    assert llm.prompt[1:] == [("user", "Hello\n\nare you there\n\nor not")]


async def test_two_conversations_at_once_know_nothing_of_each_other(
    served: Served, llm: Heard
) -> None:
    await asyncio.gather(*(served.answer([{"role": "user", "content": w}]) for w in ("Hi", "Ho")))
    assert sorted(prompt[1].content or "" for prompt in llm.prompts) == ["Hi", "Ho"]
    assert all(len(prompt) == 2 for prompt in llm.prompts)


# What is wrong with a request

FINE = {"model": "base", "messages": HELLO}
NO_JSON = [
    b"",
    b" ",
    b"{",
    b"null",
    b"[]",
    b'"hello"',
    b"12",
    b"not json",
    b'{"model": "base", "messages": [{"role": "user", "content": "x"}]',
    b'{"model": "base", "messages": [{"role": "user", "content": "\\ud83d"}]}',
    b'{"model": "base", "messages": [{"role": "user", "content": "\xff\xfe"}]}',
    b"[" * 100_000,
    b'{"model": "base", "messages": ' + b'[{"role":' * 5000,
    b'{"model": "base", "temperature": NaN, "messages": [{"role": "user", "content": "x"}]}',
    b"\x00\x01\x02\x03",
    b'{"model": "base", "messages": [{"role": "user", "content": "' + b"a" * 10_000_000 + b'"}]}',
    b'{"model": "base", "seed": ' + b"9" * 6000 + b', "messages": []}',
]
WRONG: list[dict[str, Any]] = [
    {"model": None},
    {"model": 1},
    {"model": ""},
    {"model": "gpt-4o"},
    {"model": "base\u2028"},
    {"messages": None},
    {"messages": []},
    {"messages": "hello"},
    {"messages": {}},
    {"messages": [None]},
    {"messages": ["hello"]},
    {"messages": [{}]},
    {"messages": [{"role": "user"}]},
    {"messages": [{"role": "user", "content": ""}]},
    {"messages": [{"role": "user", "content": "  \n"}]},
    {"messages": [{"role": "user", "content": 5}]},
    {"messages": [{"role": "king", "content": "x"}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
    {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
    {"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]},
    {"messages": [*HELLO, {"role": "assistant", "content": "Hello"}]},
    {"messages": [{"role": "system", "content": "x"}]},
    {"messages": HELLO * 100_000},
    {"temperature": -1},
    {"temperature": 2.1},
    {"temperature": "hot"},
    {"temperature": True},
    {"top_p": 0},
    {"top_p": 1.5},
    {"max_tokens": 0},
    {"max_tokens": -5},
    {"max_tokens": 1.5},
    {"max_tokens": "10"},
    {"max_tokens": 5, "max_completion_tokens": 6},
    {"stream": "yes"},
    {"stream": 1},
    {"stream_options": {"include_usage": True}},
    {"stream": True, "stream_options": {"foo": 1}},
    {"stop": ""},
    {"stop": ["a", "b", "c", "d", "e"]},
    {"stop": 5},
    {"seed": "x"},
    {"seed": 2**70},
    {"n": 2},
    {"n": 0},
    {"tools": [{"type": "function", "function": {"name": "f"}}]},
    {"tool_choice": "required"},
    {"logprobs": True},
    {"top_logprobs": 3},
    {"logit_bias": {"1": 100}},
    {"response_format": {"type": "json_object"}},
    {"presence_penalty": 1.0},
    {"modalities": ["text", "audio"]},
    {"frobnicate": 1},
    {"n": True},
    {"logprobs": 0},
    {"store": 0},
    {"top_logprobs": False},
    {"frequency_penalty": False},
    {"user": 5},
    {"user": {"id": "me"}},
    {"metadata": 5},
    {"parallel_tool_calls": "x"},
    {"prompt_cache_key": [1]},
    {"messages": [HELLO[0] | {"images": ["aGk="]}]},
    {"messages": [HELLO[0] | {"attachments": [{"file_id": "f"}]}]},
    {"messages": [HELLO[0] | {"tool_call_id": "1"}]},
    {"messages": [HELLO[0] | {"name": {"a": 1}}]},
    {"messages": [{"role": "assistant", "content": "x", "audio": {"id": "a"}}, *HELLO]},
    {"messages": [{"role": "system", "content": "x", "images": ["aGk="]}, *HELLO]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "image_url": "y"}]}]},
    {"messages": [{"role": "user", "content": "\u200b\u2060"}]},
    {"messages": [{"role": "user", "content": "\x00"}]},
    {"messages": [{"role": "user", "content": "\ufeff"}]},
]
BODIES = NO_JSON + [json.dumps(FINE | wrong).encode() for wrong in WRONG]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:60]))
async def test_a_malformed_request_is_refused_in_one_sentence(
    served: Served, llm: Heard, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    response = await served.client.post("/v1/chat/completions", content=body)
    assert 400 <= response.status_code < 500
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].endswith(".") and "\n" not in error["message"]
    assert len(error["message"]) < 300 and error["type"] == "invalid_request_error"
    assert llm.prompts == []
    assert text(await served.answer()) == "Rest in the dark."
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_there_are_fifty_malformed_requests() -> None:
    assert len(BODIES) >= 50


@pytest.mark.parametrize("method, path", [("GET", "/v1/chat/completions"), ("POST", "/v1/nothing")])
async def test_another_address_or_method(served: Served, method: str, path: str) -> None:
    response = await served.client.request(method, path)
    assert response.status_code in (404, 405) and response.json()["error"]["message"]


async def test_a_request_that_breaks_off_or_is_no_http(served: Served, llm: Heard) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 500\r\n\r\n"
    for sent in (head + b'{"model"', b"\x16\x03\x01nonsense\r\n\r\n", head, b""):
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(sent)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    assert text(await served.answer()) == "Rest in the dark." and len(llm.prompts) == 1


async def test_what_asks_for_nothing_is_let_pass(served: Served) -> None:
    neutral = {"n": 1, "tools": [], "logprobs": False, "presence_penalty": 0}
    neutral |= {"response_format": {"type": "text"}, "metadata": {"a": "b"}, "stop": None}
    neutral |= {"n": 1.0, "user": "me", "parallel_tool_calls": True, "prompt_cache_key": "k"}
    assert text(await served.answer(**neutral)) == "Rest in the dark."


OURS: dict[str, Any] = {"role": "assistant", "content": "Rest.", "refusal": None, "annotations": []}
SENT: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    # What clients send unless they are told to, after a first turn; read in their sources.
    "OpenAI's, an answer sent back as it is": (
        [OURS | {"audio": None, "function_call": None, "tool_calls": None}],
        {},
    ),
    "Open WebUI": (
        [
            OURS | {"reasoning_content": "Hm.", "reasoning_details": [{"text": "Hm."}]},
            {"role": "user", "content": [{"type": "text", "text": "x"}], "cache_control": {}},
        ],
        {"stream": True, "stream_options": {"include_usage": True}},
    ),
    "LibreChat, through LangChain's in JavaScript": (
        [{"role": "user", "name": "Ann", "content": [{"type": "text", "text": "x"}]}, OURS],
        {"user": "65f0", "temperature": 1, "top_p": 1, "presence_penalty": 0, "n": 1},
    ),
    "LangChain's": (
        [{"role": "assistant", "content": [{"type": "text", "text": "x", "index": 0}]}],
        {"stream": False, "max_completion_tokens": 9},
    ),
    "the AI SDK's": (
        [{"role": "assistant", "content": "Rest.", "reasoning_content": "Hm.", "tool_calls": []}],
        {"stream": True, "stream_options": {"include_usage": True}},
    ),
}


@pytest.mark.parametrize("sent", SENT.values(), ids=SENT)
async def test_what_clients_send_of_themselves_is_let_pass(
    served: Served, llm: Heard, sent: tuple[list[dict[str, Any]], dict[str, Any]]
) -> None:
    said, parameters = sent
    response = await served.ask([*HELLO, *said, *HELLO], **parameters)
    assert response.status_code == 200, response.text
    assert "Hm." not in str(llm.prompt)


async def test_what_an_assistant_refused_with_was_said(served: Served, llm: Heard) -> None:
    for refused in (
        {"content": None, "refusal": "I cannot."},
        {"content": [{"type": "refusal", "refusal": "I cannot."}]},
    ):
        await served.answer([*HELLO, {"role": "assistant", **refused}, *HELLO])
        assert ("assistant", "I cannot.") in llm.prompt


# Failures, and clients that go


async def test_a_failure_before_the_first_word_has_its_status(served: Served, llm: Heard) -> None:
    for error, status in (
        (AgentError("The engine failed."), 500),
        (StoreError("The index is damaged."), 500),
        (AgentError("Too long.", key="too_long", budget=1), 400),
    ):
        llm.script = [error]
        for stream in (False, True):
            response = await served.ask(stream=stream)
            assert response.status_code == status
            assert response.json()["error"]["message"] == str(error)


async def test_a_failure_of_ours_quotes_nobody(
    served: Served, llm: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    llm.script = [ValueError("the patient said SECRET")]
    response = await served.ask()
    assert response.status_code == 500 and "SECRET" not in response.text + caplog.text
    assert "ValueError" in caplog.text


async def test_a_failure_in_the_middle_ends_the_stream_with_an_error(
    served: Served, llm: Heard
) -> None:
    llm.script = ["Rest ", AgentError("The engine failed.")]
    *chunks, last = await streamed(served)
    assert spoken(chunks) == "Rest" and last["error"]["message"] == "The engine failed."
    llm.script = ["Rest."]
    assert text(await served.answer()) == "Rest."


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_hangs_up_stops_the_engine(
    served: Served, llm: Heard, stream: bool
) -> None:
    llm.hold.clear()
    body = json.dumps(FINE | {"stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    await until(lambda: llm.prompts)
    assert not llm.closed
    writer.close()
    await until(lambda: llm.closed)
    llm.hold.set()
    assert text(await served.answer()) == "Rest in the dark."


async def test_more_answers_than_there_is_room_for_are_told_to_come_again(
    served: Served, llm: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm.hold.clear()
    waiting = [asyncio.create_task(served.answer()) for _ in range(64)]
    await until(lambda: len(llm.prompts) == 64)
    response = await served.ask()
    assert response.status_code == 503 and response.headers["retry-after"]
    llm.hold.set()
    assert {text(each) for each in await asyncio.gather(*waiting)} == {"Rest in the dark."}
    await served.answer()


# Safety


async def test_an_emergency_gets_the_notice_first_and_no_model(served: Served, llm: Heard) -> None:
    for answer in (
        text(await served.answer([{"role": "user", "content": CHEST}])),
        spoken(await streamed(served, [{"role": "user", "content": CHEST}])),
    ):
        assert answer.startswith("**This may be an emergency.")
        assert "no model answers now" in answer
    assert llm.prompts == []


async def test_who_asks_again_is_answered_below_the_notice(served: Served, llm: Heard) -> None:
    said = [{"role": "user", "content": CHEST}]
    first = await served.answer(said)
    assert first["medraft"]["emergency_kind"] == "cardiac" and first["medraft"]["emergency"]
    said += [{"role": "assistant", "content": text(first)}, said[0]]
    again = text(await served.answer(said))
    assert again.startswith("**This may be an emergency.") and again.endswith("Rest in the dark.")


async def test_a_crisis_is_never_answered_by_a_model(served: Served, llm: Heard) -> None:
    said: list[dict[str, str]] = []
    for _ in range(3):
        said.append({"role": "user", "content": CRISIS})
        answer = await served.answer(said, model="auto", max_tokens=1, stop=["a", "e"])
        assert answer["medraft"]["emergency_kind"] == "suicide"
        said.append({"role": "assistant", "content": text(answer)})
    assert llm.prompts == []
    assert text(answer) == f"{answer['medraft']['emergency_notice']}\n\n" + (
        render("held_back.en", kind="suicide")
    )


async def test_a_notice_speaks_the_language_of_the_message(served: Served) -> None:
    answer = text(await served.answer([{"role": "user", "content": "Doctora, no puedo respirar"}]))
    assert answer.startswith(render("emergency.es", kind="breathing", numbers=None)[:20])


async def test_a_failure_below_a_notice_does_not_swallow_it(served: Served, llm: Heard) -> None:
    llm.script = [AgentError("The engine failed.")]
    said = [{"role": "user", "content": CHEST}, {"role": "assistant", "content": "Call 112."}]
    for answer in (
        text(await served.answer([*said, said[0]])),
        spoken(await streamed(served, [*said, said[0]])),
    ):
        assert answer.startswith("**This may be an emergency.")
        assert answer.endswith("The engine failed.")


@pytest.mark.parametrize("stream", [False, True])
async def test_the_line_to_see_someone_soon_is_given_whatever_fails_below_it(
    llm: Heard, chosen: settings.Settings, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(
        "agent.safety.triage.verdicts", lambda texts: [Verdict("soon", "abdomen") for _ in texts]
    )
    gate = threading.Event()

    def load() -> Agent:
        gate.wait()
        return loaded(llm)

    async with serving(load, chosen) as served:

        async def answer() -> str:
            return spoken(await streamed(served)) if stream else text(await served.answer())

        line = soon()
        try:
            assert (await answer()).startswith(f"{line}\n\nThe models are being loaded")
        finally:
            gate.set()
        await served.until_ready()
        llm.script = ["Rest ", AgentError("The engine failed.")]
        assert await answer() == f"{line}\n\nRest\n\nThe engine failed."


# While it loads


async def test_an_engine_that_loads_is_told_and_an_emergency_waits_for_none(
    llm: Heard, chosen: settings.Settings
) -> None:
    gate = threading.Event()

    def load() -> Agent:
        gate.wait()
        return loaded(llm)

    async with serving(load, chosen) as served:
        try:
            for stream in (False, True):
                response = await served.ask(stream=stream)
                assert response.status_code == 503
                assert int(response.headers["retry-after"]) > 0
                assert response.json()["error"]["code"] == "loading"
            ready = await served.client.get("/ready")
            assert ready.status_code == 503 and ready.json()["models"] == "loading"
            assert (await served.client.get("/health")).status_code == 200
            answer = text(await served.answer([{"role": "user", "content": CHEST}]))
            assert answer.startswith("**This may be an emergency.")
            assert (await served.client.get("/v1/models")).status_code == 200
        finally:
            gate.set()
        await served.until_ready()
        assert text(await served.answer()) == "Rest in the dark."


async def test_a_load_that_failed_is_told_and_tried_again(
    llm: Heard, chosen: settings.Settings
) -> None:
    failures: list[Exception] = [
        StoreError("There is no index."),
        AgentError("There is no model."),
    ]

    def load() -> Agent:
        if failures:
            raise failures.pop()
        return loaded(llm)

    async with serving(load, chosen) as served:
        states: list[dict[str, str]] = []
        while (response := await served.client.get("/ready")).status_code != 200:
            states.append(response.json())
            await asyncio.sleep(0.05)
        assert "failed" in [state["models"] for state in states]
        assert "failed" in [state["index"] for state in states]
        assert text(await served.answer()) == "Rest in the dark."


@pytest.fixture
def asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is asked by each request, which waits for what it says."""
    monkeypatch.setattr(health, "KEPT", 0.0)
    monkeypatch.setattr(health, "PATIENCE", 60)
    monkeypatch.setattr(database, "QUICK", 60)


@pytest.mark.usefixtures("asked_anew")
async def test_ready_knows_whether_the_database_answers(
    llm: Heard, chosen: settings.Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database.prepare(chosen)
    kept = tmp_path / "history.db"
    async with serving(lambda: loaded(llm), chosen, history=True) as served:
        await served.until_ready()
        away = kept.rename(tmp_path / "away")
        gone = await served.client.get("/ready")
        assert gone.status_code == 503 and not kept.exists()
        assert gone.json() | {"ready": True, "database": "ready"} == {
            "ready": True,
            "models": "ready",
            "index": "ready",
            "database": "ready",
        }
        assert gone.json()["database"] == "failed"
        await served.client.get("/ready")
        assert caplog.text.count("its file is gone") == 1
        shutil.copy(away, kept)
        assert (await served.client.get("/ready")).json()["database"] == "ready"
        with sqlite3.connect(kept) as connection:
            connection.execute("BEGIN IMMEDIATE")  # who writes is not waited for
            assert (await served.client.get("/ready")).status_code == 200
            connection.execute("DROP TABLE medraft_version")
        assert (await served.client.get("/ready")).status_code == 503
        kept.write_bytes(b"no database" * 1000)
        assert (await served.client.get("/ready")).status_code == 503


@needs_postgres
@pytest.mark.usefixtures("asked_anew")
async def test_ready_while_postgres_has_no_tables_and_is_gone_and_is_back(
    llm: Heard, tmp_path: Path, postgres: Postgres
) -> None:
    address = postgres.address.format(name="postgres")
    chosen = settings.load(home=tmp_path, max_tokens=100, database_url=address)
    gate = threading.Event()

    def load() -> Agent:
        gate.wait()
        return loaded(llm)

    async with serving(load, chosen) as served:

        async def state() -> tuple[int, str, str]:
            answer = await served.client.get("/ready")
            return answer.status_code, answer.json()["models"], answer.json()["database"]

        try:
            assert await state() == (503, "loading", "failed")
            database.prepare(chosen)
            assert await state() == (503, "loading", "ready")
        finally:
            gate.set()
        await served.until_ready()
        postgres.stop()
        try:
            assert await state() == (503, "ready", "failed")
            assert (await served.client.get("/health")).status_code == 200
            assert text(await served.answer()) == "Rest in the dark."
        finally:
            postgres.start()
        assert await state() == (200, "ready", "ready")


async def test_a_database_that_hangs_is_asked_once_however_many_ask_whether_it_does(
    llm: Heard, chosen: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, asked = threading.Event(), []

    def check(_: settings.Settings) -> None:
        asked.append(threading.current_thread().name)
        answers.wait()

    monkeypatch.setattr(database, "check", check)
    monkeypatch.setattr(health, "PATIENCE", 0.01)
    monkeypatch.setattr(health, "KEPT", 3600.0)
    async with serving(lambda: loaded(llm), chosen, history=True) as served:
        try:
            await served.until_ready("models")
            for _ in range(3):
                states = await asyncio.gather(*(served.client.get("/ready") for _ in range(8)))
                assert {state.json()["database"] for state in states} == {"failed"}
            assert text(await served.answer()) == "Rest in the dark."
        finally:
            answers.set()
        await served.until_ready()
    assert asked[0].startswith("ready") and len(asked) == 1


def test_a_server_begins_with_a_database_that_it_can_use(
    sample_index: Path, tmp_path: Path
) -> None:
    def begun(address: str) -> settings.Settings:
        return settings.load(home=tmp_path, index_dir=sample_index, database_url=address)

    for address, said in (("mysql://host/name", "names mysql"), ("nonsense", "is not an address")):
        with pytest.raises(AgentError, match=said):
            server.serve(begun(address), "127.0.0.1", free_port())
    empty = begun(f"sqlite:///{tmp_path}/histories.db")
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(AgentError, match="choose another port"),
    ):
        server.serve(empty, "127.0.0.1", taken.getsockname()[1])
    database.check(empty)


async def test_ready_asks_no_database_where_none_is_used(served: Served) -> None:
    assert (await served.client.get("/ready")).json() == {
        "ready": True,
        "models": "ready",
        "index": "ready",
        "database": "not used",
    }


# Who may ask


async def test_nobody_on_this_machine_needs_a_key(served: Served) -> None:
    assert (await served.ask()).status_code == 200
    served.client.headers["Authorization"] = "Bearer none"  # OpenAI's clients always send one
    assert (await served.ask()).status_code == 200


@pytest.mark.parametrize(
    "header", [("Host", "example.org"), ("X-Forwarded-For", "10.0.0.1"), ("Host", "[")]
)
async def test_a_proxy_or_another_name_is_not_this_machine(
    served: Served, llm: Heard, header: tuple[str, str]
) -> None:
    response = await served.client.post("/v1/chat/completions", json=FINE, headers=dict([header]))
    assert response.status_code == 401 and llm.prompts == []


async def test_a_key_is_asked_for_once_there_is_one(
    served: Served, llm: Heard, tmp_path: Path
) -> None:
    keys = Keys(tmp_path)
    key, other = keys.add("ward 3"), keys.add("other")
    assert (await served.ask()).status_code == 401
    for wrong in ("Bearer x", f"Bearer {key}x", f"Basic {key}", "Bearer", f"Bearer {key[:-1]}"):
        served.client.headers["Authorization"] = wrong
        refused = await served.ask()
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
        assert refused.headers["www-authenticate"] == "Bearer"
    assert llm.prompts == []
    for right in (f"Bearer {key}", f"bearer {other}"):
        served.client.headers["Authorization"] = right
        assert (await served.ask()).status_code == 200
    keys.remove("other")
    assert (await served.ask()).status_code == 401
    assert (await served.client.get("/health")).status_code == 200
    assert (await served.client.get("/ready")).status_code == 200


def test_a_key_is_kept_as_a_hash_that_only_its_owner_reads(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    key = keys.add("ward 3")
    assert keys.path.stat().st_mode & 0o777 == 0o600
    assert key not in keys.path.read_text() and len(key) > 40
    assert keys.owner(key) == "ward 3" and keys.owner("") is None
    with pytest.raises(AgentError, match="already"):
        keys.add("ward 3")
    with pytest.raises(AgentError, match="no key"):
        keys.remove("ward 4")
    keys.path.write_text("{")
    with pytest.raises(AgentError, match=r"keys\.json"):
        keys.names()


async def test_beyond_loopback_there_must_be_a_key(
    llm: Heard, chosen: settings.Settings, tmp_path: Path
) -> None:
    from agent.serving import access

    with pytest.raises(AgentError, match="medraft keys add"):
        access.check(chosen, "0.0.0.0")
    access.check(chosen, "127.0.0.1")
    async with serving(lambda: loaded(llm), chosen, host="0.0.0.0") as served:
        await served.until_ready()
        assert (await served.ask()).status_code == 401
        key = Keys(tmp_path).add("ward 3")
        access.check(chosen, "0.0.0.0")
        served.client.headers["Authorization"] = f"Bearer {key}"
        assert (await served.ask()).status_code == 200


async def test_keys_that_cannot_be_read_are_told_to_nobody_but_the_log(
    served: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Keys(tmp_path).path.write_text("{")
    for path in ("models", "models/base", "sources/x?signature=y"):
        failed = await served.client.get(f"/v1/{path}")
        assert failed.status_code == 500
        assert failed.json()["error"]["message"].startswith(
            "The keys of this server cannot be read"
        )
    assert str(tmp_path) not in failed.text
    assert caplog.text.count(str(tmp_path)) == 1


async def test_a_name_that_is_no_models_is_not_repeated_whole(served: Served) -> None:
    refused = await served.client.get(f"/v1/models/{'x' * 20_000}")
    assert refused.status_code == 404 and len(refused.text) < 300


async def test_other_websites_are_refused_unless_they_are_named(
    llm: Heard, chosen: settings.Settings
) -> None:
    named = chosen.model_copy(update={"allow_origins": "https://chat.example.org"})
    asks = {"Origin": "https://chat.example.org", "Access-Control-Request-Method": "POST"}
    for settings_, status in ((chosen, 403), (named, 200)):
        async with serving(lambda: loaded(llm), settings_) as served:
            await served.until_ready()
            before = await served.client.options("/v1/chat/completions", headers=asks)
            assert ("access-control-allow-origin" in before.headers) == (status == 200)
            served.client.headers["Origin"] = asks["Origin"]
            assert (await served.ask()).status_code == status
            for other in ("https://evil.example", "null", "http://["):
                served.client.headers["Origin"] = other
                assert (await served.ask()).status_code == 403


async def test_a_rate_has_a_bound(llm: Heard, chosen: settings.Settings) -> None:
    few = chosen.model_copy(update={"rate": 3})
    async with serving(lambda: loaded(llm), few) as served:
        await served.until_ready()
        assert [(await served.ask()).status_code for _ in range(4)] == [200, 200, 200, 429]
        refused = await served.ask()
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert 0 < int(refused.headers["retry-after"]) <= 20
        assert (await served.client.get("/ready")).status_code == 200
        key = Keys(chosen.home).add("ward 3")
        served.client.headers["Authorization"] = "Bearer guessed"
        assert [(await served.ask()).status_code for _ in range(4)] == [401, 401, 401, 429]
        served.client.headers["Authorization"] = f"Bearer {key}"
        assert (await served.ask()).status_code == 200


# Figures


async def figures(served: Served) -> dict[str, float]:
    """What /metrics says, by name and labels."""
    response = await served.client.get("/metrics")
    assert response.status_code == 200
    lines = [line for line in response.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def test_turns_are_counted(served: Served, llm: Heard) -> None:
    before = await figures(served)
    await served.answer()
    await served.answer(max_tokens=4)
    await served.answer([{"role": "user", "content": CHEST}])
    await served.ask(n=2)
    llm.script = [AgentError("The engine failed.")]
    await served.ask()
    after = await figures(served)
    grown = {name: value - before.get(name, 0) for name, value in after.items()}
    for name in (
        'medraft_turns_total{behaviour="base",outcome="finished"}',
        'medraft_turns_total{behaviour="base",outcome="cut"}',
        'medraft_turns_total{behaviour="base",outcome="failed"}',
        'medraft_turns_total{behaviour="medraft",outcome="finished"}',
        'medraft_triage_total{kind="cardiac",verdict="emergency"}',
        'medraft_errors_total{kind="AgentError"}',
        'medraft_refusals_total{code="unsupported_parameter"}',
    ):
        assert grown[name] == 1, name
    assert grown['medraft_triage_total{kind="",verdict="none"}'] == 3
    assert grown['medraft_first_token_seconds_count{behaviour="base"}'] == 2
    assert grown['medraft_tokens_total{kind="written"}'] == 8
    assert after["medraft_turns_running"] == after["medraft_turns_waiting"] == 0


async def test_no_word_of_a_patient_is_in_the_figures_or_the_log(
    served: Served, llm: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="medraft")
    secret = "zwieback"
    said = [{"role": "user", "content": f"{secret} {CHEST}"}]
    await served.answer(said)
    await served.answer([*said, {"role": "assistant", "content": secret}, *said])
    for failure in (ValueError(secret), AgentError(secret), AgentError(secret, key="too_long")):
        llm.script = [f"{secret} ", failure]
        await served.ask([{"role": "user", "content": secret}], user=secret)
    await served.ask(said, model=secret, stop=[secret])
    await served.ask([{"role": "user", "content": "x"}], **{secret: secret})
    await served.client.post("/v1/chat/completions", content=secret.encode())
    assert secret not in (await served.client.get("/metrics")).text
    assert secret not in caplog.text


async def test_the_figures_want_a_key_like_all_else(served: Served, tmp_path: Path) -> None:
    key = Keys(tmp_path).add("prometheus")
    assert (await served.client.get("/metrics")).status_code == 401
    served.client.headers["Authorization"] = f"Bearer {key}"
    assert (await served.client.get("/metrics")).status_code == 200


# Citations


def test_citations_are_taken_off_again() -> None:
    sources = [Cited("A [b](http://x) <i>", "http://h/1"), Cited("C", "http://h/2")]
    cited = "Rest. [1] Drink." + listing(sources, {1}, "en")
    assert cited.endswith(
        "Sources:\n- [1] A b (http://x) i: http://h/1\n- [2] C (not used): http://h/2"
    )
    assert without_citations(cited) == without_citations(cited + "\n") == "Rest. Drink."
    assert without_citations("Rest." + listing(sources, set(), "es")) == "Rest."
    theirs = "Rest [1] in the dark.\n\nSources: a book"
    assert without_citations(theirs) == theirs


MIGRAINE = [{"role": "user", "content": "What helps against my migraine?"}]


@pytest.fixture
async def sourced(
    llm: Heard, chosen: settings.Settings, embed_questions: Embed, sample_index: Path
) -> AsyncIterator[Served]:
    """With the small index, and an LLM that takes two of its four sentences from it."""
    store = IndexStore.open(sample_index, EMBEDDED)
    retriever = DoctorReplyRetriever(store, embed_questions, 2, -1)
    words = "I am sorry. Rest in a dark room. My cousin likes football. Take ibuprofen early."
    llm.script = [f"{word} " for word in words.split()]
    agent = loaded(llm, retriever, TurnEmbedding(embed_questions), home=chosen.home)
    async with serving(lambda: agent, chosen) as served:
        await served.until_ready()
        yield served


CITED = (
    "I am sorry. Rest in a dark room. [1] My cousin likes football. "
    "Take ibuprofen early. [1]"
    "\n\nSources:\n- [1] Q. What helps against migraine?: "
)


async def test_what_a_source_supports_is_marked_and_listed(sourced: Served) -> None:
    whole = await sourced.answer(MIGRAINE, model="RAFT")
    message = whole["choices"][0]["message"]
    assert message["content"].startswith(CITED)
    assert message["content"].count("(not used)") == 1
    marks = [each["url_citation"] for each in message["annotations"]]
    assert [message["content"][m["start_index"] : m["end_index"]] for m in marks] == ["[1]", "[1]"]
    assert {m["title"] for m in marks} == {"Q. What helps against migraine?"}
    first = whole["medraft"]["sources"][0]
    assert {m["url"] for m in marks} == {f"{sourced.url}/v1/sources/{first['id']}"}
    assert f"{sourced.url}/v1/sources/{first['id']}\n" in message["content"]


async def test_a_stream_has_its_marks_where_the_sentences_end(sourced: Served) -> None:
    whole = await sourced.answer(MIGRAINE, model="RAFT")
    *chunks, last, _ = await streamed(sourced, MIGRAINE, model="RAFT")
    assert spoken([*chunks, last]) == text(whole)
    pieces = [chunk["choices"][0]["delta"]["content"] for chunk in chunks]
    (marked, *_), (goes_on,) = (
        [n for n, piece in enumerate(pieces) if word in piece] for word in ("[1]", "My")
    )
    assert marked <= goes_on < len(pieces) - 1
    annotations = whole["choices"][0]["message"]["annotations"]
    assert last["choices"][0]["delta"]["annotations"] == annotations


async def test_an_answer_comes_back_as_it_was_before_its_citations(
    sourced: Served, llm: Heard
) -> None:
    whole = await sourced.answer(MIGRAINE, model="RAFT")
    said = [*MIGRAINE, whole["choices"][0]["message"], {"role": "user", "content": "Thanks"}]
    await sourced.answer(said, model="base")
    # What follows is the LLM's own answer, to go on from.
    assert llm.prompt[1:4] == [
        ("user", "What helps against my migraine?"),
        ("assistant", "".join(map(str, llm.script)).strip()),
        ("user", "Thanks"),
    ]


async def test_a_source_can_be_read_by_its_link(sourced: Served, tmp_path: Path) -> None:
    whole = await sourced.answer(MIGRAINE, model="RAFT")
    source = whole["medraft"]["sources"][0]
    link = whole["choices"][0]["message"]["annotations"][0]["url_citation"]["url"]
    read = (await sourced.client.get(link)).json()
    assert read == {key: source[key] for key in ("id", "title", "patient", "doctor")}
    page = await sourced.client.get(link, headers={"Accept": "text/html,*/*"})
    assert page.headers["content-type"].startswith("text/plain") and source["doctor"] in page.text
    for none in ("0" * 16, "x", "../keys.json", "%00", source["id"].upper() + "0"):
        assert (await sourced.client.get(f"{sourced.url}/v1/sources/{none}")).status_code == 404
    key = Keys(tmp_path).add("ward 3")
    assert (await sourced.client.get(link)).status_code == 401
    sourced.client.headers["Authorization"] = f"Bearer {key}"
    assert (await sourced.client.get(link)).status_code == 200
    whole = await sourced.answer(MIGRAINE, model="RAFT")
    link = whole["choices"][0]["message"]["annotations"][0]["url_citation"]["url"]
    del sourced.client.headers["Authorization"]
    assert (await sourced.client.get(link)).status_code == 200  # as a browser opens it
    assert (await sourced.client.get(link[:-1])).status_code == 401
    others = await sourced.client.get(link, headers={"Origin": "https://evil.example"})
    assert others.status_code == 403


async def test_a_link_is_read_no_more_often_than_the_rate_says(
    llm: Heard, chosen: settings.Settings
) -> None:
    Keys(chosen.home).add("ward 3")
    sign = Keys(chosen.home).signing()
    assert sign is not None
    few = chosen.model_copy(update={"rate": 3})
    gate = threading.Event()
    async with serving(lambda: gate.wait() and loaded(llm), few) as served:  # no index is open
        try:
            for id in ("a", "b"):
                link = f"/v1/sources/{id}?signature={sign(id)}"
                told = [(await served.client.get(link)).status_code for _ in range(4)]
                assert told == [503, 503, 503, 429]
        finally:
            gate.set()
        await served.until_ready()


@pytest.mark.parametrize("others", [{"X-Forwarded-For": "10.0.0.1"}, {"Host": "evil.example"}])
async def test_without_a_key_no_signature_is_one(
    sourced: Served, tmp_path: Path, others: dict[str, str]
) -> None:
    id = (await sourced.answer(MIGRAINE, model="RAFT"))["medraft"]["sources"][0]["id"]
    keys = Keys(tmp_path)
    for left in (False, True):  # never a key, and none any more
        secret = json.loads(keys.path.read_text())["secret"] if left else ""
        made = hmac.new(secret.encode(), id.encode(), hashlib.sha256).hexdigest()[:32]
        link = f"/v1/sources/{id}?signature={made}"
        assert (await sourced.client.get(link)).status_code == 200  # as any of this machine
        assert (await sourced.client.get(link, headers=others)).status_code == 401
        keys.add("ward 3")
        keys.remove("ward 3")
