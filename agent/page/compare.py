"""The same question through all four behaviours, side by side, and one of them taken over.

Owns what asks for a comparison (a button, a command), its course on the screen, and what
"Continue with this one" does. Does not know how the columns look, nor how an answer comes about.

A message with the command is no part of the conversation until an answer to it is taken over:
memory holds no message that has a `command`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import TYPE_CHECKING, get_args

import chainlit as cl
from chainlit.types import CommandDict

from agent.behaviour import Behaviour
from agent.chat.comparison import Failed, compare, conversations
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
    Waiting,
)
from agent.errors import AgentError
from agent.page import chainlit_hooks, columns, notice, sources
from agent.page.columns import Column, Comparison
from agent.page.conversation import Conversation, to_the_end
from agent.page.language import error_sentence, say
from agent.page.turn import TurnOnScreen, retry_button, show_answer
from agent.templates import Language
from index_store.errors import StoreError

if TYPE_CHECKING:
    from llama_index.core.base.llms.types import ChatMessage

    from agent.chat.engine import PatientChatEngine

log = logging.getLogger("medraft")

PAUSE = 0.15  # seconds from one drawing of a text that grows to the next


def command() -> CommandDict:
    """The composer's command."""
    return {
        "id": say("compare.all_four"),
        "description": say("compare.tooltip"),
        "icon": "columns-2",
        "button": True,
        "persistent": False,
        "selected": False,
    }


def commanded(message: cl.Message) -> bool:
    """Whether a message came with that command, in whatever language."""
    return message.command in [say("compare.all_four", to) for to in get_args(Language)]


async def by_command(conversation: Conversation, message: cl.Message, turn: TurnOnScreen) -> None:
    """The answer to a message with the command."""
    if not message.content.strip():
        turn.fail(say("compare.no_question"))
        return
    screen = ComparisonOnScreen(Comparison(message.id, message.content), turn.sample, turn=turn)
    engine = await conversation.engine()
    await _side_by_side(engine, engine.chat_history, screen)


async def by_click(conversation: Conversation, button: cl.Action) -> None:
    """A click on "Compare all four", below an answer."""
    if conversation.ended:
        chainlit_hooks.run_behind(_below(conversation, button))


async def take_over(conversation: Conversation, button: cl.Action) -> None:
    """A click on "Continue with this one": screen and memory go on from that answer."""
    shown = _message(button.payload.get("message"))
    comparison = Comparison.of(shown.metadata) if shown else None
    column = comparison.column(button.payload.get("behaviour")) if comparison else None
    turn = conversation.known(comparison.message_id) if comparison else None
    if shown is None or comparison is None or column is None or turn is None:
        await chainlit_hooks.toast(say("compare.gone"), "warning")
        return
    if not conversation.idle:
        await chainlit_hooks.toast(say("compare.busy"), "warning")
        return
    said = f"{comparison.notice}\n\n{column.answer.strip()}".strip()
    await conversation.remember(turn, said)
    await turn.take_back(shown.parent_id)
    actions = [columns.button(comparison.message_id)]
    await actions[0].remove()  # from the answer that is gone
    if turn.retry is not None:  # that of the last turn is below what was said last
        await turn.retry.remove()
        turn.retry = retry_button(comparison.message_id)
        actions.append(turn.retry)
    await show_answer(column.about(), shown.parent_id, actions)
    comparison.taken = column.behaviour
    await _keep(shown, comparison)


class ComparisonOnScreen:
    """Shows the events of a comparison; `finish` must be called once, last."""

    def __init__(
        self,
        comparison: Comparison,
        sample: bool,
        run_id: str | None = None,
        turn: TurnOnScreen | None = None,
    ) -> None:
        # No answer of the conversation, which somebody might judge.
        self.message = cl.Message(
            "", author=say("compare.title"), type="system_message", parent_id=run_id
        )
        self.comparison = comparison
        self._sample = sample
        self._turn = turn
        self._retrieved: Retrieved | None = None
        self._begun = False
        self._drawn = 0.0

    async def show(self, name: Behaviour, event: Event | Failed) -> None:
        """Put one event of one behaviour into its column."""
        column = self.comparison.column(name)
        assert column is not None
        column.state = "running"
        match event:
            case Emergency(notice=text):
                await self._show_once(text, notice.show)
            case Advice(text):
                await self._show_once(text, notice.advise)
            case Delta(text):
                column.note = ""
                column.answer += text
                if time.monotonic() - self._drawn < PAUSE:
                    return
            case Failed(error):
                column.state = "failed"
                column.failure = _sentence(error)
            case _:
                self._fill(column, event)
        await self._draw()

    async def finish(self) -> None:
        """What has not ended was stopped; what was said stays, and is kept."""
        self.comparison.end()
        if self._begun:
            await _keep(self.message, self.comparison)

    async def _show_once(self, text: str, show: Callable[[str], Awaitable[None]]) -> None:
        # Below an answer, its message's notice stands already.
        if not self.comparison.notice and self._turn is not None:
            await show(text)
        self.comparison.notice = text

    def _fill(self, column: Column, event: Event) -> None:
        match event:
            case HeldBack():
                column.answered_by = "medraft"
            case Routed(route, behaviour):
                column.route = asdict(route)
                column.answered_by = behaviour or "medraft"
            case Waiting(before):
                column.note = say("turn.waiting", count=before)
            case Notice():
                column.note = say("turn.another_model")
            case Retrieved():
                self._retrieved = event
                column.answered_by = event.behaviour or "medraft"
                column.sources = sources.payloads(event, self._sample)
            case Finished(answer, timing, _, support):
                column.state = "finished"
                column.answer = answer
                column.timing = asdict(timing)
                if self._retrieved is not None and column.sources is not None:
                    column.sources = sources.payloads(self._retrieved, self._sample, support)
                    column.unsourced = sources.unsourced(answer, support)

    async def _draw(self) -> None:
        if not self._begun:
            self._begun = True
            self.message.metadata = self.comparison.metadata()
            await self.message.send()
            if self._turn is not None:
                await self._turn.said_elsewhere(self.message)
        self._drawn = time.monotonic()
        await _draw(self.message, self.comparison)


async def _below(conversation: Conversation, button: cl.Action) -> None:
    """Compare below an answer, as a task that Stop ends."""
    turn = conversation.known(button.payload.get("message"))
    answer = _message(button.forId)
    if turn is None or turn.before is None or answer is None:
        await chainlit_hooks.toast(say("compare.gone"), "warning")
        return
    async with chainlit_hooks.busy():
        try:
            async with conversation.alone():
                if not conversation.loaded:
                    await chainlit_hooks.toast(say("conversation.loading"))
                engine = await conversation.engine()
                comparison = Comparison(turn.question.id, turn.question.content)
                screen = ComparisonOnScreen(comparison, conversation.sample, answer.parent_id)
                before = engine.chat_history[: turn.before]
                await _side_by_side(engine, before, screen)
        except Exception as error:
            await chainlit_hooks.toast(_sentence(error), "error")


async def _side_by_side(
    engine: PatientChatEngine, history: Sequence[ChatMessage], screen: ComparisonOnScreen
) -> None:
    """Ask all four after `history`; `engine` is not told. Stop keeps what was said."""
    each = conversations(lambda: engine.another(history))
    try:
        async with aclosing(compare(screen.comparison.question, each)) as events:
            async for name, event in events:
                await screen.show(name, event)
    finally:
        await to_the_end(screen.finish())


async def _keep(message: cl.Message, comparison: Comparison) -> None:
    message.metadata = comparison.metadata()
    await message.update()
    await _draw(message, comparison)


async def _draw(message: cl.Message, comparison: Comparison) -> None:
    await chainlit_hooks.draw(columns.element(message.id, message.thread_id, comparison))


def _sentence(error: Exception) -> str:
    if isinstance(error, AgentError | StoreError):
        return error_sentence(error)
    # The type alone: the text of an error may hold what the patient said.
    log.error("%s in a comparison", type(error).__name__)
    return say("compare.sorry")


def _message(message_id: object) -> cl.Message | None:
    return next((message for message in cl.chat_context.get() if message.id == message_id), None)
