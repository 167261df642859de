"""What servers stream that is not quite OpenAI's protocol, each by its name."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, MessageRole

from agent.errors import AgentError
from agent.llms.interface import END_TOKENS
from agent.llms.leaks import Answer

from misbehaving import CLOSED, GOOD, Misbehaving, Reply, page, stream, word

PROMPT = [
    ChatMessage(role=MessageRole.SYSTEM, content="You are a doctor."),
    ChatMessage(role=MessageRole.USER, content="What is wrong with my knee?"),
]
SAID = "Rest it."


def delta(value: object, finish: str | None = None, **more: object) -> dict[str, object]:
    """A chunk whose delta is `value`."""
    choice = {"index": 0, "delta": value, "finish_reason": finish}
    return {"object": "chat.completion.chunk", "choices": [choice], **more}


def told(*events: object, done: bool = True) -> Reply:
    return stream(*events, *(["[DONE]"] if done else []), end=CLOSED)


def with_usage(usage: object) -> Reply:
    events = [word("Rest ", usage=usage), word("it.", usage=usage)]
    return told(*events, word("", "stop", usage=usage))


def raw(text: str) -> Reply:
    """A stream as it stands, without HTTP's chunks."""
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    return Reply((head + text).encode())


REST, IT = (json.dumps(word(text)) for text in ("Rest ", "it."))
# Every one of them says SAID, and no more, in two tokens.
DIALECTS = {
    "usage null": with_usage(None),
    "usage empty": with_usage({}),
    "usage partial": with_usage({"prompt_tokens": 9}),
    "usage with null": with_usage({"prompt_tokens": 9, "completion_tokens": None}),
    "usage zero": with_usage({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}),
    "usage that stands still": with_usage({"completion_tokens": 1}),
    "usage at the end alone": told(
        word("Rest "),
        word("it."),
        word("", "stop"),
        {"choices": [], "usage": {"completion_tokens": 2}},
    ),
    "delta null": told(word("Rest "), delta(None), word("it."), delta(None, "stop")),
    "no delta": told(word("Rest "), {"choices": [{"index": 0}]}, word("it.", "stop")),
    "content null": told(delta({"role": "assistant", "content": None}), word("Rest "), word("it.")),
    "chunk null": told(word("Rest "), "null", word("it."), word("", "stop")),
    "chunk empty": told({}, word("Rest "), word("it."), word("", "stop")),
    "choices null": told({"choices": None}, word("Rest "), word("it."), word("", "stop")),
    "choice null": told({"choices": [None]}, word("Rest "), word("it."), word("", "stop")),
    "data empty": told("", word("Rest "), "", word("it."), word("", "stop")),
    "content as a list": told(
        delta({"content": [{"type": "text", "text": "Rest "}]}),
        delta({"content": [{"type": "text", "text": "it"}, {"type": "text", "text": "."}]}, "stop"),
    ),
    "content as a list of strings": told(
        delta({"content": ["Rest "]}), delta({"content": ["it."]})
    ),
    "message in place of delta": told(
        word("Rest "), {"choices": [{"message": {"content": "it."}, "finish_reason": "stop"}]}
    ),
    "no finish reason": told(word("Rest "), word("it.")),
    "finish reason empty": told(word("Rest ", ""), word("it.", "")),
    "no end but a finish reason": told(word("Rest "), word("it.", "stop"), done=False),
    "reasoning beside": told(delta({"reasoning_content": "Hm."}, usage=None), word("Rest it.")),
    "reasoning as Ollama names it": told(delta({"reasoning": "Hm."}), word("Rest it.")),
    "reasoning in a list": told(
        delta({"content": [{"type": "thinking", "thinking": "Hm."}]}), word("Rest it.")
    ),
    "comments": raw(
        f": OPENROUTER PROCESSING\n\ndata: {REST}\n\n: ping\n\ndata: {IT}\n\ndata: [DONE]"
    ),
    "no empty lines": raw(f"data:{REST}\ndata:{IT}\ndata:[DONE]\n"),
    "line ends of Windows": raw(f"data: {REST}\r\n\r\ndata: {IT}\r\n\r\ndata: [DONE]\r\n\r\n"),
    "a thought": told(word("<think>I should "), word("say rest.</think>\n\nRest it.", "stop")),
    "a thought in pieces": told(
        *map(word, ["Rest ", "it.<", "thi", "nk>", "</th"]), word("ink>", "stop")
    ),
    "Mistral's thought": told(word("[THINK]Hm.[/THINK]Rest "), word("it.", "stop")),
    "gpt-oss's channels": told(
        word("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|chan"),
        word("nel|>final<|message|>Rest it.<|return|>"),
    ),
    "Llama 3's header": told(
        word("<|start_header_id|>assistant<|end_header_id|>\n\nRest "), word("it.", "stop")
    ),
    "Llama 3's header, its marks gone": told(word("assistant\n\nRest "), word("it.", "stop")),
    "Llama 3's end": told(word("Rest "), word("it.<|eot_id|>assistant\n\nAnd then")),
    "Llama 3's next turn": told(word("Rest "), word("it.assistant\n\nAnd then")),
    "ChatML's end": told(word("Rest "), word("it.<|im_end|>\n<|im_start|>user\nAnd")),
    "ChatML's next turn": told(word("Rest "), word("it.<|im_start|>user\nAnd")),
    "Gemma's end": told(word("Rest "), word("it.<end_of_turn>")),
    "Llama 2's end": told(word("Rest "), word("it.</s>")),
    "DeepSeek's end": told(word("Rest "), word("it.<\uff5cend▁of▁sentence\uff5c>")),
    "the patient's next words": told(word("Rest it.\n"), word("User: And then?")),
}


async def heard(server: Misbehaving, **sampling: Any) -> tuple[str, dict[str, Any]]:
    """The answer's text, and the last that was told beside it."""
    llm = (await server.engine()).base
    text = ""
    beside: dict[str, Any] = {}
    async with aclosing(await llm.astream_chat(PROMPT, **{"max_tokens": 9} | sampling)) as said:
        async for response in said:
            text += response.delta or ""
            beside = response.raw or {}
            assert response.message.content == text
    return text, beside


@pytest.mark.parametrize("reply", DIALECTS.values(), ids=DIALECTS.keys())
async def test_every_dialect_says_the_same(misbehaving: Misbehaving, reply: Reply) -> None:
    misbehaving.script = [reply]
    text, beside = await heard(misbehaving)
    assert text.rstrip() == SAID
    assert beside["tokens"] >= 1 and "cut" not in beside


@pytest.mark.parametrize("name", [name for name in DIALECTS if name.startswith("usage")])
async def test_a_useless_usage_gives_way_to_our_own_count(
    misbehaving: Misbehaving, name: str
) -> None:
    misbehaving.script = [DIALECTS[name]]
    assert (await heard(misbehaving))[1]["tokens"] == 2


@pytest.mark.parametrize("finish", ["length", "content_filter", "max_tokens", "abort"])
async def test_an_answer_that_was_cut_says_so(misbehaving: Misbehaving, finish: str) -> None:
    misbehaving.script = [told(word("Rest "), word("it."), word("", finish))]
    text, beside = await heard(misbehaving, max_tokens=240)
    assert (text, beside) == (SAID, {"tokens": 2, "cut": True})


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["Rest \ud83d", "\ude00 it."], "Rest \U0001f600 it."),
        (["Rest \ud83d it."], "Rest \ufffd it."),
        (["Rest it.\ude00"], "Rest it.\ufffd"),
        (["Rest it.\ud83d"], "Rest it.\ufffd"),
    ],
)
async def test_halves_of_a_character_are_joined_or_replaced(
    misbehaving: Misbehaving, pieces: list[str], text: str
) -> None:
    misbehaving.script = [told(*map(word, pieces))]
    said, _ = await heard(misbehaving)
    assert said == text
    said.encode()  # or it could neither be stored nor said again


async def test_the_ends_of_turns_are_sent_as_stops(misbehaving: Misbehaving) -> None:
    misbehaving.script = [GOOD]
    await heard(misbehaving)
    assert misbehaving.chats[0]["stop"] == list(END_TOKENS)


THOUGHTS = {
    "beside": told(delta({"reasoning_content": "Hm."}), delta({}, "length")),
    "as text": told(word("<think>Hm. What"), word(" is it", "length")),
}


@pytest.mark.parametrize("reply", THOUGHTS.values(), ids=THOUGHTS.keys())
async def test_thoughts_that_left_no_room_for_an_answer(
    misbehaving: Misbehaving, reply: Reply
) -> None:
    misbehaving.script = [reply]
    with pytest.raises(AgentError, match=r"all 9 tokens.*thoughts: raise MEDRAFT_MAX_TOKENS"):
        await heard(misbehaving)


async def test_an_answer_that_a_filter_held_back(misbehaving: Misbehaving) -> None:
    misbehaving.script = [told(delta({}, "content_filter"))]
    with pytest.raises(AgentError, match="filter of its own: please ask in other words"):
        await heard(misbehaving)


async def test_thoughts_that_nothing_announces_are_waited_for_from_then_on(
    misbehaving: Misbehaving,
) -> None:
    misbehaving.script = [told(word("Hm. "), word("What?</think>Rest it."))]
    llm = (await misbehaving.engine()).base
    said = []
    for _ in range(2):
        async with aclosing(await llm.astream_chat(PROMPT, max_tokens=9)) as responses:
            said.append("".join([r.delta or "" async for r in responses]))
    assert said[1] == SAID


LONG = {"error": {"message": "the request exceeds the available context size", "code": 400}}
TALK = [
    PROMPT[0],
    *(
        ChatMessage(role=role, content=f"{role.value} {turn}")
        for turn in range(3)
        for role in (MessageRole.USER, MessageRole.ASSISTANT)
    ),
    PROMPT[1],
]


@pytest.mark.parametrize(
    "refusal", [told(LONG), page('{"error": {"message": "exceeds the context size"}}', 400)]
)
async def test_too_long_a_conversation_is_asked_once_more_without_its_older_half(
    misbehaving: Misbehaving, refusal: Reply
) -> None:
    misbehaving.script = [refusal, GOOD]
    llm = (await misbehaving.engine()).base
    async with aclosing(await llm.astream_chat(TALK, max_tokens=9)) as responses:
        assert "".join([r.delta or "" async for r in responses]) == SAID
    sent = [message["content"] for message in misbehaving.chats[1]["messages"]]
    assert sent == [PROMPT[0].content, "user 2", "assistant 2", PROMPT[1].content]


@pytest.mark.parametrize(("messages", "asked"), [(PROMPT, 1), (TALK, 2)])
async def test_what_stays_too_long_is_said(
    misbehaving: Misbehaving, messages: list[ChatMessage], asked: int
) -> None:
    misbehaving.script = [told(LONG)]
    llm = (await misbehaving.engine()).base
    with pytest.raises(AgentError, match="cannot read so long a conversation: send a shorter"):
        async for _ in await llm.astream_chat(messages, max_tokens=9):
            pass
    assert len(misbehaving.chats) == asked


FAILED = {
    "Ollama's": {"error": "model runner has unexpectedly stopped"},
    "vLLM's of old": {"object": "error", "message": "boom", "code": 500},
    "llama.cpp's of old": raw('error: {"code":500,"message":"boom","type":"server_error"}\n\n'),
}


@pytest.mark.parametrize("failed", FAILED.values(), ids=FAILED.keys())
async def test_a_failure_in_any_dialect_is_one(misbehaving: Misbehaving, failed: object) -> None:
    misbehaving.script = [failed if isinstance(failed, Reply) else told(failed)]
    with pytest.raises(AgentError, match="broke off"):
        await heard(misbehaving)


@pytest.mark.parametrize(
    "text",
    [
        "Keep it <140 and <90, [1] and [2].",
        "Your medical assistant\nsays so. The user\nmanual, too.",
        "Write </b> or <p> if a < b > c.",
        "Take <thin",
    ],
)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_what_only_looks_like_a_mark_stays(text: str, size: int) -> None:
    answer = Answer()
    heard = [answer.hear(text[start : start + size]) for start in range(0, len(text), size)]
    assert "".join(heard) + answer.rest() == text and not answer.ended


@pytest.mark.parametrize(
    ("text", "left"),
    [("Rest.<|im_end|>x", "Rest."), ("Hm.</think>\nRest.", "Rest."), ("Rest. <5", "Rest. <5")],
)
@pytest.mark.parametrize("size", [1, 100])
def test_where_thoughts_are_not_announced(text: str, left: str, size: int) -> None:
    answer = Answer(begun_in_thought=True)
    heard = [answer.hear(text[start : start + size]) for start in range(0, len(text), size)]
    assert "".join(heard) + answer.rest() == left
