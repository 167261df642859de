"""A conversation on the page: its engine, its memory, and which of its turns are running.

Owns that turns come one after the other, that Stop ends all of them, and that memory holds what
the screen shows, also after an edit, another try and a resume. Does not know what stands on the
screen below a message, what a turn looks like, nor how an answer comes about.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import chainlit as cl
from chainlit.data import get_data_layer
from chainlit.types import ThreadDict

from agent.errors import AgentError
from agent.page import chainlit_hooks, choices, columns, notice, resume
from agent.page.language import error_sentence, language, say
from agent.page.turn import TurnOnScreen, retry_button
from agent.page.turns import Turn, Turns
from agent.storage import threads
from index_store.errors import StoreError

if TYPE_CHECKING:
    from agent.chat.engine import PatientChatEngine
    from agent.chat.models import Models
    from agent.settings import Settings

log = logging.getLogger("medraft")

SESSIONS = "conversation"  # by what a session of Chainlit knows its conversation

# What is done on the screen about a message.
Answering = Callable[["Conversation", cl.Message, TurnOnScreen], Awaitable[None]]


async def one_turn(conversation: Conversation, message: cl.Message, screen: TurnOnScreen) -> None:
    """The answer of the choices that hold now."""
    engine = await conversation.engine()
    screen.about |= {"llm": engine.llm, "retrieval": engine.retrieval}
    async with aclosing(engine.turn(message.content)) as events:
        async for event in events:
            await screen.show(event)


class Conversation:
    """One a session; its methods need the session's context. Raises as `Models.agent` does."""

    def __init__(self, models: Models, settings: Settings, sample: bool) -> None:
        self._models, self._settings, self.sample = models, settings, sample
        self._engine: PatientChatEngine | None = None
        self._remembered: list[tuple[str, str]] = []  # of a resumed thread, until the engine is
        self._turns = Turns()
        self._running: list[asyncio.Task[Any]] = []
        self._ending: list[asyncio.Task[Any]] = []  # of these: their buttons may be there by now
        self._stopped_before: asyncio.Task[Any] | None = None  # it was here

    async def answer(self, message: cl.Message, answering: Answering = one_turn) -> None:
        """Answer a message. However the turn ends, the patient sees how."""
        screen = TurnOnScreen(self.sample)
        try:
            async with self.turn(message):
                await self._run(message, screen, answering)
        except asyncio.CancelledError:
            screen.stop()
            raise
        finally:
            self._ending = [task for task in self._running if task is asyncio.current_task()]
            await to_the_end(self._end(self._turns.of(message), screen))

    @asynccontextmanager
    async def turn(self, message: cl.Message) -> AsyncIterator[None]:
        """The turn of a message, when all that is running has ended. One that is known was edited
        or is to be tried again: then what runs is stopped, and what came after it forgotten."""
        known = self._turns.known(message.id) is not None
        turn = self._turns.of(message)
        try:
            if known:
                self.stop()
            # Those that are there by now: what is sent from now on comes after this one.
            forgotten = self._turns.since(turn) if known else []
            async with self.alone():
                await to_the_end(self._rewind(forgotten))
                turn.question, turn.before = message, self._memory()
                yield
        finally:
            if run := chainlit_hooks.run_id():
                turn.steps.append(run)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """When all that is running has ended; Stop ends the block, too."""
        task = asyncio.current_task()
        assert task is not None
        earlier = [other for other in self._running if not other.done() and other is not task]
        self._running = [*earlier, task]
        if earlier:
            await asyncio.wait(earlier)
            # The end of each has told the page that nothing is running.
            await chainlit_hooks.say_busy()
        if task is self._stopped_before:
            task.cancel()
        yield

    def stop(self, begun: asyncio.Task[Any] | None = None) -> None:
        """End what is running, and `begun`: at once if it is here, or else when it comes."""
        self._stopped_before = begun or self._stopped_before
        for task in self._running:
            if task is not asyncio.current_task():
                task.cancel()

    def retry(self, message_id: str) -> None:
        """Try the last message again, unless something is running that is not at its end."""
        last = self._turns.last
        if last is not None and last.question.id == message_id and self.ended:
            chainlit_hooks.run_behind(chainlit_hooks.answer_again(last.question))

    @property
    def loaded(self) -> bool:
        """Whether the models are at hand; after an error loading has begun anew."""
        return self._models.loaded

    @property
    def idle(self) -> bool:
        """Whether nothing is running."""
        return all(task.done() for task in self._running)

    @property
    def ended(self) -> bool:
        """Whether nothing is running, but for what a turn still puts on the screen at its end: who
        is quick clicks on the first of it."""
        return all(task.done() or task in self._ending for task in self._running)

    def known(self, message_id: object) -> Turn | None:
        """The turn of a message, if the screen still shows it."""
        return self._turns.known(message_id)

    async def remember(self, turn: Turn, said: str) -> None:
        """Memory holds `said` as the answer to a turn's message."""
        engine, question = await self.engine(), turn.question
        assert turn.before is not None
        engine.take_over(turn.before, question.content, said, new=bool(question.command))
        if question.command:
            for later in self._turns.since(turn)[1:]:
                later.before = None if later.before is None else later.before + 2
            # No command any more, but a message of the conversation.
            shown = next((m for m in cl.chat_context.get() if m.id == question.id), question)
            shown.command = question.command = ""
            await shown.update()

    async def engine(self) -> PatientChatEngine:
        """The engine, with the choices that hold from now on; it waits for the models itself."""
        if self._engine is None:
            begun = await asyncio.to_thread(self._begin)
            self._engine = self._engine or begun
        self._engine.llm, self._engine.retrieval = choices.chosen(self._settings)
        self._engine.language = language()
        self._engine.country = notice.country(self._settings)
        return self._engine

    async def end(self) -> None:
        """Stop what is running, and return when it has ended; its last words are stored."""
        self.stop()
        if not self.idle:
            await asyncio.wait(self._running)

    async def restore(self, thread: ThreadDict) -> None:
        """Go on where a stored thread ended."""
        self._remembered = threads.remembered(thread["steps"])
        await self._turns.restore(thread)

    async def _rewind(self, turns: Sequence[Turn]) -> None:
        """Screen and memory as they were before these turns; the first begins anew."""
        await self._turns.take_retry_away()
        # One that was stopped in the queue never had its place in memory.
        before = next((turn.before for turn in turns if turn.before is not None), None)
        if before is not None:
            self._remembered = self._remembered[:before]
            if self._engine is not None:
                self._engine.rewind(before)
        await self._turns.forget(turns)

    async def _run(self, message: cl.Message, screen: TurnOnScreen, answering: Answering) -> None:
        try:
            await cl.send_window_message({"medraft-thread": message.thread_id})  # public/medraft.js
            if not self._models.loaded:
                await screen.say_meanwhile(say("conversation.loading"))
            await answering(self, message, screen)
        except (AgentError, StoreError) as error:
            screen.fail(error_sentence(error))
        except Exception as error:
            # The type alone: the text of an error may hold what the patient said.
            log.error("%s in thread %s", type(error).__name__, message.thread_id)
            screen.fail(say("conversation.sorry"))

    async def _end(self, turn: Turn, screen: TurnOnScreen) -> None:
        if screen.step_id is not None:
            turn.steps.append(screen.step_id)
        # None where a later message is in the queue, or was stopped there.
        is_last = turn is self._turns.last
        turn.retry = retry_button(turn.question.id) if is_last else None
        await screen.finish([turn.retry] if turn.retry else [], columns.button(turn.question.id))

    def _begin(self) -> PatientChatEngine:
        from agent.chat.engine import PatientChatEngine  # heavy: a thread imports it

        history = resume.messages(self._remembered)
        return PatientChatEngine(self._settings, self._models.agent, history)

    def _memory(self) -> int:
        return len(self._engine.chat_history if self._engine else self._remembered)


async def end_elsewhere(thread: ThreadDict) -> None:
    """A page that was loaded again has a new session: what its old one is still answering is
    stopped, and read into `thread`."""
    for other in chainlit_hooks.others_of_this_thread(SESSIONS):
        await other.end()
    layer = get_data_layer()
    if layer is not None and (now := await layer.get_thread(thread["id"])) is not None:
        thread["steps"] = now["steps"]


async def to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Stop, however often it is pressed, must not cut short what makes the screen whole."""
    task = asyncio.ensure_future(work)
    stopped: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            stopped = error
    task.result()
    if stopped is not None:
        raise stopped
