"""One turn on the screen: the notice, the step, the answer as it streams, its sources.

Owns what the patient sees of each event, that it ends properly however the turn ends, and what is
kept of an answer besides its text. Does not know where the events come from.

What the page itself says in between is a `system_message`, never an `assistant_message`: it is no
answer, so that nobody judges it, and no memory holds it. What holds for a moment only is sent to
the screen alone, and stored nowhere.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

import chainlit as cl
from chainlit.utils import utc_now

from agent.behaviour import Behaviour
from agent.chat.events import (
    Advice,
    Delta,
    Emergency,
    Event,
    Finished,
    HeldBack,
    Notice,
    Retrieved,
    Routed,
    Timing,
    Waiting,
)
from agent.page import chainlit_hooks, sources
from agent.page.language import number, say
from agent.page.notice import advise
from agent.page.notice import show as show_notice

RETRY = "retry"  # the name by which Chainlit knows what a click calls
# Chainlit reads `:word` as a directive and shows nothing of it; "symptoms:fever" must stay.
_DIRECTIVE = re.compile(r":(?=[A-Za-z]|$)")


def retry_button(message_id: str) -> cl.Action:
    """Try again, below what was said last to a message."""
    return cl.Action(
        id=f"retry-{message_id}",
        name=RETRY,
        label=say("turn.retry"),
        tooltip=say("turn.retry_about"),
        icon="rotate-ccw",
        payload={"message": message_id},
    )


class TurnOnScreen:
    """Shows events one by one; `finish` must be called once, last.

    `about` is kept as the answer's metadata: behaviour (None where no LLM spoke), llm, retrieval,
    route, sources, timing, `unsourced` (where sentences without a source end), and `answer`, the
    text without what the screen adds. `avatarName` makes
    Chainlit show the behaviour on the answer (public/avatars, public/medraft.css).
    """

    def __init__(self, sample: bool) -> None:
        self.about: dict[str, Any] = {}
        self.step_id: str | None = None
        self.sample = sample
        self._answer = cl.Message("", metadata=self.about)
        self._said = ""
        self._retrieved: Retrieved | None = None
        self._meanwhile: cl.Message | None = None
        self._step: cl.Step | None = None
        self._facts: list[str] = []
        self._ended = False
        self._last_words: cl.Message | None = None
        self._elsewhere: cl.Message | None = None

    async def show(self, event: Event) -> None:
        """Put one event on the screen."""
        match event:
            case Emergency(_, notice):
                await show_notice(notice)
            case HeldBack():
                await self._say_that_no_model_speaks()
            case Advice(text):
                await advise(text)
            case Routed():
                await self._say_why(event)
            case Retrieved():
                await self._say_what_was_found(event)
            case Waiting(before):
                await self.say_meanwhile(say("turn.waiting", count=before))
            case Notice():
                self._facts.append(say("turn.another_model"))
                await self._show_facts()
                await self.say_meanwhile(say("turn.another_model"))
            case Delta(text):
                # First of all the text: memory holds it already, and Stop may come at any moment.
                self._said += text
                await self._answer.stream_token(_DIRECTIVE.sub(r"\:", text))
                await self._end_meanwhile()
            case Finished():
                self._take_whole(event)

    def fail(self, reason: str) -> None:
        """End the turn with a sentence to the patient."""
        self._last_words = cl.Message(reason, type="system_message")
        self._last_words.is_error = True

    async def said_elsewhere(self, message: cl.Message) -> None:
        """This turn is shown by another message, which tells its end, too."""
        self._elsewhere = message
        await self._end_meanwhile()

    def stop(self) -> None:
        """The patient has stopped the turn."""
        if not self._ended and self._elsewhere is None:
            said = "turn.stopped" if self._said.strip() else "turn.stopped_before"
            self._last_words = cl.Message(say(said), type="system_message")

    async def finish(self, retry: list[cl.Action], compare: cl.Action) -> None:
        """Close what is open; what has been said stays, with `compare` below the answer and `retry`
        below the last that was said."""
        await self._end_meanwhile()
        if self._step is not None:
            if not self._ended:
                self._facts.append(say("turn.cut_short"))
            self._step.end = utc_now()
            await self._show_facts()
        if self._said.strip():
            self.about["answer"] = self._said.strip()
            self._answer.actions.append(compare)
            if self._last_words is None:
                self._answer.actions += retry
            await self._answer.send()
        if self._last_words is not None:
            self._last_words.actions = retry
            await self._last_words.send()
        elif self._elsewhere is not None:
            self._elsewhere.actions = retry
            for button in retry:
                await button.send(self._elsewhere.id)

    async def say_meanwhile(self, text: str) -> None:
        """Say what holds until the answer begins, in place of what was said so before."""
        if self._meanwhile is None:
            self._meanwhile = cl.Message(text, type="system_message", created_at=utc_now())
            await chainlit_hooks.show_unstored(self._meanwhile)
        else:
            self._meanwhile.content = text
            await chainlit_hooks.change_unstored(self._meanwhile)

    async def _say_why(self, routed: Routed) -> None:
        route, behaviour = routed.route, routed.behaviour
        name = behaviour or "medraft"
        self.about |= {"behaviour": behaviour, "avatarName": name, "route": asdict(route)}
        why = say(f"turn.{route.reason.name.lower()}")
        if route.score is not None:
            why = say("turn.scored", why=why, score=number(route.score, 2))
        who = say("turn.behaviour", behaviour=behaviour) if behaviour else say("turn.own_words")
        self._facts = [who, say("turn.why", why=why)]
        await self._begin_step(name, route.retrieve)

    async def _say_what_was_found(self, event: Retrieved) -> None:
        self._retrieved = event
        self._show_sources(sources.payloads(event, self.sample))
        count = len(event.sources)
        told = event.sources or event.left_out
        self._facts.append(say("turn.sources", count=count) if told else say("turn.no_source"))
        if not event.sources and event.behaviour is not None:
            self._be(event.behaviour)
            alone = say("turn.nothing_fitted", behaviour=event.behaviour)
            await cl.Message(alone, type="system_message").send()
        await self._show_facts()

    def _be(self, behaviour: Behaviour) -> None:
        """The badge and the step are this behaviour's."""
        self.about |= {"behaviour": behaviour, "avatarName": behaviour}
        self._facts[0] = say("turn.behaviour", behaviour=behaviour)
        if self._step is not None:
            self._step.name = behaviour

    def _take_whole(self, finished: Finished) -> None:
        self._ended = True
        if self._retrieved is not None:
            told = sources.payloads(self._retrieved, self.sample, finished.support)
            self._show_sources(told)
            self.about["unsourced"] = sources.unsourced(finished.answer, finished.support)
            self._answer.content = _shown(finished.answer, self.about, self._answer.id)
        self.about["timing"] = asdict(finished.timing)
        self._facts.append(say("turn.time", parts=_parts(finished.timing)))
        if finished.speaker is None:
            self.fail(say("turn.nothing_said"))

    def _show_sources(self, payloads: list[sources.Payload]) -> None:
        self._answer.actions = sources.buttons(payloads, self._answer.id)
        self.about["sources"] = payloads

    async def _end_meanwhile(self) -> None:
        if self._meanwhile is not None:
            said, self._meanwhile = self._meanwhile, None
            await chainlit_hooks.take_unstored_away(said)

    async def _begin_step(self, name: str, retrieve: bool) -> None:
        self._step = cl.Step(
            name=name,
            type="retrieval" if retrieve else "tool",
            parent_id=chainlit_hooks.step_id(),
            icon="book-open" if retrieve else "message-circle",
            show_input=False,
        )
        self.step_id = self._step.id
        self._step.start = utc_now()
        self._step.output = _list(self._facts)
        await self._step.send()

    async def _say_that_no_model_speaks(self) -> None:
        self.about |= {"behaviour": None, "avatarName": "medraft"}
        self._facts = [say("turn.held_back")]
        await self._begin_step("medraft", retrieve=False)

    async def _show_facts(self) -> None:
        if self._step is not None:
            self._step.output = _list(self._facts)
            await self._step.update()


async def show_answer(about: dict[str, Any], run_id: str | None, actions: list[cl.Action]) -> None:
    """Show an answer that came about elsewhere as that of the run `run_id`, with its sources and
    `actions` below it; `about` as in `TurnOnScreen`."""
    message = cl.Message("", parent_id=run_id)
    message.metadata = about | {"avatarName": about["behaviour"] or "medraft"}
    message.content = _shown(about["answer"], about, message.id)
    message.actions = [*sources.buttons(about.get("sources") or [], message.id), *actions]
    await message.send()


def _shown(answer: str, about: dict[str, Any], owner: str) -> str:
    """An answer that has ended, as Markdown."""
    marked = sources.marked(answer, about.get("unsourced") or [])
    return _DIRECTIVE.sub(r"\:", sources.linked(marked, about.get("sources") or [], owner))


def _list(facts: list[str]) -> str:
    return "\n".join(f"- {fact}" for fact in facts)


def _parts(timing: Timing) -> str:
    parts = [say("turn.routed", ms=number(timing.route_ms, 0))]
    if timing.retrieve_ms:
        parts.append(say("turn.retrieved", ms=number(timing.retrieve_ms, 0)))
    if timing.first_token_ms is not None:
        parts.append(say("turn.first_word", s=number(timing.first_token_ms / 1000, 1)))
    whole = number(timing.total_ms / 1000, 1)
    return ", ".join([*parts, say("turn.whole", tokens=timing.tokens, s=whole)])
