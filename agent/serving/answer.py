"""A turn's events as the text of an answer, with marks where a source supports a sentence.

Owns what of an event a client reads, in which order, and that a sentence's mark comes with its end.
Does not know how the events come about, nor the protocol that carries the text.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Literal

from llama_index.core.schema import NodeWithScore

from agent.chat.engine import PatientChatEngine
from agent.chat.events import Advice, Delta, Emergency, Event, Finished, Retrieved, Waiting
from agent.chat.record import part, unanswered
from agent.chat.support import Supported, sentences, support
from agent.chat.turn import Loading
from agent.serving.citing import Cited, annotation, listing, mark
from agent.serving.errors import refusal


class Answer:
    """The answer to a message, told once by `pieces`.

    `content` is what was told so far; `record` is the object of `medraft ask --json`;
    `annotations` are OpenAI's, of the marks in `content`; `finish` is its reason to end.
    """

    def __init__(
        self, engine: PatientChatEngine, loading: Loading, link: Callable[[str], str], message: str
    ) -> None:
        self.content = ""
        self.record: dict[str, Any] = unanswered(engine, message)
        self.annotations: list[dict[str, object]] = []
        self.finish: Literal["stop", "length"] = "stop"
        self._engine, self._loading, self._link, self._message = engine, loading, link, message
        self._answer = ""  # the LLM's own words, and how many of them were told
        self._told = 0
        self._judged = 0  # up to here it is known which source supports what
        self._nodes: Sequence[NodeWithScore] = ()
        self._sources: list[Cited] = []
        self._used: set[int] = set()

    async def pieces(self) -> AsyncGenerator[str | Waiting, None]:
        """The content piece by piece, and how many are before it in the engine's line.

        Closing the generator stops the engine. Raises as the turn does, unless there was an
        emergency: then the failure is told below the notice, which must arrive.
        """
        try:
            async with aclosing(self._engine.turn(self._message)) as events:
                async for event in events:
                    self.record |= part(event)
                    if isinstance(event, Waiting):
                        yield event
                    async for text in self._texts(event):
                        self.content += text
                        yield text
        except Exception as error:
            if not self.record["emergency"]:
                raise
            failed = str(refusal(error))
            self.content += failed
            yield failed

    async def _texts(self, event: Event) -> AsyncGenerator[str, None]:
        match event:
            case Emergency(notice=text) | Advice(text):
                yield f"{text}\n\n"
            case Retrieved(sources):
                self._nodes = sources
                self._sources = [
                    Cited(node.node.metadata["title"], self._link(node.node.node_id))
                    for node in sources
                ]
            case Delta(text):
                async for piece in self._go_on(text):
                    yield piece
            case Finished():
                for piece in self._end(event):
                    yield piece

    async def _go_on(self, text: str) -> AsyncGenerator[str, None]:
        self._answer += text
        for piece in self._marked(await self._supported()):
            yield piece
        # A mark comes before the space that ends its sentence.
        if piece := self._until(len(self._answer.rstrip())):
            yield piece

    async def _supported(self) -> list[Supported]:
        """Of the sentences that have ended since the last time."""
        if not self._nodes:
            return []
        ended = [end for _, end in sentences(self._answer)][:-1]
        if not ended or ended[-1] <= self._judged:
            return []
        self._judged, before = ended[-1], self._judged
        texts = [node.get_content() for node in self._nodes]
        embed = (await self._loading()).embedding.matrix
        whole = self._answer[: self._judged]
        found = await asyncio.to_thread(support, whole, texts, embed)
        return [sentence for sentence in found if sentence.end > before]

    def _marked(self, found: Sequence[Supported]) -> list[str]:
        pieces: list[str] = []
        for sentence in found:
            pieces.append(self._until(sentence.end))
            if sentence.source is not None:
                pieces.append(mark(sentence.source))
                self._used.add(sentence.source)
                start = len(self.content) + sum(map(len, pieces[:-1])) + 1
                end = start + len(pieces[-1]) - 1
                cited = self._sources[sentence.source - 1]
                self.annotations.append(annotation(cited, start, end))
        return [piece for piece in pieces if piece]

    def _until(self, end: int) -> str:
        """The LLM's words from those that were told to `end`."""
        text = self._answer[self._told : end]
        self._told = max(self._told, end)
        return text

    def _end(self, finished: Finished) -> list[str]:
        self.finish = "stop" if finished.ended else "length"
        rest = [sentence for sentence in finished.support if sentence.end > self._judged]
        pieces = [*self._marked(rest), self._until(len(finished.answer))]
        if self._sources and finished.answer:
            pieces.append(listing(self._sources, self._used, self._engine.language))
        return [piece for piece in pieces if piece]
