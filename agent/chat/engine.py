"""The chat engine, one per conversation: triage, route, retrieve, prompt, stream, remember.

Owns the order of a turn and the memory, which holds what the patient saw, no more and no less:
a stopped answer as far as it came. Does not know how engines, index or router do their part,
nor who shows the events.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole
from llama_index.core.chat_engine.types import (
    AgentChatResponse,
    BaseChatEngine,
    StreamingAgentChatResponse,
)
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.schema import NodeWithScore, QueryBundle

from agent.behaviour import LLMChoice, Retrieval, behaviour
from agent.chat.events import (
    Delta,
    Emergency,
    Event,
    Finished,
    Notice,
    Retrieved,
    Routed,
    Timing,
    Waiting,
)
from agent.chat.prompting import Prompt, prompt
from agent.chat.support import Supported, support
from agent.llms.interface import Engine
from agent.routing.embedding import TurnEmbedding
from agent.routing.router import Reason, Route, Router, asks
from agent.safety.emergency import held_back, notice
from agent.safety.injection import addresses_model
from agent.safety.triage import Kind, is_plain, triage
from agent.settings import Settings
from agent.templates import Language
from index_store.retriever import DoctorReplyRetriever

# An answer that has used up so much of its tokens ends with the sentence or the list item, and so
# does one that says a sentence again: a small model that finds no end is not let run on, nor is it
# cut off in a word.
ENOUGH = 0.75
SENTENCE_END = re.compile(r"[^\W\d_]{2,}[.!?][\"')\]]*\s*$|;\s*\n\s*$")


class PatientChatEngine(BaseChatEngine):
    """A conversation. `llm`, `retrieval`, and `language` and `country` of the emergency notice may
    be set between turns; the next one heeds them. Where `watchful` is off, emergencies are not
    looked for, and the LLM answers them as anything else: for who measures it.

    An LLM may say below the notice that it is nothing, and a small one does. So the first plain
    message of a kind of emergency gets words of our own; a patient who insists is answered, but for
    talk of suicide.

    `turn` is the whole of it; the methods of LlamaIndex's BaseChatEngine are views of it. The
    synchronous ones must not be called where an event loop runs. All raise AgentError, whose
    text is for the patient; what was already said is remembered.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        embedding: TurnEmbedding,
        router: Router,
        retriever: DoctorReplyRetriever,
        history: Sequence[ChatMessage] = (),
    ) -> None:
        self.llm: LLMChoice = settings.llm or "base"
        self.retrieval: Retrieval = settings.retrieval
        self.language: Language = "en"
        self.country = settings.country
        self.watchful = True
        self._settings = settings
        self._engine = engine
        self._embedding = embedding
        self._router = router
        self._retriever = retriever
        # Cutting to the window is the prompt's task, by the model's own tokenizer; this keeps all.
        self._memory = ChatMemoryBuffer.from_defaults(
            chat_history=list(history), token_limit=settings.context_window, tokenizer_fn=str.split
        )
        self._one_turn_at_a_time = asyncio.Lock()

    async def turn(self, message: str) -> AsyncGenerator[Event, None]:
        """Answer `message`; closing the generator stops the engine and keeps what was said."""
        # Halves of a UTF-16 pair, which browsers send in JSON, are no text to any tokenizer.
        message = message.encode("utf-8", "replace").decode()
        async with self._one_turn_at_a_time, self._remembered(message) as said:
            start = time.perf_counter()
            timing = Timing()
            history = self.chat_history
            choice, retrieval = self.llm, self.retrieval  # they may change while this runs
            if kind := triage(message) if self.watchful else None:
                emergency = Emergency(kind, notice(kind, self.language, self.country))
                said.append(f"{emergency.notice}\n\n")
                yield emergency
            llm = self._engine.llm(choice)
            # An emergency is looked up by its own words, whatever was spoken of before.
            asked = [] if kind else [m for m in history if m.role == MessageRole.USER]
            route, query = await self._route(message, retrieval, asked)
            timing.route_ms = _since(start)
            yield Routed(route, behaviour(choice, route.retrieve))

            found: list[NodeWithScore] = []
            if route.retrieve and query is not None:
                begun = time.perf_counter()
                found = await self._retriever.aretrieve(query)
                timing.retrieve_ms = _since(begun)
            trusted = await asyncio.to_thread(_trusted, found)
            texts = [node.get_content() for node in trusted]
            asked_for = await prompt(
                llm, choice, _without_crisis(history), message, texts, self._settings.max_tokens
            )
            if route.retrieve:
                sources = trusted[: asked_for.used]
                yield Retrieved(sources, [node for node in found if node not in sources])
            if kind and _held_back(kind, message, history):
                timing.first_token_ms = _since(start)
                said.append(words := held_back(kind, self.language))
                yield Delta(words)
                timing.total_ms = _since(start)
                yield Finished(words, timing)
                return

            answer = ""
            ended = True
            enough = ENOUGH * self._settings.max_tokens
            stream = await llm.astream_chat(
                asked_for.messages,
                max_tokens=self._settings.max_tokens,
                temperature=self._settings.temperature,
                top_p=self._settings.top_p,
            )
            async with aclosing(stream):
                async for response in stream:
                    raw = response.raw or {}
                    if "waiting" in raw:
                        yield Waiting(raw["waiting"])
                        continue
                    if "notice" in raw:
                        yield Notice(raw["notice"])
                        continue
                    timing.tokens = raw["tokens"]
                    timing.first_token_ms = timing.first_token_ms or _since(start)
                    delta = (response.delta or "") if answer else _first(asked_for, response)
                    answer += delta
                    said.append(delta)
                    yield Delta(delta)
                    if SENTENCE_END.search(answer) and (
                        timing.tokens >= enough or _repeats_itself(answer)
                    ):
                        ended = False
                        break
            timing.total_ms = _since(start)
            ended = ended and timing.tokens < self._settings.max_tokens
            answer = answer.strip()
            supported: list[Supported] = []
            if texts := texts[: asked_for.used]:
                supported = await asyncio.to_thread(support, answer, texts, self._embedding.matrix)
            yield Finished(answer, timing, ended, supported)

    async def _route(
        self, message: str, retrieval: Retrieval, asked: Sequence[ChatMessage]
    ) -> tuple[Route, QueryBundle | None]:
        if retrieval == "never":
            return Route(False, None, Reason.NEVER), None
        turns = [*(earlier.content or "" for earlier in asked), message]
        vectors = await self._embedding.turns(turns)
        history = self.chat_history
        answers = bool(history) and asks(history[-1].content or "")
        route, query = self._router.route(turns, vectors, answers)
        if retrieval == "always":
            route = Route(True, route.score, Reason.ALWAYS)
        return route, QueryBundle(query.text, embedding=query.vector.tolist())

    @asynccontextmanager
    async def _remembered(self, message: str) -> AsyncIterator[list[str]]:
        """However the turn ends, memory gets the question with what was said to it. A question
        without a word said to it is forgotten: many chat templates refuse two in a row."""
        said: list[str] = []
        try:
            yield said
        finally:
            if text := "".join(said).strip():
                self._memory.put(ChatMessage(role=MessageRole.USER, content=message))
                self._memory.put(ChatMessage(role=MessageRole.ASSISTANT, content=text))

    def take_over(self, before: int, question: str, answer: str, new: bool) -> None:
        """Remember question and answer after the first `before` messages of `chat_history`: as an
        exchange more (`new`), or in place of the one that stands there; call it between turns."""
        history = self.chat_history
        exchange = [
            ChatMessage(role=MessageRole.USER, content=question),
            ChatMessage(role=MessageRole.ASSISTANT, content=answer),
        ]
        later = history[before if new else before + len(exchange) :]
        self._memory.set([*history[:before], *exchange, *later])

    def reset(self) -> None:
        """Forget the conversation."""
        self._memory.reset()

    def rewind(self, messages: int) -> None:
        """Forget all but the first so many messages of `chat_history`; call it between turns."""
        self._memory.set(self.chat_history[:messages])

    @property
    def chat_history(self) -> list[ChatMessage]:
        """What was said, oldest first."""
        return self._memory.get_all()

    async def astream_chat(
        self, message: str, chat_history: list[ChatMessage] | None = None
    ) -> StreamingAgentChatResponse:
        """Returns once the sources are known; `async_response_gen` then streams the answer."""
        self._recall(chat_history)
        events = self.turn(message)
        sources: list[NodeWithScore] = []
        first: Event | None = None
        async for event in events:
            if isinstance(event, Retrieved):
                sources = event.sources
            if isinstance(event, Delta | Finished):
                first = event
                break

        async def deltas() -> AsyncGenerator[ChatResponse, None]:
            async with aclosing(events):
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
        self._recall(chat_history)
        told: dict[str, Any] = {}
        response = AgentChatResponse(metadata=told)
        async with aclosing(self.turn(message)) as events:
            async for event in events:
                match event:
                    case Emergency(kind, _):
                        told["emergency"] = kind
                    case Routed(route, name):
                        told |= {"route": route, "behaviour": name}
                    case Retrieved(sources):
                        response.source_nodes = sources
                    case Finished(answer, timing):
                        response.response = answer
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
                    while (item := runner.run(_next(stream))) is not None:
                        yield item
                finally:
                    runner.run(stream.aclose())

        return StreamingAgentChatResponse(
            chat_stream=deltas(), source_nodes=response.source_nodes, is_writing_to_memory=False
        )

    def _recall(self, chat_history: list[ChatMessage] | None) -> None:
        if chat_history is not None:
            self._memory.set(chat_history)


def _trusted(found: list[NodeWithScore]) -> list[NodeWithScore]:
    return [node for node in found if not addresses_model(node.get_content())]


def _held_back(kind: Kind, message: str, history: Sequence[ChatMessage]) -> bool:
    """Whether no LLM answers: always if it is about suicide; else if a rule finds the emergency,
    and this conversation had no notice of its kind before."""
    if kind == "suicide":
        return True
    asked = (m.content or "" for m in history if m.role == MessageRole.USER)
    return is_plain(message) and all(triage(earlier) != kind for earlier in asked)


def _without_crisis(history: Sequence[ChatMessage]) -> list[ChatMessage]:
    """What the LLM is told of the conversation. Thanked after talk of suicide, a small one goes on
    about it in ways that nobody should read; the notice that was given stays on the screen."""
    told, crisis = [], False
    for message in history:
        if message.role == MessageRole.USER:
            crisis = triage(message.content or "") == "suicide"
        if not crisis:
            told.append(message)
    return told


def _repeats_itself(answer: str) -> bool:
    *before, last = re.split(r"(?<=[.!?:;])\s+", answer.strip().lower())
    return last in before


def _first(prompt: Prompt, response: ChatResponse) -> str:
    """The first piece of an answer, with the words that the LLM was given to go on from."""
    return prompt.opening + (response.delta or "").lstrip()


def _response(delta: Delta) -> ChatResponse:
    message = ChatMessage(role=MessageRole.ASSISTANT, content=delta.text)
    return ChatResponse(message=message, delta=delta.text)


async def _next(stream: AsyncGenerator[ChatResponse, None]) -> ChatResponse | None:
    return await anext(stream, None)


def _since(start: float) -> float:
    return round((time.perf_counter() - start) * 1000, 1)
