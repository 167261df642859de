"""The embedded engine: llama.cpp's server inside this process, spoken to through OpenAILike.

Owns the server (xllamacpp, a free loopback port, a key drawn at random) and the two LLMs that
share its weights: the adapter is switched per request, so base and fine-tuned need no reload.
Knows nothing of retrieval or conversations.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
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
from agent.llms import PENALTY_WINDOW, Engine, Sampling, as_dicts, weights
from agent.settings import Settings

# A batch of the prompt cannot be interrupted: smaller ones hear Stop sooner, larger ones read
# faster (`python -m benchmarks.turn` shows both).
BATCH = 64
HOST_CACHE_MIB = 1024
PATIENCE = 600.0  # seconds between two tokens, a wait for a free slot included


@dataclass(frozen=True)
class _Serving:
    """A running server, its key, and the name of the model that it serves."""

    server: Any
    key: str
    model: str


class LlamaCppLLM(OpenAILike):
    """One LLM of the server: the weights with the adapter at `lora_scale` (0.0 is the base)."""

    lora_scale: float | None = None
    _http: httpx.AsyncClient = PrivateAttr()
    _serving: _Serving = PrivateAttr()

    def __init__(self, serving: _Serving, window: int, scale: float | None) -> None:
        # No connection is kept: a pooled one would be bound to the event loop that opened it,
        # and on loopback a new one costs a fraction of a millisecond.
        http = httpx.AsyncClient(
            base_url=serving.server.listening_address,
            headers={"Authorization": f"Bearer {serving.key}"},
            limits=httpx.Limits(max_keepalive_connections=0),
            timeout=PATIENCE,
            trust_env=False,
        )
        super().__init__(  # type: ignore[call-arg]  # pydantic reads more than it declares
            model=serving.model,
            api_base=f"{serving.server.listening_address}/v1",
            api_key=serving.key,
            is_chat_model=True,
            context_window=window,
            max_retries=0,
            timeout=PATIENCE,
            async_http_client=http,
            lora_scale=scale,
        )
        self._http = http
        self._serving = serving  # it lives as long as an LLM that needs it

    # The parent's method would wrap the stream in a second generator, which does not close
    # the first one when it is closed itself: Stop would wait for the garbage collector.
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **sampling: Any
    ) -> ChatResponseAsyncGen:
        wanted = Sampling(**sampling)
        extra: dict[str, Any] = {
            "top_k": wanted.top_k,
            "min_p": wanted.min_p,
            "repeat_penalty": wanted.repetition_penalty,
            "repeat_last_n": PENALTY_WINDOW,
            "cache_prompt": True,
            # The server looks whether anyone still listens only when it has something to say
            # (or once a second): let it say how far it has read.
            "return_progress": True,
        }
        if self.lora_scale is not None:
            extra["lora"] = [{"id": 0, "scale": self.lora_scale}]
        return self._stream(
            model=self.model,
            messages=as_dicts(messages),
            stream=True,
            max_tokens=wanted.max_tokens,
            temperature=wanted.temperature,
            top_p=wanted.top_p,
            extra_body=extra,
        )

    async def _stream(self, **request: Any) -> ChatResponseAsyncGen:
        text, tokens = "", 0
        try:
            async with await self._get_aclient().chat.completions.create(**request) as stream:
                async for chunk in stream:
                    delta = chunk.choices[0].delta.content if chunk.choices else None
                    if delta:
                        text, tokens = text + delta, tokens + 1
                        message = ChatMessage(role=MessageRole.ASSISTANT, content=text)
                        yield ChatResponse(message=message, delta=delta, raw={"tokens": tokens})
        except openai.APIConnectionError:
            raise AgentError(
                "The llama.cpp server inside this process does not answer: start medraft again."
            ) from None
        except (openai.APIError, httpx.TransportError) as error:
            raise AgentError(f"llama.cpp failed while answering: {error}.") from None

    async def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        body = {"messages": as_dicts(messages)}
        prompt = (await self._http.post("/apply-template", json=body)).json()["prompt"]
        tokens = (await self._http.post("/tokenize", json={"content": prompt})).json()["tokens"]
        return len(tokens)


def load(settings: Settings) -> Engine:
    """Start the server. Raises AgentError if a file is missing or is none that it can load."""
    path = _model_file(settings, settings.model, "MEDRAFT_MODEL")
    embedded = settings.model in ("auto", "embedded")
    adapter = weights.adapter(settings, weights.EMBEDDED if embedded else path.stem)
    if adapter is not None and adapter.suffix != ".gguf":
        from agent.finetuning.export import cached_gguf

        adapter = cached_gguf(adapter, path, settings.home / "adapters")

    def llm(serving: _Serving, scale: float | None) -> LlamaCppLLM:
        return LlamaCppLLM(serving, settings.context_window, scale)

    serving = _serve(path, adapter, settings)
    if settings.fine_tuned_model is not None:
        full = _model_file(settings, settings.fine_tuned_model, "MEDRAFT_FINE_TUNED_MODEL")
        other = _serve(full, None, settings)
        return Engine("llama_cpp", path.stem, base=llm(serving, None), fine_tuned=llm(other, None))
    if adapter is None:
        return Engine("llama_cpp", path.stem, base=llm(serving, None), fine_tuned=None)
    return Engine("llama_cpp", path.stem, base=llm(serving, 0.0), fine_tuned=llm(serving, 1.0))


def _model_file(settings: Settings, named: str, setting: str) -> Path:
    if named in ("auto", "embedded"):
        return weights.llama_cpp_file(settings.home / "models")
    path = Path(named)
    if path.suffix != ".gguf":
        raise AgentError(
            f"The llama_cpp engine reads .gguf files, and {setting} is {named}: "
            "give one, or set MEDRAFT_ENGINE=huggingface."
        )
    return path


def _serve(model: Path, adapter: Path | None, settings: Settings) -> _Serving:
    import xllamacpp

    key = secrets.token_urlsafe(32)
    threads = settings.threads or os.cpu_count() or 1
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    if adapter is not None:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [key]
    params.ui = False
    params.n_ctx = settings.context_window * settings.slots
    params.n_parallel = settings.slots
    params.n_batch = params.n_ubatch = BATCH
    params.cache_ram_mib = HOST_CACHE_MIB
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.verbosity = 0  # its log holds prompts
    try:
        return _Serving(xllamacpp.Server(params), key, model.stem)
    except RuntimeError:
        named = f"{model} with the adapter {adapter}" if adapter else str(model)
        raise AgentError(
            f"llama.cpp cannot load {named}: a file is damaged, or not a model of its kind."
        ) from None
