"""One turn, step by step: triage, route, retrieve, prompt, answer.

Owns their order, and that the words for an emergency depend on nothing but the message: neither on
an index nor an LLM, loaded, loading or broken. Does not know how the parts do their work, what is
remembered, nor who shows the events.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cached_property
from typing import get_args

from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.schema import NodeWithScore, QueryBundle

from agent.behaviour import behaviour
from agent.chat.answering import Answering
from agent.chat.claims import Borne
from agent.chat.events import (
    Advice,
    Delta,
    Emergency,
    Event,
    Finished,
    HeldBack,
    Retrieved,
    Routed,
    Timing,
    since,
)
from agent.chat.marks import without_marks
from agent.chat.own_words import of_itself, unwritten
from agent.chat.parts import Choices, Loading, Parts
from agent.chat.prompting import Prompt, as_read, check_length, is_embedded, prompt, readable
from agent.chat.spans import Trace
from agent.chat.support import Sources, Supported
from agent.llms.choice import languages
from agent.llms.interface import ChatLLM, as_dicts
from agent.routing.query import queries
from agent.routing.router import Reason, Route, route
from agent.safety.emergency import held_back, notice, soon
from agent.safety.injection import addresses_model
from agent.safety.triage import CALM, Verdict, judged, judged_earlier
from agent.safety.watch import in_crisis, is_held_back, without_crises
from agent.templates import Language
from agent.understanding.encoder import behind
from agent.understanding.labels import Kind
from agent.understanding.language import spoken
from index_store.node import dialogue_of


@dataclass
class Turn:
    """The answer to `message` after `history`; `said` grows by all that the patient is told;
    `trace` is told when a step begins and ends.

    `events` may be run once.
    """

    loading: Loading
    choices: Choices
    history: Sequence[ChatMessage]
    message: str
    said: list[str]
    trace: Trace
    _start: float = field(default_factory=time.perf_counter)
    _timing: Timing = field(default_factory=Timing)
    _judged: list[Verdict] = field(default_factory=list)  # of the patient's earlier messages

    async def events(self) -> AsyncGenerator[Event, None]:
        """What happens, in order. Raises AgentError or StoreError, which are for the patient."""
        verdict = await judged(self.message) if self.choices.watchful else CALM
        if verdict.emergency:
            yield self._warn(verdict)
            if not in_crisis(verdict, ()):
                await self._judge()
            if is_held_back(verdict, self._judged):
                yield HeldBack()
                yield (words := self._hold_back(verdict))
                yield self._finish(words.text)
                return
        elif verdict.degree == "soon":
            yield self._advise()
        window = self.choices.window
        check_length(
            self.choices.instructions + self.message, window - self.choices.sampling.max_tokens
        )
        self.history = readable(self.history, window)  # what is not judged nobody reads
        await self._judge()
        with self.trace.step("route"):
            decided, turns = await self._route(alone=verdict.emergency)
        parts = await self.loading()
        written = languages(parts.settings, parts.engine.model)
        if decided.reason is Reason.ABOUT:
            yield Routed(decided, None)
            yield (words := await self._of_itself(parts, written))
            yield self._finish(words.text)
            return
        if written is not None and self._spoken not in written:
            async for event in self._show_alone(parts, decided, turns, written):
                yield event
            return
        llm = parts.engine.llm(self.choices.llm)
        yield Routed(decided, behaviour(self.choices.llm, decided.retrieve))
        found = await self._retrieve(parts, turns) if decided.retrieve else []
        trusted = await asyncio.to_thread(_trusted, found)
        read = await asyncio.to_thread(self._read, llm, trusted)
        trusted = [node for node, text in zip(trusted, read, strict=True) if text]
        read = [text for text in read if text]
        asked = await self._prompt(llm, read)
        sources, read = trusted[: asked.used], read[: asked.used]
        mode = behaviour(self.choices.llm, bool(sources))
        if decided.retrieve:
            yield Retrieved(sources, [node for node in found if node not in sources], mode)
        answering = await self._answering(parts, llm, asked, read, sources)
        with self.trace.step("generate"):
            async with aclosing(answering.events()) as events:
                async for event in events:
                    yield event
        self._timing.prompt_tokens = await llm.count_tokens(asked.messages)
        yield answering.finished(mode)

    async def _judge(self) -> None:
        """The verdicts on the patient's earlier messages, of which none is judged again when the
        history has become shorter."""
        asked = self._asked()
        if self._judged:
            self._judged = self._judged[len(self._judged) - len(asked) :]
        elif self.choices.watchful:
            self._judged = await judged_earlier(asked, self.message)
        else:
            self._judged = [CALM for _ in asked]

    def _warn(self, urgent: Verdict) -> Emergency:
        assert urgent.kind is not None
        text = notice(urgent.kind, self._ours, self.choices.country)
        self.said.append(f"{text}\n\n")
        return Emergency(urgent.kind, text)

    def _advise(self) -> Advice:
        line = soon(self._ours, self.choices.country)
        self.said.append(f"{line}\n\n")
        return Advice(line)

    def _hold_back(self, urgent: Verdict) -> Delta:
        """Our own words in place of an LLM's, which may say below the notice that it is nothing."""
        assert urgent.kind is not None
        kind: Kind = "suicide" if in_crisis(urgent, self._judged) else urgent.kind
        return self._say(held_back(kind, self._ours))

    async def _of_itself(self, parts: Parts, written: frozenset[str] | None) -> Delta:
        """Our own words to a question about medraft."""
        told = await asyncio.to_thread(
            of_itself,
            self.message,
            parts.embedding.matrix,
            parts.settings,
            parts.engine,
            written,
            self._ours,
        )
        return self._say(told)

    async def _show_alone(
        self, parts: Parts, decided: Route, turns: list[str], written: frozenset[str]
    ) -> AsyncGenerator[Event, None]:
        """The replies that are found, and that the LLM does not write the patient's language."""
        yield Routed(decided, None)
        sources: list[NodeWithScore] = []
        if decided.retrieve:
            found = await self._retrieve(parts, turns)
            sources = await asyncio.to_thread(_trusted, found)
            yield Retrieved(sources, [node for node in found if node not in sources], None)
        told = await asyncio.to_thread(unwritten, self._spoken, written, len(sources))
        yield (words := self._say(told))
        yield self._finish(words.text, len(sources))

    def _say(self, words: str) -> Delta:
        self.said.append(words)
        self._timing.first_token_ms = since(self._start)
        return Delta(words)

    async def _route(self, alone: bool) -> tuple[Route, list[str]]:
        """Whether to retrieve, and the turns to search with; an emergency is searched by its own
        words `alone`, whatever was spoken of before."""
        never = self.choices.retrieval == "never"
        if never and not self.choices.watchful:
            return Route(False, None, Reason.NEVER), []
        said = [] if alone else as_dicts(without_crises(self.history, self._judged))
        messages = [*said, {"role": "user", "content": self.message}]
        decided, turns = await behind(route, messages)
        self._timing.route_ms = since(self._start)
        if decided.reason is Reason.ABOUT and self.choices.watchful and not alone:
            return decided, []
        if never:
            return Route(False, None, Reason.NEVER), []
        if self.choices.retrieval == "always":
            decided = Route(True, decided.score, Reason.ALWAYS)
        elif decided.reason is Reason.ABOUT:
            decided = Route(False, decided.score, Reason.OTHER)
        return decided, turns

    async def _retrieve(self, parts: Parts, turns: list[str]) -> list[NodeWithScore]:
        begun = time.perf_counter()
        with self.trace.step("retrieve"):
            for asked in queries(turns):
                (vector,) = await parts.embedding.turns([asked])
                bundle = QueryBundle(asked, embedding=vector.tolist())
                if found := await parts.retriever.aretrieve(bundle):
                    break
        self._timing.retrieve_ms = since(begun)
        return found

    def _read(self, llm: ChatLLM, trusted: Sequence[NodeWithScore]) -> list[str]:
        """What the LLM reads of each reply."""
        replies = [node.get_content() for node in trusted]
        letters = [dialogue_of(node).letter for node in trusted]
        return as_read(llm, replies, letters, [*self._asked(), self.message])

    async def _prompt(self, llm: ChatLLM, texts: Sequence[str]) -> Prompt:
        told = [_unmarked(m) for m in without_crises(self.history, self._judged)]
        chosen = self.choices
        return await prompt(
            llm,
            chosen.llm,
            told,
            self.message,
            texts,
            chosen.sampling.max_tokens,
            chosen.instructions,
            self._spoken,
        )

    async def _answering(
        self,
        parts: Parts,
        llm: ChatLLM,
        asked: Prompt,
        read: Sequence[str],
        sources: Sequence[NodeWithScore],
    ) -> Answering:
        texts = [node.get_content() for node in sources]
        patient = [*self._asked(), self.message]
        return Answering(
            llm,
            asked,
            self.choices.sampling,
            (*self.choices.stop, *asked.orders),
            parts.settings.claims,
            await asyncio.to_thread(Borne, read, patient, not is_embedded(llm)),
            Sources(texts, parts.embedding.matrix) if texts else None,
            self._ours,
            self.said,
            self._timing,
            self._start,
        )

    def _finish(self, words: str, cited: int = 0) -> Finished:
        """The end of our own words, which cite so many sources."""
        self._timing.total_ms = since(self._start)
        whole = [Supported(0, len(words), n, None, 1.0) for n in range(1, cited + 1)]
        return Finished(words, self._timing, support=whole, speaker="medraft")

    @cached_property
    def _spoken(self) -> str:
        """The patient's language: the message's, or that of the last one that tells, or the
        page's. Who measures an LLM has it asked in any."""
        if not self.choices.watchful:
            return "en"
        return spoken([self.message, *reversed(self._asked())], self.choices.language)

    @property
    def _ours(self) -> Language:
        """The language of our own words: the message's where it is surely not English, as short
        Spanish may be taken for it; else the page's."""
        ours: dict[str, Language] = {each: each for each in get_args(Language) if each != "en"}
        return ours.get(self._spoken, self.choices.language)

    def _asked(self) -> list[str]:
        """The patient's earlier messages."""
        return [m.content or "" for m in self.history if m.role == MessageRole.USER]


def _unmarked(message: ChatMessage) -> ChatMessage:
    if message.role != MessageRole.ASSISTANT:
        return message
    return ChatMessage(role=message.role, content=without_marks(message.content or ""))


def _trusted(found: Sequence[NodeWithScore]) -> list[NodeWithScore]:
    return [node for node in found if not addresses_model(node.get_content())]
