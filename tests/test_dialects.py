"""What servers stream that is not quite OpenAI's protocol, each by its name."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

import httpx
import openai
import pytest
from llama_index.core.base.llms.types import ChatMessage, MessageRole

from agent.errors import AgentError
from agent.llms import leaks
from agent.llms.interface import END_TOKENS
from agent.llms.leaks import Answer
from agent.llms.remote import is_too_long

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
WHOLE = json.dumps({"choices": [{"message": {"content": SAID}}], "usage": {"completion_tokens": 2}})
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
    "content as a part": told(
        delta({"content": {"type": "text", "text": "Rest "}}),
        delta({"content": {"type": "text", "text": {"value": "it."}}}),
    ),
    "parts of no type": told(
        delta({"content": [{"type": None, "text": "Rest "}, {"text": None}, None]}),
        delta({"content": [{"content": "it."}]}),
    ),
    "delta as text": told(word("Rest "), delta("it."), delta([]), delta(5)),
    "text in place of delta": told(
        {"choices": [{"text": "Rest "}]}, {"choices": [{"text": "it."}]}
    ),
    "choices as an object": told(
        {"choices": {"delta": {"content": "Rest "}}}, {"choices": "x"}, word("it.", "stop")
    ),
    "chunks of no text": told([], word("Rest "), '"ping"', "1", "true", word("it."), [[1]]),
    "two answers at once": told(
        {"choices": [{"index": 1, "delta": {"content": "No"}, "finish_reason": "stop"}]},
        {
            "choices": [
                {"index": 1, "delta": {"content": "No"}},
                {"index": 0, "delta": {"content": "Rest "}},
            ]
        },
        word("it.", "stop"),
    ),
    "finish reason null as text": told(word("Rest ", "null"), word("it.", "None")),
    "a refusal alone": told(delta({"content": None, "refusal": "Rest it."}), delta({}, "stop")),
    "an end in small letters": raw(f"data: {REST}\n\ndata: {IT}\n\ndata: [done]\n\n"),
    "a byte order mark": raw(f"\ufeffdata: {REST}\n\ndata: {IT}\n\ndata: [DONE]\n\n"),
    "no stream": page(WHOLE, Content_Type="application/json"),
    "no stream, over lines": raw(json.dumps(json.loads(WHOLE), indent=1)),
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
}
# What models say beside SAID, whatever the pieces it comes in.
LEAKS = {
    "a thought": "<think>I should say rest.</think>\n\nRest it.",
    "a thought in capitals": "<THINK>Hm.</THINK>Rest it.",
    "a thought with an attribute": "<thought kind='x'>Hm.</thought>Rest it.",
    "a thought that quotes": "<think>He said.\nUser: it hurts\n<|user|></think>Rest it.",
    "a late thought": "Rest <think>Hm.</think>it.",
    "a scratchpad": "<scratchpad>Hm.</scratchpad><answer>Rest it.</answer>",
    "Mistral's thought": "[THINK]Hm.[/THINK]Rest it.",
    "Open Thoughts'": "<|begin_of_thought|>Hm.<|end_of_thought|><|begin_of_solution|>Rest it.",
    "Granite's thought": "Here is my thought process: Hm.\n\nHere is my response: Rest it.",
    "gpt-oss's channels": "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
    "<|channel|>final<|message|>Rest it.<|return|>",
    "gpt-oss's call": "<|channel|>commentary to=functions.x <|constrain|>json<|message|>{}<|call|>"
    "<|start|>assistant<|channel|>final<|message|>Rest it.",
    "gpt-oss's channels, their marks gone": "analysisWe need rest.assistantfinalRest it.",
    "Llama 2's order": "<<SYS>>Be kind.<</SYS>>Rest it.",
    "Llama 2's echo": "<s>[INST] <<SYS>>Be kind.<</SYS>> My knee? [/INST] Rest it.</s>",
    "Llama 2's end": "Rest it.</s>",
    "Llama 3's header": "<|start_header_id|>assistant<|end_header_id|>\n\nRest it.",
    "Llama 3's header, its marks gone": "assistant\n\nRest it.",
    "Llama 3's end": "Rest it.<|eot_id|>assistant\n\nAnd then",
    "Llama 3's next turn": "Rest it.assistant\n\nAnd then",
    "Llama 4's turn": "<|header_start|>assistant<|header_end|>\n\nRest it.<|eot|>",
    "ChatML's end": "Rest it.<|im_end|>\n<|im_start|>user\nAnd",
    "ChatML's next turn": "Rest it.<|im_start|>user\nAnd",
    "ChatML's echo": "<|im_start|>user\nMy knee<|im_end|>\n<|im_start|>assistant\nRest it.",
    "ChatML's header without a role": "<|im_start|>\nRest it.",
    "ChatML's end, cut": "Rest it.<|im_en",
    "blank before the header": "\n<|im_start|>assistant\nRest it.",
    "a token before the header": "<|startoftext|><|bom|><|im_start|>assistant\nRest it.",
    "Phi's turn": "<|im_start|>assistant<|im_sep|>Rest it.<|im_end|>",
    "Zephyr's turn": "<|assistant|>\nRest it.\n<|user|>",
    "Gemma's turn": "<start_of_turn>model\nRest it.<end_of_turn>",
    "Gemma 4's turn": "<|turn>model\n<|channel>thought\nHm.<channel|>Rest it.<turn|>",
    "Granite's turn": "<|start_of_role|>assistant<|end_of_role|>Rest it.<|start_of_role|>user",
    "Cohere's turn": "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_THINKING|>Hm.<|END_THINKING|>"
    "<|START_RESPONSE|>Rest it.<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
    "Apertus's turn": "<|assistant_start|><|inner_prefix|>Hm.<|inner_suffix|>Rest it."
    "<|assistant_end|>",
    "DeepSeek's end": "Rest it.<\uff5cend▁of▁sentence\uff5c>",
    "tokens for nothing": "<unk>Rest <|fim_pad|>it.<pad><pad>",
    "Alpaca's echo": "### Instruction:\nMy knee?\n\n### Response:\nRest it.",
    "Alpaca's next turn": "Rest it.\n\n### Human: And then?",
    "Vicuna's next turn": "ASSISTANT: Rest it.\nUSER: And then?",
    "the patient's next words": "Doctor: Rest it.\n\nPatient: And then?",
}
DIALECTS |= {name: told(*map(word, text), word("", "stop")) for name, text in LEAKS.items()}


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


@pytest.mark.parametrize(
    "finish",
    [
        *("length", "content_filter", "max_tokens", "abort", "LENGTH", "MAX_TOKENS", "SAFETY"),
        *("content-filter", "model_length", "cancelled", "ERROR_LIMIT"),
    ],
)
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


def long(told: str) -> dict[str, object]:
    return {"error": {"message": told, "code": 400}}


LONG = long("the request exceeds the available context size")
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
    "refusal",
    [
        told(LONG),
        page(json.dumps(LONG), 400),
        told(long("rpc error: code = Unknown desc = the prompt exceeds n_ctx")),
        told(long("The input token count (5000) exceeds the maximum number of tokens allowed")),
        told(long("slot context overflow")),
        told(long("Prompt length 5000 is greater than max_seq_len 4096")),
        told(long("Requested input length 5000 exceeds maximum input length 4095")),
    ],
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


def test_too_long_is_too_long_whatever_the_status() -> None:
    asked = httpx.Request("POST", "http://127.0.0.1/v1")
    for status in (400, 413, 500):
        refused = httpx.Response(status, request=asked, json=LONG)
        assert is_too_long(openai.APIStatusError("", response=refused, body=None))


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
        "Types of insulin:\nHuman: regular.\nAnimal: pork.",
        "The dental\nassistant\nwill help.",
        "Who pays?\nThe patient: no. For each:\n\nPatient: 5 mg.",
        "\n\nRest it. <",
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


def test_a_long_thought_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[int] = []
    mark = leaks._MARK

    class Counting:
        def search(self, text: str, pos: int, partial: bool) -> Any:
            searched.append(len(text) - pos)
            return mark.search(text, pos=pos, partial=partial)

    monkeypatch.setattr(leaks, "_MARK", Counting())
    answer = Answer(begun_in_thought=True)
    heard = [answer.hear(word) for word in [*("Why so ? ",) * 500, "</think>", "Rest."]]
    assert "".join(heard) + answer.rest() == "Rest."
    assert sum(searched) < 20_000  # of 4,500 characters
