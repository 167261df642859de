"""A conversation on the page: its engine, its turns, and which of them are running.

Owns that turns come one after the other, that Stop ends all of them, and that memory and history
hold what the screen shows, also after an edit, another try and a resume. Does not know what a
turn looks like, nor how an answer comes about.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import chainlit as cl
from chainlit.chat_context import chat_context, chat_contexts
from chainlit.config import config
from chainlit.data import get_data_layer
from chainlit.session import ws_sessions_id
from chainlit.step import StepDict
from chainlit.types import ThreadDict
from chainlit.user_session import user_sessions
from chainlit.utils import utc_now

from agent.errors import AgentError
from agent.page import choices, columns, notice, resume
from agent.page.language import explain, language, say
from agent.page.turn import TurnOnScreen, retry_button
from agent.storage import threads
from index_store.errors import StoreError

if TYPE_CHECKING:
    from agent.chat.engine import PatientChatEngine
    from agent.page.server.startup import Models
    from agent.settings import Settings

log = logging.getLogger("medraft")

SESSIONS = "conversation"  # by what a session of Chainlit knows its conversation
CHAINLITS_STOP = "Task manually stopped."  # said to every Stop, in English, and stored


# What is done on the screen about a message.
Answering = Callable[["Conversation", cl.Message, TurnOnScreen], Awaitable[None]]


async def one_turn(conversation: Conversation, message: cl.Message, screen: TurnOnScreen) -> None:
    """The answer of the choices that hold now."""
    engine = await conversation.engine()
    screen.about |= {"llm": engine.llm, "retrieval": engine.retrieval}
    async with aclosing(engine.turn(message.content)) as events:
        async for event in events:
            await screen.show(event)


@dataclass
class Turn:
    """A patient's message; `before` is how many messages memory held when its turn came."""

    question: cl.Message
    before: int | None = None
    steps: list[str] = field(default_factory=list)  # ids of what stands below, but for messages
    retry: cl.Action | None = None


class Conversation:
    """One a session; its methods need the session's context. Raises as `Models.agent` does."""

    def __init__(self, models: Models, settings: Settings, sample: bool) -> None:
        self._models, self._settings, self.sample = models, settings, sample
        self._engine: PatientChatEngine | None = None
        self._remembered: list[tuple[str, str]] = []  # of a resumed thread, until the engine is
        self._turns: dict[str, Turn] = {}  # by the message's id, as they stand on the screen
        self._running: list[asyncio.Task[Any]] = []

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
            await _to_the_end(self._end(self._turns[message.id], screen))

    @asynccontextmanager
    async def turn(self, message: cl.Message) -> AsyncIterator[None]:
        """The turn of a message, when all that is running has ended. One that is known was edited
        or is to be tried again: then what runs is stopped, and what came after it forgotten."""
        known = self._turns.get(message.id)
        turn = self._turns.setdefault(message.id, Turn(message))
        try:
            if known is not None:
                self.stop()
            # Those that are there by now: what is sent from now on comes after this one.
            turns = list(self._turns.values())
            forgotten = turns[turns.index(turn) :] if known else []
            async with self.alone():
                await self._take_retry_away()
                await self._rewind(forgotten)
                turn.question, turn.before = message, self._memory()
                yield
        finally:
            if run := cl.context.current_run:
                turn.steps.append(run.id)

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
            await cl.context.emitter.task_start()
        yield

    def stop(self) -> None:
        """End what is running. Chainlit ends the newest only, and no edited one."""
        for task in self._running:
            if task is not asyncio.current_task():
                task.cancel()

    async def say_stopped(self) -> None:
        """Take Chainlit's words for it away; each turn that was stopped says so itself."""
        for message in chat_context.get():
            if message.content == CHAINLITS_STOP and message.type == "assistant_message":
                await message.remove()

    def retry(self, message_id: str) -> None:
        """Try the last message again, unless something is running."""
        last = next(reversed(self._turns), None)
        if last == message_id and self.idle:
            # A click is a request of its own, which must not last as long as an answer.
            task = asyncio.create_task(_run_again(self._turns[last].question))
            cl.context.session.current_task = task

    @property
    def loaded(self) -> bool:
        """Whether the models are at hand, or will not be."""
        return self._models.loaded

    @property
    def idle(self) -> bool:
        """Whether nothing is running."""
        return all(task.done() for task in self._running)

    def known(self, message_id: object) -> Turn | None:
        """The turn of a message, if the screen still shows it."""
        return next((t for t in self._turns.values() if t.question.id == message_id), None)

    async def remember(self, turn: Turn, said: str) -> None:
        """Memory holds `said` as the answer to a turn's message."""
        engine, question = await self.engine(), turn.question
        assert turn.before is not None
        engine.take_over(turn.before, question.content, said, new=bool(question.command))
        if question.command:
            turns = list(self._turns.values())
            for later in turns[turns.index(turn) + 1 :]:
                later.before = later.before and later.before + 2
            # No command any more, but a message of the conversation.
            shown = next((m for m in chat_context.get() if m.id == question.id), question)
            shown.command = question.command = ""
            await shown.update()

    async def take_back(self, turn: Turn, run_id: str | None) -> None:
        """A turn's answer goes from the screen and from history, and what was said about it."""
        for message in chat_context.get():
            if message.parent_id in turn.steps and "behaviour" in (message.metadata or {}):
                await message.remove()
        for id in [id for id in turn.steps if id != run_id]:
            await cl.Step(id=id).remove()
            turn.steps.remove(id)

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
        """Go on where a stored thread ended; its last message can be tried again."""
        self._remembered = threads.remembered(thread["steps"])
        before, shown = 0, ""
        for question, replies in threads.turns(thread["steps"]):
            turn = Turn(cl.Message.from_dict(cast(StepDict, question)), before)
            below, shown = {question["id"]}, ""
            for step in thread["steps"]:
                if step.get("parentId") in below:
                    below.add(step["id"])
                    if step["type"].endswith("message"):
                        shown = step["id"]
                    else:
                        turn.steps.append(step["id"])
            before += len(threads.remembered([question, *replies]))
            self._turns[question["id"]] = turn
            for answer in filter(threads.is_answer, replies):
                compare = columns.button(question["id"])
                await compare.remove()  # a page that was open all the time shows it still
                await compare.send(answer["id"])
        if self._turns:
            if not shown:  # the server ended in the middle of this turn
                note = cl.Message(
                    say("turn.interrupted"),
                    type="system_message",
                    parent_id=question["id"],
                    created_at=utc_now(),
                )
                thread["steps"].append(note.to_dict())
                shown = note.id
            turn.retry = retry_button(question["id"])
            await turn.retry.remove()
            await turn.retry.send(shown)

    async def _rewind(self, turns: Sequence[Turn]) -> None:
        """Screen, memory and history as they were before these turns; the first begins anew."""
        # One that was stopped in the queue never had its place in memory.
        before = next((turn.before for turn in turns if turn.before is not None), None)
        if before is not None:
            self._remembered = self._remembered[:before]
            if self._engine is not None:
                self._engine.rewind(before)
        for turn in turns:
            await _clear(turn)
        for turn in turns[1:]:
            del self._turns[turn.question.id]

    async def _take_retry_away(self) -> None:
        """Only what was said last can be tried again."""
        for turn in list(self._turns.values()):  # others may be sent meanwhile
            if turn.retry is not None:
                await turn.retry.remove()
                turn.retry = None

    async def _run(self, message: cl.Message, screen: TurnOnScreen, answering: Answering) -> None:
        try:
            await cl.send_window_message({"medraft-thread": message.thread_id})  # public/medraft.js
            if not self._models.loaded:
                await screen.say_meanwhile(say("conversation.loading"))
            await answering(self, message, screen)
        except (AgentError, StoreError) as error:
            screen.fail(explain(error))
        except Exception as error:
            # The type alone: the text of an error may hold what the patient said.
            log.error("%s in thread %s", type(error).__name__, message.thread_id)
            screen.fail(say("conversation.sorry"))

    async def _end(self, turn: Turn, screen: TurnOnScreen) -> None:
        if screen.step_id is not None:
            turn.steps.append(screen.step_id)
        # None where a later message is in the queue, or was stopped there.
        last = turn.question.id == next(reversed(self._turns))
        turn.retry = retry_button(turn.question.id) if last else None
        await screen.finish([turn.retry] if turn.retry else [], columns.button(turn.question.id))

    def _begin(self) -> PatientChatEngine:
        from agent.chat.engine import PatientChatEngine  # heavy: a thread imports it

        history = resume.messages(self._remembered)
        return PatientChatEngine(self._settings, self._models.agent, history)

    def _memory(self) -> int:
        return len(self._engine.chat_history if self._engine else self._remembered)


def forget_ended() -> None:
    """Chainlit keeps the messages of every session for ever: let go of those that are over."""
    for session_id in chat_contexts.keys() - ws_sessions_id.keys():
        del chat_contexts[session_id]


async def end_elsewhere(thread: ThreadDict) -> None:
    """A page that was loaded again has a new session: what its old one is still answering is
    stopped, and read into `thread`."""
    here = cl.context.session
    for session in list(ws_sessions_id.values()):
        other = user_sessions.get(session.id, {}).get(SESSIONS)
        if session.thread_id == here.thread_id and session is not here and other is not None:
            await other.end()
    layer = get_data_layer()
    if layer is not None and (now := await layer.get_thread(thread["id"])) is not None:
        thread["steps"] = now["steps"]


async def _clear(turn: Turn) -> None:
    """What stands below a message goes, from the screen and from history."""
    below = {turn.question.id, *turn.steps}
    for message in chat_context.get():
        if message.parent_id in below:
            below.add(message.id)
            await message.remove()
    for id in turn.steps:
        await cl.Step(id=id).remove()
    turn.steps = []


async def _run_again(message: cl.Message) -> None:
    emitter = cl.context.emitter
    await emitter.task_start()
    try:
        await config.code.on_message(message)
    finally:
        await emitter.task_end()


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Stop, pressed again, must not cut short what makes the screen whole."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
