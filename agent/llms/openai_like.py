"""Any server that speaks OpenAI's protocol: vLLM, llama.cpp's, or a proxy before several of them.

Owns what the server is asked, and how long it is waited for. Base and fine-tuned are two names on
one server. Knows nothing of retrieval or conversations, of the dialects in which servers answer
(`chunks.py`), nor of what models say beside their answer (`leaks.py`).

vLLM and llama.cpp name some sampling fields differently: both names are sent, and a server
ignores what it does not know. One that refuses unknown fields, as OpenAI's own service does
(HTTP 400), is not for this engine. vLLM's repetition penalty looks back on the whole prompt and
answer, not on PENALTY_WINDOW tokens. Run against llama.cpp's server so far; the others are tested
by their protocol only.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import httpx
import openai
import openai.resources  # the first answer would, for half a second, in the event loop
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    MessageRole,
)
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.llms.openai_like import OpenAILike

from agent.errors import AgentError
from agent.llms.cards import read as read_cards
from agent.llms.choice import Choice
from agent.llms.chunks import DONE, Chunk, Finish, StreamedError, lines, read
from agent.llms.interface import END_TOKENS, PENALTY_WINDOW, Engine, Loss, Sampling, as_dicts
from agent.llms.leaks import Answer
from agent.llms.remote import FAILURES, GARBLED, Server, address, is_too_long
from agent.settings import Settings

CONNECT = 5.0  # seconds until the server accepts a connection
REPLY = 10.0  # seconds for a small question: which models it has, how long a prompt is
FIRST_TOKEN = 120.0  # seconds until the first words: retries, the queue and reading included
BETWEEN_TOKENS = 30.0  # seconds of silence in the middle of an answer
# The openai package retries what fails before an answer begins (no connection, 408, 409, 429,
# 5xx) with exponential backoff and jitter, or when Retry-After says.
RETRIES = 2

CONTINUE = {"add_generation_prompt": False, "continue_final_message": True}
LETTERS = re.compile(r"[A-Za-z ]")


class OpenAILikeLLM(OpenAILike):
    """One LLM of the server, by its name there."""

    _server: Server = PrivateAttr()
    _llama_cpp: bool = PrivateAttr()
    # Found out at the first answer that has the end of a thought and no beginning: the model's
    # template begins it in the prompt, and its server tells nobody.
    _thinks_unannounced: bool = PrivateAttr(default=False)

    def __init__(self, server: Server, model: str, window: int, llama_cpp: bool) -> None:
        # No connection is kept: a pooled one would be bound to the event loop that opened it.
        http = httpx.AsyncClient(
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=server.trust_env,
        )
        super().__init__(
            model=model,
            api_base=str(server.url),
            api_key=server.key,
            is_chat_model=True,
            context_window=window,
            max_retries=RETRIES,
            async_http_client=http,
        )
        self._server = server
        self._llama_cpp = llama_cpp

    # The parent's method would wrap the stream in a second generator, which does not close
    # the first one when it is closed itself: Stop would wait for the garbage collector.
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **sampling: Any
    ) -> ChatResponseAsyncGen:
        return self._stream(messages, Sampling(**sampling))

    async def _stream(
        self, messages: Sequence[ChatMessage], sampling: Sampling
    ) -> ChatResponseAsyncGen:
        """The answer. A prompt that the server finds too long, which is counted by estimate where
        it does not count, is asked once more without the older half of the conversation."""
        begun = False
        try:
            try:
                async with aclosing(self._answer(messages, sampling)) as responses:
                    async for response in responses:
                        begun = True
                        yield response
            except (openai.APIStatusError, StreamedError) as error:
                fewer = _without_older_half(messages)
                if begun or fewer is None or not is_too_long(error):
                    raise
                async with aclosing(self._answer(fewer, sampling)) as responses:
                    async for response in responses:
                        begun = True
                        yield response
        except FAILURES as error:
            raise self._server.explain(error, begun) from None

    async def _answer(
        self, messages: Sequence[ChatMessage], sampling: Sampling
    ) -> ChatResponseAsyncGen:
        """One try. Raises FAILURES, and AgentError if nothing was said and asking again is of no
        use."""
        said, text, tokens = Answer(self._thinks_unannounced), "", 0
        finish: Finish | None = None
        thought = False
        async with aclosing(self._chunks(messages, sampling)) as chunks:
            async for chunk in chunks:
                finish, thought = chunk.finish, thought or chunk.thought
                if chunk.text or chunk.thought:
                    tokens = max(tokens + 1, chunk.tokens)
                if delta := said.hear(chunk.text):
                    text += delta
                    yield _response(text, delta, tokens=tokens)
                if finish or said.ended:
                    break
        if rest := said.rest():
            text += rest
            yield _response(text, rest, tokens=tokens)
        self._thinks_unannounced |= said.unannounced
        if finish not in ("cut", "filtered"):
            return
        if not text:
            raise self._server.nothing(finish, thought or said.thought, sampling.max_tokens)
        yield _response(text, "", tokens=tokens, cut=True)

    async def _chunks(
        self, messages: Sequence[ChatMessage], sampling: Sampling
    ) -> AsyncGenerator[Chunk, None]:
        """What the server says, to its end. Raises FAILURES."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + FIRST_TOKEN
        async with asyncio.timeout_at(deadline):
            stream = await self._get_aclient().chat.completions.create(
                **self._request(messages, sampling)
            )
        # The connection first: httpx leaves its generators behind, which could no longer close it
        # where a loop minds none, as under nest_asyncio, which Chainlit applies.
        async with aclosing(lines(stream.response)) as data, stream:
            while True:
                async with asyncio.timeout_at(deadline):
                    line = await anext(data, None)
                if line is None:
                    raise httpx.RemoteProtocolError("the answer has no end")
                if line.lower() == DONE:
                    return
                yield (chunk := read(line))
                if chunk.text or chunk.thought:
                    deadline = loop.time() + BETWEEN_TOKENS

    def _request(self, messages: Sequence[ChatMessage], sampling: Sampling) -> dict[str, Any]:
        return {
            "model": self.model,
            "messages": as_dicts(messages),
            "stream": True,
            # vLLM then tells in every chunk how many tokens there are; a chunk may hold several.
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": openai.NOT_GIVEN if sampling.seed is None else sampling.seed,
            # For a server that takes the end of a turn for a text.
            "stop": list(END_TOKENS),
            "extra_body": {
                "top_k": sampling.top_k,
                "min_p": sampling.min_p,
                "repetition_penalty": sampling.repetition_penalty,
                "repeat_penalty": sampling.repetition_penalty,
                "repeat_last_n": PENALTY_WINDOW,
                # llama.cpp hears that nobody listens only when it has something to say.
                "return_progress": True,
                **_begun(messages),
            },
            "timeout": httpx.Timeout(None, connect=CONNECT),
        }

    async def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        """As the server counts; an estimate, on the high side, if it does not say."""
        prompt = {"model": self.model, "messages": as_dicts(messages), **_begun(messages)}
        try:
            if not self._llama_cpp:
                return int((await self._ask("/tokenize", prompt))["count"])
            rendered = (await self._ask("/apply-template", prompt))["prompt"]
            content = {"content": rendered, "add_special": True}
            return len((await self._ask("/tokenize", content))["tokens"])
        except (openai.APIError, httpx.TransportError, *GARBLED):
            return estimate(messages)

    async def loss(self, messages: Sequence[ChatMessage], answer: str) -> Loss | None:
        return None  # servers that rate a prompt's tokens each do so in a way of their own

    async def _ask(self, path: str, body: dict[str, Any]) -> Any:
        client = self._get_aclient().with_options(max_retries=0, timeout=REPLY)
        url = f"{self._server.root}{path}"
        return (await client.post(url, body=body, cast_to=httpx.Response)).json()


def _response(text: str, delta: str, **raw: int) -> ChatResponse:
    message = ChatMessage(role=MessageRole.ASSISTANT, content=text)
    return ChatResponse(message=message, delta=delta, raw=raw)


def _without_older_half(messages: Sequence[ChatMessage]) -> list[ChatMessage] | None:
    """Without the older half of what was said before the patient's last message; None if nothing
    was."""
    head = int(messages[0].role == MessageRole.SYSTEM)
    last = max(n for n, m in enumerate(messages) if m.role == MessageRole.USER)
    exchanges = (last - head) // 2
    if exchanges == 0:
        return None
    return [*messages[:head], *messages[last - exchanges // 2 * 2 :]]


def _begun(messages: Sequence[ChatMessage]) -> dict[str, bool]:
    """What vLLM wants to be told, and llama.cpp understands, to go on from the last message."""
    return CONTINUE if messages[-1].role == MessageRole.ASSISTANT else {}


def estimate(messages: Sequence[ChatMessage]) -> int:
    """Tokens of a prompt whose tokenizer is not at hand: cautious, but no upper bound.

    Three plain letters or spaces are taken for a token, and so is each byte of anything else
    (figures, signs, other scripts). By the embedded model's tokenizer that is 1.2 to 1.8 times
    the truth for whole letters of patients and doctors, 1.4 to 2.3 times for other scripts, and
    0.85 of it for a bare table of laboratory values or a message all in capitals.
    """
    text = "".join(m.content or "" for m in messages)
    letters = len(LETTERS.findall(text))
    return letters // 3 + len(text.encode()) - letters + 16 * len(messages)


def load(settings: Settings, choice: Choice) -> Engine:
    """Ask the server what it has. Raises AgentError if it is away or has no such model."""
    # What it logs for debugging holds prompts.
    logging.getLogger("openai._base_client").setLevel(logging.INFO)
    url = address(settings.base_url)
    key = settings.api_key.get_secret_value() if settings.api_key else "none"
    server = Server(url, key)
    with openai.OpenAI(
        base_url=url,
        api_key=key,
        max_retries=RETRIES,
        timeout=httpx.Timeout(REPLY, connect=CONNECT),
        http_client=httpx.Client(trust_env=server.trust_env),
    ) as client:
        try:
            found = client.get("/models", cast_to=httpx.Response).json()["data"] or []
            cards = read_cards(found)
        except (openai.APIError, *GARBLED) as error:
            raise server.explain(error) from None
        slot = _llama_cpp_window(client, server)

    tuned = choice.fine_tuned.name if choice.fine_tuned else None
    base = choice.base.name
    if choice.base.auto:
        # What embeds or transcribes is listed among the others, often first.
        base = next((n for n, card in cards.items() if card.chats and n != tuned), "")
    if not base:
        raise AgentError(
            f"The LLM server at {server.place} serves no model to chat with (it has "
            f"{', '.join(cards) or 'none'}): load one there, or set MEDRAFT_MODEL."
        )
    for name, setting in ((base, "MEDRAFT_MODEL"), (tuned, "MEDRAFT_FINE_TUNED_MODEL")):
        if name is not None and name not in cards:
            raise AgentError(
                f"The LLM server at {server.place} has no model {name}: correct {setting} "
                f"(it has {', '.join(cards) or 'none'})."
            )
    # One window for both, for they share the conversation; vLLM does not tell a LoRA's.
    windows = [settings.context_window, slot, cards[base].window, cards[tuned or base].window]
    window = min(tokens for tokens in windows if tokens and tokens > 0)

    def llm(name: str) -> OpenAILikeLLM:
        return OpenAILikeLLM(server, name, window, llama_cpp=slot is not None)

    tuned_llm = None if tuned is None else llm(tuned)
    return Engine("openai_like", base, llm(base), tuned_llm, at_once=settings.slots)


def _llama_cpp_window(client: openai.OpenAI, server: Server) -> int | None:
    """Tokens that a slot of llama.cpp's server holds; None if it is another kind of server."""
    once = client.with_options(max_retries=0)
    try:
        props = once.get(f"{server.root}/props", cast_to=httpx.Response).json()
        return int(props["default_generation_settings"]["n_ctx"])
    except (openai.APIError, *GARBLED):
        return None
