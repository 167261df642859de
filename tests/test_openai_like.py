"""The engine for servers elsewhere: against llama.cpp's own, and against one that misbehaves."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
from contextlib import aclosing
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, MessageRole

from agent import settings
from agent.errors import AgentError
from agent.llms import engines, openai_like
from agent.llms.interface import ChatLLM

from misbehaving import CLOSED, GOOD, WORDS, Misbehaving, Reply, page, stream, word

SECRET = "my left knee"
PROMPT = [
    ChatMessage(role=MessageRole.SYSTEM, content="You are a doctor."),
    ChatMessage(role=MessageRole.USER, content=f"What is wrong with {SECRET}?"),
]
BEGUN = [*PROMPT, ChatMessage(role=MessageRole.ASSISTANT, content="It is the")]


async def answer(llm: ChatLLM, messages: list[ChatMessage] = PROMPT, **sampling: Any) -> str:
    """The whole answer; greedy unless told."""
    text = ""
    async with aclosing(await llm.astream_chat(messages, **{"max_tokens": 12} | sampling)) as said:
        async for response in said:
            text = response.message.content or ""
    return text


@pytest.fixture
def server(misbehaving: Misbehaving) -> Misbehaving:
    return misbehaving


async def test_streams_what_the_server_says(server: Misbehaving) -> None:
    server.script = [GOOD]
    loaded = await server.engine(fine_tuned_model="doctor")
    said = [r async for r in await loaded.llm("fine-tuned").astream_chat(PROMPT, max_tokens=9)]
    assert [r.delta for r in said] == ["Rest ", "it."]
    assert said[-1].message.content == "Rest it."
    assert [(r.raw or {})["tokens"] for r in said] == [1, 2]
    (sent,) = server.chats
    assert (sent["model"], sent["max_tokens"], sent["top_k"]) == ("doctor", 9, 40)
    assert sent["repetition_penalty"] == sent["repeat_penalty"] == 1.1
    assert "continue_final_message" not in sent


async def test_counts_tokens_as_vllm_tells_them(server: Misbehaving) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
    server.script = [stream(word("Rest it.", "stop", usage=usage), "[DONE]", end=CLOSED)]
    loaded = await server.engine()
    said = [r async for r in await loaded.base.astream_chat(PROMPT, max_tokens=9)]
    assert [(r.raw or {})["tokens"] for r in said] == [5]


async def test_vllm_is_told_to_go_on_from_a_begun_answer(server: Misbehaving) -> None:
    server.script = [GOOD]
    await answer((await server.engine()).base, BEGUN)
    assert server.chats[0]["continue_final_message"] is True
    assert server.chats[0]["add_generation_prompt"] is False


QUOTING = json.dumps({"error": {"message": f"cannot read '{SECRET}'", "code": 400}})
TOO_LONG = json.dumps(
    {"error": {"message": f"maximum context length is 2048 tokens, not '{SECRET}'", "code": 400}}
)
FAILURES = {
    "wrong key": (page(QUOTING, 401), "MEDRAFT_API_KEY", ""),
    "forbidden": (page(QUOTING, 403), "MEDRAFT_API_KEY", ""),
    "unknown model": (page(QUOTING, 404), "MEDRAFT_MODEL", ""),
    "too long": (page(TOO_LONG, 400), "shorter", ""),
    "refused": (page(QUOTING, 400), "refuses the request", ""),
    "too many": (page(QUOTING, 429), "no place free", ""),
    "no slot": (page(QUOTING, 503), "no place free", ""),
    "fails": (page(QUOTING, 500), "failed", ""),
    "dies": (Reply(), "does not answer", ""),
    "garbage": (stream(f"{{no JSON: {SECRET}", end=CLOSED), "OpenAI's protocol", ""),
    "no chunk": (stream([SECRET], end=CLOSED), "broke off", ""),
    "half a chunk in mid-stream": (stream(*WORDS[:1], '{"a', *WORDS[1:]), "kept", "Rest "),
    "JSON of another make": (page('{"error": {"message": "boom"}}'), "broke off", ""),
    "no stream": (page(f"<p>{SECRET}</p>"), "broke off", ""),
    "error first": (stream(json.loads(QUOTING), end=CLOSED), "broke off", ""),
    "error in mid-stream": (stream(*WORDS, json.loads(QUOTING), end=CLOSED), "kept", "Rest it."),
    "garbage in mid-stream": (stream(*WORDS, f"{{{SECRET}", end=CLOSED), "kept", "Rest it."),
    "cut": (stream(*WORDS), "broke off", "Rest it."),
    "no end": (stream(*WORDS, end=CLOSED), "broke off", "Rest it."),
    "silent": (Reply(hangs=True), "takes too long", ""),
    "silent in mid-stream": (Reply(stream(*WORDS).sent, hangs=True), "too long.*kept", "Rest it."),
}


@pytest.mark.parametrize(("reply", "told", "said"), FAILURES.values(), ids=FAILURES.keys())
async def test_a_failure_is_one_sentence_without_the_patients_words(
    server: Misbehaving,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    reply: Reply,
    told: str,
    said: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr(openai_like, "FIRST_TOKEN", 0.3 if reply.hangs and not said else 60)
    monkeypatch.setattr(openai_like, "BETWEEN_TOKENS", 0.3)
    server.script = [reply]
    loaded = await server.engine()
    heard = ""
    with pytest.raises(AgentError, match=told) as caught:
        async for response in await loaded.base.astream_chat(PROMPT, max_tokens=9):
            heard = response.message.content or ""
    assert heard == said
    assert re.fullmatch(r"The LLM server at 127\.0\.0\.1:\d+ [^\n]*\.", str(caught.value))
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert SECRET not in caplog.text


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds for which the engine waits before another try, which take no time here."""
    told: list[float] = []

    async def sleep(seconds: float) -> None:
        told.append(seconds)

    monkeypatch.setattr("openai._base_client.anyio.sleep", sleep)
    monkeypatch.setattr("openai._base_client.random", lambda: 0.0)  # up to a quarter less is drawn
    return told


async def test_tries_again_until_the_server_has_room(
    server: Misbehaving, waits: list[float]
) -> None:
    server.script = [page("", 503), page("", 503), GOOD]
    assert await answer((await server.engine()).base) == "Rest it."
    assert waits == [0.5, 1]


async def test_gives_up_after_three_tries(server: Misbehaving) -> None:
    server.script = [page("", 503)]
    with pytest.raises(AgentError, match="503"):
        await answer((await server.engine()).base)
    assert len(server.chats) == 3


async def test_waits_as_long_as_the_server_says(server: Misbehaving, waits: list[float]) -> None:
    server.script = [page("", 429, Retry_After="7"), GOOD]
    assert await answer((await server.engine()).base) == "Rest it."
    assert waits == [7]


async def test_an_answer_that_broke_off_is_not_begun_again(server: Misbehaving) -> None:
    server.script = [stream(*WORDS), GOOD]
    with pytest.raises(AgentError, match="broke off"):
        await answer((await server.engine()).base)
    assert len(server.chats) == 1


async def test_a_slow_reader_is_not_a_slow_server(
    server: Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_like, "BETWEEN_TOKENS", 1.0)
    begun = stream(word("Rest ")).sent
    server.script = [Reply(begun, later=GOOD.sent.removeprefix(begun))]
    said = []
    async for response in await (await server.engine()).base.astream_chat(PROMPT, max_tokens=9):
        said.append(response.delta)
        await asyncio.sleep(1.2)
        server.may_go_on.set()
    assert said == ["Rest ", "it."]


@pytest.mark.parametrize("minded", [True, False])
async def test_stop_closes_the_connection(
    minded: bool, server: Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    ignored: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    server.script = [Reply(stream(*WORDS).sent, hangs=True)]
    engine, loops = await server.engine(), sys.get_asyncgen_hooks()
    if not minded:  # no loop of nest_asyncio, which Chainlit applies, minds its generators
        sys.set_asyncgen_hooks(None, None)
    try:
        said = await engine.base.astream_chat(PROMPT, max_tokens=9)
        await anext(said)
        await said.aclose()
    finally:
        sys.set_asyncgen_hooks(*loops)
    await server.left.wait()
    assert ignored == []


async def test_stop_before_the_first_word_closes_the_connection(server: Misbehaving) -> None:
    server.script = [Reply(hangs=True)]
    waiting = asyncio.create_task(answer((await server.engine()).base))
    await server.came.wait()
    waiting.cancel()
    await server.left.wait()


async def test_stop_ends_the_wait_for_another_try(
    server: Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = asyncio.Event()

    async def sleep(seconds: float) -> None:
        waits.set()
        await asyncio.Event().wait()  # for ever, unless Stop ends it

    monkeypatch.setattr("openai._base_client.anyio.sleep", sleep)
    server.script = [page("", 429, Retry_After="1"), GOOD]
    waiting = asyncio.create_task(answer((await server.engine()).base))
    await waits.wait()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert len(server.chats) == 1


async def test_a_server_that_went_away_is_named(server: Misbehaving) -> None:
    loaded = await server.engine()
    server.listening.close()
    for asked in (answer(loaded.base), server.engine()):
        with pytest.raises(AgentError, match=r":\d+ does not answer.*MEDRAFT_BASE_URL"):
            await asked


async def test_no_proxy_stands_before_this_machine(
    server: Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    server.script = [GOOD]
    assert await answer((await server.engine()).base) == "Rest it."


async def test_auto_is_the_first_that_is_not_the_fine_tuned(server: Misbehaving) -> None:
    loaded = await server.engine(fine_tuned_model="llama")
    assert loaded.base.metadata.model_name == "doctor"
    assert loaded.llm("fine-tuned").metadata.model_name == "llama"


@pytest.mark.parametrize(
    "card",
    [
        *({"id": f"text-embedding-{each}"} for each in ("nomic-embed-text-v1.5", "ada")),
        *({"id": f"BAAI/bge-{each}"} for each in ("reranker-v2-m3", "m3")),
        *({"id": name} for name in ("whisper-1", "mxbai-large-v1", "jinaai/jina-colbert-v2")),
        *({"id": f"sentence-transformers/all-{each}"} for each in ("mpnet-base-v2", "MiniLM-L6")),
        *({"id": f"snowflake-arctic-{each}"} for each in ("embed-l", "m")),
        *({"id": name} for name in ("WhereIsAI/UAE-Large-V1", "clip-vit-base", "dall-e-3")),
        *({"id": name} for name in ("kokoro", "stable-diffusion-3", "FLUX.1-dev", "tts-1")),
        *({"id": name} for name in ("llama-guard3:8b", "omni-moderation-latest")),
        {"id": "nurse", "type": "embeddings"},
        {"id": ""},
        {"id": None},
        None,
    ],
)
async def test_auto_passes_over_what_does_not_chat(server: Misbehaving, card: object) -> None:
    cards = [card, {"id": "llama", "type": "llm"}]
    server.pages["/v1/models"] = page(json.dumps({"data": cards}))
    assert (await server.engine()).base.metadata.model_name == "llama"


@pytest.mark.parametrize("name", ["snowflake-arctic-instruct", "stable-code:3b", "clippy", 5])
async def test_auto_takes_what_chats_whatever_its_name(server: Misbehaving, name: object) -> None:
    server.pages["/v1/models"] = page(json.dumps({"data": [{"id": name}, {"id": "llama"}]}))
    assert (await server.engine()).base.metadata.model_name == str(name)


@pytest.mark.parametrize("name", ["model", "fine_tuned_model"])
async def test_an_unknown_model_is_told_with_those_there_are(
    server: Misbehaving, name: str
) -> None:
    told = rf"no model nurse: correct MEDRAFT_{name.upper()} \(it has llama, doctor\)"
    with pytest.raises(AgentError, match=told):
        await server.engine(**{name: "nurse"})


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (page(QUOTING, 401), "MEDRAFT_API_KEY"),
        (page(QUOTING, 404), "MEDRAFT_BASE_URL"),
        (page("<html>"), "OpenAI's protocol"),
        (page('{"data": {"id": 3}}'), "OpenAI's protocol"),
        (page('{"data": []}'), "no model to chat with.*it has none"),
        (page('{"data": null}'), "no model to chat with.*it has none"),
        (
            page('{"data": [{"id": "bge-m3"}]}'),
            "no model to chat with.*it has bge-m3.*MEDRAFT_MODEL",
        ),
    ],
)
async def test_what_is_no_list_of_models_is_one_sentence(
    server: Misbehaving, reply: Reply, told: str
) -> None:
    server.pages["/v1/models"] = reply
    with pytest.raises(AgentError, match=told):
        await server.engine()


@pytest.mark.parametrize("url", ["localhost:8080/v1", "http://", "http://host:port/v1"])
def test_what_is_no_address_is_named(url: str) -> None:
    with pytest.raises(AgentError, match=f"{url} is no http address"):
        engines.load(settings.load(engine="openai_like", base_url=url))


@pytest.mark.parametrize(("wanted", "window"), [(4096, 2048), (1024, 1024)])
async def test_the_window_is_the_servers_but_no_more_than_wanted(
    server: Misbehaving, wanted: int, window: int
) -> None:
    loaded = await server.engine(context_window=wanted, fine_tuned_model="doctor")
    assert loaded.base.metadata.context_window == window
    assert loaded.llm("fine-tuned").metadata.context_window == window


@pytest.mark.parametrize(
    ("told", "window"), [("2048", 2048), (0, 4096), (-1, 4096), ("-1", 4096), ("many", 4096)]
)
async def test_a_window_may_be_told_as_text_or_not_at_all(
    server: Misbehaving, told: object, window: int
) -> None:
    server.pages["/v1/models"] = page(
        json.dumps({"data": [{"id": "llama", "max_model_len": told}]})
    )
    assert (await server.engine()).base.metadata.context_window == window


async def test_counts_a_prompt_as_vllm_does(server: Misbehaving) -> None:
    server.pages["/tokenize"] = page('{"count": 77, "max_model_len": 2048, "tokens": []}')
    assert await (await server.engine()).base.count_tokens(BEGUN) == 77
    path, body = server.asked[-1]
    assert (path, body["model"], len(body["messages"])) == ("/tokenize", "llama", 3)
    assert body["continue_final_message"] is True and body["add_generation_prompt"] is False


@pytest.mark.parametrize("reply", [page("no such page", 404), page("<html>"), page("{}")])
async def test_estimates_where_the_server_does_not_count(server: Misbehaving, reply: Reply) -> None:
    server.pages["/tokenize"] = reply
    count = await (await server.engine()).base.count_tokens(PROMPT)
    assert count == openai_like.estimate(PROMPT) > 20


# llama.cpp's own server, behind a proxy that gives its adapter a name, as vLLM does.


async def test_answers_as_the_embedded_engine_does(named: Any) -> None:
    loaded = named.engine()
    answers = set()
    for choice in ("base", "fine-tuned"):
        for messages in (PROMPT, BEGUN):
            ours = await answer(loaded.llm(choice), messages)
            assert ours == await answer(named.embedded.llm(choice), messages)
            answers.add(ours)
    assert len(answers) == 4


async def test_counts_as_the_embedded_engine_does(named: Any) -> None:
    loaded = named.engine()
    for messages in (PROMPT, BEGUN):
        count = await loaded.base.count_tokens(messages)
        assert count == await named.embedded.base.count_tokens(messages)
        assert count < openai_like.estimate(messages)


def test_llama_cpp_tells_its_window(named: Any) -> None:
    window = named.engine(context_window=100_000).base.metadata.context_window
    assert window == named.embedded.base.metadata.context_window


def test_llama_cpp_refuses_another_key(named: Any) -> None:
    with pytest.raises(AgentError, match="MEDRAFT_API_KEY"):
        named.engine(api_key="another")


async def test_llama_cpp_tells_what_is_too_long(named: Any) -> None:
    long = [ChatMessage(role=MessageRole.USER, content="It hurts. " * 3000)]
    with pytest.raises(AgentError, match="shorter"):
        await answer(named.engine().base, long)


async def test_llama_cpp_understands_how_to_draw(named: Any) -> None:
    loaded = named.engine()
    wild: dict[str, Any] = {"temperature": 2.0, "min_p": 0.0, "repetition_penalty": 1.0}
    assert len({await answer(loaded.base, top_k=1, **wild) for _ in range(3)}) == 1
    assert len({await answer(loaded.base, top_k=1000, **wild) for _ in range(3)}) > 1
    plain = await answer(loaded.base, repetition_penalty=1.0, max_tokens=30)
    assert plain != await answer(loaded.base, repetition_penalty=1.8, max_tokens=30)
