"""An LLM that says what the test tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    LLMMetadata,
    MessageRole,
)

from agent.llms.embedded import EMBEDDED
from agent.llms.interface import Loss


class ScriptedLLM:
    """Says the words it was given, one a token; an exception among them is raised there."""

    def __init__(self, window: int = 4096, name: str = EMBEDDED) -> None:
        self.script: list[str | Exception] = ["Rest ", "in ", "the ", "dark."]
        self.prompts: list[list[ChatMessage]] = []
        self.closed = False
        self.hold = asyncio.Event()
        self.hold.set()
        self._window, self._name = window, name

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(context_window=self._window, model_name=self._name)

    async def astream_chat(
        self, messages: Sequence[ChatMessage], **sampling: Any
    ) -> ChatResponseAsyncGen:
        self.prompts.append(list(messages))
        return self._stream()

    async def _stream(self) -> ChatResponseAsyncGen:
        text = ""
        try:
            for tokens, word in enumerate(self.script, start=1):
                await self.hold.wait()
                if isinstance(word, Exception):
                    raise word
                text += word
                message = ChatMessage(role=MessageRole.ASSISTANT, content=text)
                yield ChatResponse(message=message, delta=word, raw={"tokens": tokens})
        finally:
            self.closed = True

    async def loss(self, messages: Sequence[ChatMessage], answer: str) -> Loss | None:
        return None

    async def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        return sum(len((m.content or "").split()) for m in messages)
