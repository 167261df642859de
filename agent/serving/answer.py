"""A turn's events as the text of an answer, with the list of its sources below it.

Owns what of an event a client reads, in which order. Does not know how the events come about, nor
the protocol that carries the text.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Literal

from agent.chat.engine import PatientChatEngine
from agent.chat.events import Advice, Delta, Emergency, Event, Finished, Retrieved, Waiting
from agent.chat.marks import CITATION
from agent.chat.record import part, unanswered
from agent.serving.citing import Cited, annotation, listing
from agent.serving.errors import refusal


class Answer:
    """The answer to a message, told once by `pieces`.

    `content` is what was told so far; `record` is the object of `medraft ask --json`;
    `annotations` are OpenAI's, of the marks in `content`; `finish` is its reason to end.
    """

    def __init__(self, engine: PatientChatEngine, link: Callable[[str], str], message: str) -> None:
        self.content = ""
        self.record: dict[str, Any] = unanswered(engine, message)
        self.annotations: list[dict[str, object]] = []
        self.finish: Literal["stop", "length"] = "stop"
        self._engine, self._link, self._message = engine, link, message
        self._sources: list[Cited] = []
        self._space = ""

    async def pieces(self) -> AsyncGenerator[str | Waiting, None]:
        """The content piece by piece, and how many are before it in the engine's line.

        Closing the generator stops the engine. Raises as the turn does, unless a notice or the line
        to see someone soon was given: then the failure is told below what must arrive.
        """
        try:
            async with aclosing(self._engine.turn(self._message)) as events:
                async for event in events:
                    self.record |= part(event)
                    if isinstance(event, Waiting):
                        yield event
                    if text := self._text(event):
                        self.content += text
                        yield text
        except Exception as error:
            if not (self.record["emergency"] or self.record["advice"]):
                raise
            between = "" if self.content.endswith("\n") else "\n\n"
            failed = f"{between}{refusal(error)}"
            self.content += failed
            yield failed

    def _text(self, event: Event) -> str:
        match event:
            case Emergency(notice=text) | Advice(text):
                return f"{text}\n\n"
            case Retrieved(sources):
                self._sources = [
                    Cited(node.node.metadata["title"], self._link(node.node.node_id))
                    for node in sources
                ]
            case Delta(text):
                # Space waits for the next word: the list of sources may come.
                whole = self._space + text
                told = whole.rstrip()
                self._space = whole[len(told) :]
                return told
            case Finished():
                return self._end(event)
        return ""

    def _end(self, finished: Finished) -> str:
        """The list of sources below an answer; its marks become annotations."""
        self.finish = "stop" if finished.ended else "length"
        if not self._sources or not finished.answer:
            return ""
        start = max(self.content.rfind(finished.answer), 0)
        used = set()
        for found in CITATION.finditer(finished.answer):
            number = int(found[1])
            if number <= len(self._sources):
                used.add(number)
                place = (start + found.start() + 1, start + found.end())
                self.annotations.append(annotation(self._sources[number - 1], *place))
        return listing(self._sources, used, self._engine.language)
