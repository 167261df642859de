"""The embedded engine: llama.cpp's server inside this process, spoken to through OpenAILike.

Owns the two LLMs that share the server's weights: the adapter is switched per request, so base
and fine-tuned need no reload. Knows nothing of retrieval or conversations, nor how the server is
started.
"""

from __future__ import annotations

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
from agent.llms.choice import Choice
from agent.llms.interface import PENALTY_WINDOW, Engine, Loss, Sampling, as_dicts
from agent.llms.llama_cpp import gguf_file, lora
from agent.llms.llama_cpp.server import Running, Server
from agent.settings import Settings
from index_store.errors import reason


class _Lost(Exception):
    """The connection to the server broke in mid-answer or before."""


class LlamaCppLLM(OpenAILike):
    """One LLM of the server: the weights with the adapter at `lora_scale` (0.0 is the base)."""

    lora_scale: float | None = None
    _server: Server = PrivateAttr()

    def __init__(self, server: Server, scale: float | None) -> None:
        client = server.running.client
        super().__init__(
            model=server.name,
            api_base=str(client.base_url),
            api_key=client.api_key,
            is_chat_model=True,
            context_window=server.window,
            lora_scale=scale,
        )
        self._server = server  # it lives as long as an LLM that needs it

    # The parent would keep the first, and the server may be another one by now.
    def _get_aclient(self) -> openai.AsyncOpenAI:
        return self._server.running.client

    # The parent's method would wrap the stream in a second generator, which does not close
    # the first one when it is closed itself: Stop would wait for the garbage collector.
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **sampling: Any
    ) -> ChatResponseAsyncGen:
        return self._stream(messages, Sampling(**sampling))

    async def _stream(
        self, messages: Sequence[ChatMessage], sampling: Sampling
    ) -> ChatResponseAsyncGen:
        text, tokens = "", 0
        for again in (True, False):
            running = self._server.running
            try:
                async with aclosing(self._deltas(running, messages, sampling)) as deltas:
                    async for delta in deltas:
                        piece, about = (delta, {}) if isinstance(delta, str) else ("", delta)
                        text, tokens = text + piece, tokens + (piece != "")
                        message = ChatMessage(role=MessageRole.ASSISTANT, content=text)
                        raw = {"tokens": tokens, **about}
                        yield ChatResponse(message=message, delta=piece, raw=raw)
                return
            except _Lost:
                if text:
                    raise AgentError(
                        "The llama.cpp server inside this process died in the middle of this "
                        "answer; please ask again, and it will be started anew."
                    ) from None
                if not again:
                    raise AgentError(
                        "The llama.cpp server inside this process was started anew and died "
                        "again: start medraft again."
                    ) from None
            await self._server.mend(running)

    async def _deltas(
        self, running: Running, messages: Sequence[ChatMessage], sampling: Sampling
    ) -> AsyncGenerator[str | dict[str, Any], None]:
        """The answer's tokens, as text, and what belongs into a response's `raw`: how many are
        before it in the line, and that it was cut. Raises _Lost or AgentError."""
        finish = None
        try:
            with running.slots.take(self.lora_scale, messages) as line:
                async for before in line:
                    yield {"waiting": before}
                assert line.slot is not None
                request = self._request(messages, sampling, line.slot.id)
                async with await running.client.chat.completions.create(**request) as stream:
                    async for chunk in stream:
                        for piece in chunk.choices:
                            finish = finish or piece.finish_reason
                            if piece.delta.content:
                                yield piece.delta.content
        except (openai.APITimeoutError, httpx.TimeoutException):
            raise AgentError(
                "The llama.cpp server inside this process has fallen silent: start medraft again."
            ) from None
        except (openai.APIConnectionError, httpx.TransportError):
            raise _Lost from None
        except openai.APIError as error:
            raise AgentError(
                f"llama.cpp failed while answering ({reason(error)}): ask again, and if it fails "
                "again start medraft again."
            ) from None
        if finish is None:
            raise _Lost
        if finish == "length":
            yield {"cut": True}

    def _request(
        self, messages: Sequence[ChatMessage], sampling: Sampling, slot: int
    ) -> dict[str, Any]:
        extra: dict[str, Any] = {
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "repeat_penalty": sampling.repetition_penalty,
            "repeat_last_n": PENALTY_WINDOW,
            "cache_prompt": True,
            "id_slot": slot,
            # The server looks whether anyone still listens only when it has something to say
            # (or once a second): let it say how far it has read.
            "return_progress": True,
        }
        if sampling.seed is not None:
            extra["seed"] = sampling.seed
        if self.lora_scale is not None:
            extra["lora"] = [{"id": 0, "scale": self.lora_scale}]
        return {
            "model": self.model,
            "messages": as_dicts(messages),
            "stream": True,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "extra_body": extra,
        }

    async def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        rendered = await self._server.post("/apply-template", {"messages": as_dicts(messages)})
        counted = await self._server.post("/tokenize", {"content": rendered["prompt"]})
        return len(counted["tokens"])

    async def loss(self, messages: Sequence[ChatMessage], answer: str) -> Loss | None:
        return None  # the server rates the tokens that it says, not those that it reads


def load(settings: Settings, choice: Choice) -> Engine:
    """Start the server. Raises AgentError if a file is missing or is none that it can load."""
    models = settings.home / "models"
    path = gguf_file.of(choice.base, models)
    adapter = choice.adapter
    if adapter is not None and adapter.suffix != ".gguf":
        adapter = lora.cached_gguf(adapter, path, settings.home / "adapters")

    server = Server(path, adapter, settings)
    tuned = LlamaCppLLM(server, 1.0) if adapter is not None else None
    if choice.fine_tuned is not None:
        full = gguf_file.of(choice.fine_tuned, models)
        tuned = LlamaCppLLM(Server(full, None, settings), None)
    base = LlamaCppLLM(server, 0.0 if adapter is not None else None)
    return Engine("llama_cpp", server.name, base=base, fine_tuned=tuned, at_once=server.slots)
