"""Any server that speaks OpenAI's protocol: vLLM, llama.cpp's, or a proxy before several of them.

Owns what the server is asked, how long it is waited for, and what people are told if it fails.
Base and fine-tuned are two names on one server. Knows nothing of retrieval or conversations.

vLLM and llama.cpp name some sampling fields differently: both names are sent, and a server
ignores what it does not know. One that refuses unknown fields, as OpenAI's own service does
(HTTP 400), is not for this engine. vLLM's repetition penalty looks back on the whole prompt and
answer, not on PENALTY_WINDOW tokens. Run against llama.cpp's server so far; what vLLM does
otherwise is tested by its protocol only.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import openai
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    MessageRole,
)
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.llms.openai_like import OpenAILike

from agent.errors import AgentError
from agent.llms.choice import Choice
from agent.llms.interface import PENALTY_WINDOW, Engine, Loss, Sampling, as_dicts
from agent.settings import Settings

CONNECT = 5.0  # seconds until the server accepts a connection
REPLY = 10.0  # seconds for a small question: which models it has, how long a prompt is
FIRST_TOKEN = 120.0  # seconds until the first words: retries, the queue and reading included
BETWEEN_TOKENS = 30.0  # seconds of silence in the middle of an answer
# The openai package retries what fails before an answer begins (no connection, 408, 409, 429,
# 5xx) with exponential backoff and jitter, or when Retry-After says.
RETRIES = 2

CONTINUE = {"add_generation_prompt": False, "continue_final_message": True}
TOO_LONG = re.compile(r"context.?(length|size|window)|maximum model length", re.IGNORECASE)
LETTERS = re.compile(r"[A-Za-z ]")
# What it means to read an answer that is no JSON, or JSON of another make: the openai package
# checks nothing.
GARBLED = (ValueError, LookupError, TypeError, AttributeError)


@dataclass(frozen=True)
class _Server:
    """Where the server is, and its key ("none" if it wants none)."""

    url: httpx.URL
    key: str

    @property
    def place(self) -> str:
        """Host and port, without a password that the URL may hold."""
        return self.url.netloc.decode()

    @property
    def root(self) -> str:
        """What lies beside /v1."""
        return str(self.url).removesuffix("/v1")

    @property
    def trust_env(self) -> bool:
        """Whether the environment's proxy may stand between: never on this machine."""
        return self.url.host not in ("localhost", "127.0.0.1", "::1")

    def explain(self, error: Exception, begun: bool = False) -> AgentError:
        """`error` in one sentence; not in the server's words, which may quote the patient's."""
        match error:
            case openai.APIStatusError():
                told = f"{_refusal(error)} (HTTP {error.status_code})"
            case openai.APIConnectionError():
                told = "does not answer: check that it runs and that MEDRAFT_BASE_URL is right"
            case TimeoutError():
                told = "takes too long: it is busy or stuck, please try again in some minutes"
            case _ if isinstance(error, GARBLED):
                told = "does not speak OpenAI's protocol: check that MEDRAFT_BASE_URL is right"
            case _:
                told = "broke off: its own log says why, please ask again"
        kept = "; what it said so far is kept" if begun else ""
        return AgentError(f"The LLM server at {self.place} {told}{kept}.")


def _refusal(error: openai.APIStatusError) -> str:
    match error.status_code:
        case 401 | 403:
            return "refuses the key: correct MEDRAFT_API_KEY"
        case 404:
            return "has no such model or address: correct MEDRAFT_MODEL or MEDRAFT_BASE_URL"
        case 429 | 503:
            return "has no place free or is still loading: please try again in a minute"
        case status if status < 500 and TOO_LONG.search(error.response.text):
            return "cannot read so long a conversation: send a shorter message or begin a new chat"
        case status if status < 500:
            return "refuses the request: its own log says why"
        case _:
            return "failed: its own log says why, please try again"


class OpenAILikeLLM(OpenAILike):
    """One LLM of the server, by its name there."""

    _server: _Server = PrivateAttr()
    _llama_cpp: bool = PrivateAttr()

    def __init__(self, server: _Server, model: str, window: int, llama_cpp: bool) -> None:
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
        wanted = Sampling(**sampling)
        return self._stream(
            model=self.model,
            messages=as_dicts(messages),
            stream=True,
            # vLLM then tells in every chunk how many tokens there are; a chunk may hold several.
            stream_options={"include_usage": True, "continuous_usage_stats": True},
            max_tokens=wanted.max_tokens,
            temperature=wanted.temperature,
            top_p=wanted.top_p,
            extra_body={
                "top_k": wanted.top_k,
                "min_p": wanted.min_p,
                "repetition_penalty": wanted.repetition_penalty,
                "repeat_penalty": wanted.repetition_penalty,
                "repeat_last_n": PENALTY_WINDOW,
                # llama.cpp hears that nobody listens only when it has something to say.
                "return_progress": True,
                **_begun(messages),
            },
            timeout=httpx.Timeout(None, connect=CONNECT),
        )

    async def _stream(self, **request: Any) -> ChatResponseAsyncGen:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + FIRST_TOKEN
        text, tokens = "", 0
        try:
            async with asyncio.timeout_at(deadline):
                stream = await self._get_aclient().chat.completions.create(**request)
            async with stream:
                while True:
                    async with asyncio.timeout_at(deadline):
                        chunk = await anext(stream, None)
                    if chunk is None:
                        raise httpx.RemoteProtocolError("the answer has no end")
                    if not chunk.choices:
                        continue
                    if delta := chunk.choices[0].delta.content:
                        text += delta
                        tokens = chunk.usage.completion_tokens if chunk.usage else tokens + 1
                        message = ChatMessage(role=MessageRole.ASSISTANT, content=text)
                        yield ChatResponse(message=message, delta=delta, raw={"tokens": tokens})
                        deadline = loop.time() + BETWEEN_TOKENS
                    if chunk.choices[0].finish_reason:
                        return
        except (openai.APIError, httpx.TransportError, TimeoutError, *GARBLED) as error:
            raise self._server.explain(error, begun=bool(text)) from None

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
    url = _address(settings.base_url)
    key = settings.api_key.get_secret_value() if settings.api_key else "none"
    server = _Server(url, key)
    with openai.OpenAI(
        base_url=url,
        api_key=key,
        max_retries=RETRIES,
        timeout=httpx.Timeout(REPLY, connect=CONNECT),
        http_client=httpx.Client(trust_env=server.trust_env),
    ) as client:
        try:
            found = client.get("/models", cast_to=httpx.Response).json()["data"]
            cards = {card["id"]: card.get("max_model_len") for card in found}
        except (openai.APIError, *GARBLED) as error:
            raise server.explain(error) from None
        slot = _llama_cpp_window(client, server)

    tuned = choice.fine_tuned.name if choice.fine_tuned else None
    base = choice.base.name
    if choice.base.auto:
        base = next((name for name in cards if name != tuned), base)
    for name, setting in ((base, "MEDRAFT_MODEL"), (tuned, "MEDRAFT_FINE_TUNED_MODEL")):
        if name is not None and name not in cards:
            raise AgentError(
                f"The LLM server at {server.place} has no model {name}: correct {setting} "
                f"(it has {', '.join(cards) or 'none'})."
            )
    # One window for both, for they share the conversation; vLLM does not tell a LoRA's.
    windows = [settings.context_window, slot, cards[base], cards.get(tuned)]
    window = min(tokens for tokens in windows if tokens)

    def llm(name: str) -> OpenAILikeLLM:
        return OpenAILikeLLM(server, name, window, llama_cpp=slot is not None)

    return Engine(
        "openai_like",
        base,
        base=llm(base),
        fine_tuned=None if tuned is None else llm(tuned),
        at_once=settings.slots,
    )


def _address(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text.rstrip("/"))
        if url.scheme in ("http", "https") and url.host:
            return url
    except httpx.InvalidURL:
        pass
    raise AgentError(f"{text} is no http address: correct MEDRAFT_BASE_URL.")


def _llama_cpp_window(client: openai.OpenAI, server: _Server) -> int | None:
    """Tokens that a slot of llama.cpp's server holds; None if it is another kind of server."""
    once = client.with_options(max_retries=0)
    try:
        props = once.get(f"{server.root}/props", cast_to=httpx.Response).json()
        return int(props["default_generation_settings"]["n_ctx"])
    except (openai.APIError, *GARBLED):
        return None
