"""One turn on the screen: the notice, the step, the answer as it streams, its sources.

Owns what the patient sees of each event, and that it ends properly however the turn ends.
Does not know where the events come from.
"""

from __future__ import annotations

import re

import chainlit as cl
from chainlit.utils import utc_now

from agent.events import (
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
from agent.page import sources

EMERGENCY = "Emergency"
# Chainlit reads `:word` as a directive and shows nothing of it; "symptoms:fever" must stay.
_DIRECTIVE = re.compile(r":(?=[A-Za-z]|$)")


class TurnOnScreen:
    """Shows events one by one; `finish` must be called once, last."""

    def __init__(self, sample: bool) -> None:
        self._sample = sample
        self._answer = cl.Message("")
        self._meanwhile: cl.Message | None = None
        self._step: cl.Step | None = None
        self._facts: list[str] = []
        self._failure: str | None = None
        self._ended = False

    async def show(self, event: Event) -> None:
        """Put one event on the screen."""
        match event:
            case Emergency(_, notice):
                await cl.Message(notice, author=EMERGENCY).send()
            case Routed(route, behaviour):
                score = "" if route.score is None else f" (score {route.score:.2f})"
                self._facts = [f"Behaviour: {behaviour}", f"Reason: {route.reason}{score}"]
                await self._begin_step(behaviour, route.retrieve)
            case Retrieved(found):
                self._answer.actions = sources.buttons(found, self._sample)
                none = "none; no doctor's reply was close enough"
                self._facts.append(f"Sources: {len(found) or none}")
                await self._show_facts()
            case Waiting(before):
                await self._say_meanwhile(_place(before))
            case Notice(text):
                self._facts.append(f"Notice: {text}")
                await self._show_facts()
                await self._say_meanwhile(text)
            case Delta(text):
                await self._end_meanwhile()
                await self._answer.stream_token(_DIRECTIVE.sub(r"\:", text))
            case Finished(answer, timing):
                self._ended = True
                self._facts.append(f"Time: {_words(timing)}")
                if not answer:
                    self.fail("The model gave no answer: please ask in other words.")

    def fail(self, reason: str) -> None:
        """End the turn with a sentence to the patient."""
        self._failure = reason

    async def finish(self) -> None:
        """Close what is open; what has been said stays."""
        await self._end_meanwhile()
        if self._step is not None:
            if not self._ended:
                self._facts.append("Time: ended before the answer was complete")
            self._step.end = utc_now()
            await self._show_facts()
        if self._answer.content.strip():
            await self._answer.send()
        if self._failure is not None:
            await cl.ErrorMessage(self._failure).send()

    async def _say_meanwhile(self, text: str) -> None:
        """Say what holds until the answer begins, in place of what was said so before."""
        if self._meanwhile is None:
            self._meanwhile = await cl.Message(text).send()
        else:
            self._meanwhile.content = text
            await self._meanwhile.update()

    async def _end_meanwhile(self) -> None:
        if self._meanwhile is not None:
            said, self._meanwhile = self._meanwhile, None
            await said.remove()

    async def _begin_step(self, name: str, retrieve: bool) -> None:
        parent = cl.context.current_step
        self._step = cl.Step(
            name=name,
            type="retrieval" if retrieve else "tool",
            parent_id=parent and parent.id,
            show_input=False,
        )
        self._step.start = utc_now()
        self._step.output = _list(self._facts)
        await self._step.send()

    async def _show_facts(self) -> None:
        if self._step is not None:
            self._step.output = _list(self._facts)
            await self._step.update()


def _list(facts: list[str]) -> str:
    return "\n".join(f"- {fact}" for fact in facts)


def _place(before: int) -> str:
    return "1 answer is before yours." if before == 1 else f"{before} answers are before yours."


def _words(timing: Timing) -> str:
    parts = [f"routed in {timing.route_ms:.0f} ms"]
    if timing.retrieve_ms:
        parts.append(f"retrieved in {timing.retrieve_ms:.0f} ms")
    if timing.first_token_ms is not None:
        parts.append(f"first word after {timing.first_token_ms / 1000:.1f} s")
    parts.append(f"{timing.tokens} tokens in {timing.total_ms / 1000:.1f} s")
    return ", ".join(parts)
