"""The turns of a conversation, as they stand on the screen and in history.

Owns what stands below each message of the patient, that it goes when the message is answered anew,
that only what was said last can be tried again, and that all this is known of a stored thread, too.
Does not know which turn is running, nor what memory holds of one but its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import chainlit as cl
from chainlit.step import StepDict
from chainlit.types import ThreadDict
from chainlit.utils import utc_now

from agent.page import columns
from agent.page.language import say
from agent.page.turn import retry_button
from agent.storage import threads


@dataclass
class Turn:
    """A patient's message; `before` is how many messages memory held when its turn came."""

    question: cl.Message
    before: int | None = None
    steps: list[str] = field(default_factory=list)  # ids of what stands below, but for messages
    retry: cl.Action | None = None

    async def clear(self) -> None:
        """What stands below the message goes, from the screen and from history."""
        below = {self.question.id, *self.steps}
        for message in cl.chat_context.get():
            if message.parent_id in below:
                below.add(message.id)
                await message.remove()
        for id in self.steps:
            await cl.Step(id=id).remove()
        self.steps = []

    async def take_back(self, run_id: str | None) -> None:
        """The answer goes, and what was said about it, but not the run `run_id`."""
        for message in cl.chat_context.get():
            if message.parent_id in self.steps and "behaviour" in (message.metadata or {}):
                await message.remove()
        for id in [id for id in self.steps if id != run_id]:
            await cl.Step(id=id).remove()
            self.steps.remove(id)


class Turns:
    """In the order of the screen."""

    def __init__(self) -> None:
        self._by_id: dict[str, Turn] = {}  # by the message's id

    def of(self, message: cl.Message) -> Turn:
        """The turn of a message, which begins now if it is new."""
        return self._by_id.setdefault(message.id, Turn(message))

    def known(self, message_id: object) -> Turn | None:
        """The turn of a message, if the screen still shows it."""
        return next((t for t in self._by_id.values() if t.question.id == message_id), None)

    def since(self, turn: Turn) -> list[Turn]:
        """This one and all that came after it."""
        turns = list(self._by_id.values())
        return turns[turns.index(turn) :]

    @property
    def last(self) -> Turn | None:
        """The newest."""
        return next(reversed(self._by_id.values()), None)

    async def forget(self, turns: Sequence[Turn]) -> None:
        """What stands below these goes; the first begins anew, and the others go, too."""
        for turn in turns:
            await turn.clear()
        for turn in turns[1:]:
            self._by_id.pop(turn.question.id, None)  # another edit may have come meanwhile

    async def take_retry_away(self) -> None:
        """Only what was said last can be tried again."""
        for turn in list(self._by_id.values()):  # others may be sent meanwhile
            if turn.retry is not None:
                await turn.retry.remove()
                turn.retry = None

    async def restore(self, thread: ThreadDict) -> None:
        """Those of a stored thread; its last message can be tried again."""
        before, shown = 0, ""
        for question, replies in threads.turns(thread["steps"]):
            turn = Turn(cl.Message.from_dict(cast(StepDict, question)), before)
            turn.steps, shown = _below(question["id"], thread)
            before += len(threads.remembered([question, *replies]))
            self._by_id[question["id"]] = turn
            for answer in filter(threads.is_answer, replies):
                compare = columns.button(question["id"])
                await compare.remove()  # a page that was open all the time shows it still
                await compare.send(answer["id"])
        if self.last is not None:
            last = self.last.question.id
            self.last.retry = retry_button(last)
            await self.last.retry.remove()
            await self.last.retry.send(shown or _note_the_interruption(last, thread))


def _below(message_id: str, thread: ThreadDict) -> tuple[list[str], str]:
    """What stands below a message: the ids of the steps, and that of the last message, if any."""
    below, steps, shown = {message_id}, [], ""
    for step in thread["steps"]:
        if step.get("parentId") in below:
            below.add(step["id"])
            if step["type"].endswith("message"):
                shown = step["id"]
            else:
                steps.append(step["id"])
    return steps, shown


def _note_the_interruption(message_id: str, thread: ThreadDict) -> str:
    """The server ended in the middle of this turn; returns the id of what says so in `thread`."""
    note = cl.Message(
        say("turn.interrupted"),
        type="system_message",
        parent_id=message_id,
        created_at=utc_now(),
    )
    thread["steps"].append(note.to_dict())
    return note.id
