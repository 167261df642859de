"""A conversation as LlamaIndex's chat engines offer it: `chat`, `stream_chat`, `achat`,
`astream_chat`.

Owns what these make of a turn's events. Does not know how a turn comes about.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole
from llama_index.core.chat_engine.types import (
    AgentChatResponse,
    BaseChatEngine,
    StreamingAgentChatResponse,
)
from llama_index.core.schema import NodeWithScore

from agent.chat.events import Advice, Delta, Emergency, Event, Finished, Retrieved, Routed


class ChatEngineViews(BaseChatEngine):
    """The four methods over `turn`. The synchronous ones must not be called where an event loop
    runs. All raise as `turn` does; what was already said is remembered."""

    @abstractmethod
    def turn(self, message: str) -> AsyncGenerator[Event, None]:
        """Answer `message`; closing the generator stops the engine."""

    @abstractmethod
    def recall(self, chat_history: list[ChatMessage]) -> None:
        """Have `chat_history` for all that was said."""

    async def astream_chat(
        self, message: str, chat_history: list[ChatMessage] | None = None
    ) -> StreamingAgentChatResponse:
        """Returns once the sources are known; `async_response_gen` then streams the answer."""
        if chat_history is not None:
            self.recall(chat_history)
        events = self.turn(message)
        sources: list[NodeWithScore] = []
        first: Event | None = None
        warned = ""
        async for event in events:
            if isinstance(event, Retrieved):
                sources = event.sources
            warned += _warning(event)
            if isinstance(event, Delta | Finished):
                first = event
                break

        async def deltas() -> AsyncGenerator[ChatResponse, None]:
            async with aclosing(events):
                if warned:
                    yield _response(Delta(warned))
                if isinstance(first, Delta):
                    yield _response(first)
                    async for event in events:
                        if isinstance(event, Delta):
                            yield _response(event)

        return StreamingAgentChatResponse(
            achat_stream=deltas(), source_nodes=sources, is_writing_to_memory=False
        )

    async def achat(
        self, message: str, chat_history: list[ChatMessage] | None = None
    ) -> AgentChatResponse:
        """The whole answer; `metadata` holds the turn's other events."""
        if chat_history is not None:
            self.recall(chat_history)
        told: dict[str, Any] = {}
        response = AgentChatResponse(metadata=told)
        warned = ""
        async with aclosing(self.turn(message)) as events:
            async for event in events:
                warned += _warning(event)
                match event:
                    case Emergency(kind):
                        told["emergency"] = kind
                    case Advice(line):
                        told["advice"] = line
                    case Routed(route, name):
                        told |= {"route": route, "behaviour": name}
                    case Retrieved(sources, _, name):
                        response.source_nodes = sources
                        told["behaviour"] = name
                    case Finished(answer, timing):
                        response.response = warned + answer
                        told["timing"] = timing
        return response

    def chat(
        self, message: str, chat_history: list[ChatMessage] | None = None
    ) -> AgentChatResponse:
        """`achat`, for code without an event loop."""
        return asyncio.run(self.achat(message, chat_history))

    def stream_chat(
        self, message: str, chat_history: list[ChatMessage] | None = None
    ) -> StreamingAgentChatResponse:
        """`astream_chat`, for code without an event loop; `response_gen` streams the answer."""
        runner = asyncio.Runner()
        response = runner.run(self.astream_chat(message, chat_history))

        def deltas() -> Generator[ChatResponse, None, None]:
            stream = response.achat_stream
            assert stream is not None
            with runner:
                try:
                    yield _response(Delta(""))  # begun: who never asks for more ends the turn, too
                    while (item := runner.run(_next(stream))) is not None:
                        yield item
                finally:
                    runner.run(stream.aclose())

        begun = deltas()
        next(begun)
        return StreamingAgentChatResponse(
            chat_stream=begun, source_nodes=response.source_nodes, is_writing_to_memory=False
        )


def _warning(event: Event) -> str:
    """What stands above the answer: an emergency's notice, or the line to see someone soon."""
    match event:
        case Emergency(notice=text) | Advice(text):
            return f"{text}\n\n"
    return ""


def _response(delta: Delta) -> ChatResponse:
    message = ChatMessage(role=MessageRole.ASSISTANT, content=delta.text)
    return ChatResponse(message=message, delta=delta.text)


async def _next(stream: AsyncGenerator[ChatResponse, None]) -> ChatResponse | None:
    return await anext(stream, None)
