"""What Chainlit stores and reads: users, threads, steps, elements and feedback.

Owns what each of them is to Chainlit, what is kept of a session, and what is said when nothing
could be stored. Does not know what a conversation means, nor how writing is kept in order.

It stands in place of Chainlit's SQLAlchemyDataLayer, which on SQLite loses steps whose values are
dicts or lists, builds queries out of thread ids that the browser has chosen, and reads every step
of a user to list the threads.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import chainlit as cl
from chainlit.data.base import BaseDataLayer
from chainlit.data.utils import queue_until_user_message
from chainlit.element import Element, ElementDict
from chainlit.step import StepDict
from chainlit.types import (
    Feedback,
    PageInfo,
    PaginatedResponse,
    Pagination,
    ThreadDict,
    ThreadFilter,
)
from chainlit.user import PersistedUser, User
from chainlit.utils import utc_now
from sqlalchemy import RowMapping, and_, delete, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from agent.page import chainlit_hooks
from agent.page.language import say
from agent.storage.database import elements, feedbacks, steps, threads, users
from agent.storage.threads import (
    COLUMNS,
    MESSAGES,
    owner_of,
    shortened,
    step_of,
    steps_of,
    storable,
    threads_of,
)
from agent.storage.writing import Deleted, Writer

log = logging.getLogger("medraft")

KEPT = "chat_settings"  # of what a session holds; the rest is made anew, or is no JSON
Method = TypeVar("Method", bound=Callable[..., Any])


def _queued(method: Method) -> Method:
    """Nothing is stored of a conversation in which the patient has not said anything yet."""
    return queue_until_user_message()(method)


class History(BaseDataLayer):
    """Chainlit's data layer over `agent.storage`.

    Chainlit starts a task for each change of a step: they are written in the order of asking.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._writer = Writer(engine)

    # Users

    async def get_user(self, identifier: str) -> PersistedUser | None:
        """Who has this identifier."""
        query = select(users).where(users.c.identifier == identifier)
        async with self._writer.now() as connection:
            found = (await connection.execute(query)).one_or_none()
        if found is None:
            return None
        return PersistedUser(
            id=found.id, identifier=identifier, createdAt=found.created_at, metadata=found.about
        )

    async def create_user(self, user: User) -> PersistedUser | None:
        """The user, from now on or as they were."""
        row = {
            "id": str(uuid.uuid4()),
            "identifier": user.identifier,
            "created_at": utc_now(),
            "about": user.metadata,
        }
        put = self._writer.put_by("identifier", users, row, change=["about"])
        async with self._writer.now() as connection:
            await connection.execute(put)
        return await self.get_user(user.identifier)

    # Threads

    async def get_thread_author(self, thread_id: str) -> str:
        """The identifier of the thread's user; empty if there is no such thread."""
        query = select(users.c.identifier).join(threads).where(threads.c.id == thread_id)
        async with self._writer.now() as connection:
            return (await connection.execute(query)).scalar_one_or_none() or ""

    async def update_thread(
        self,
        thread_id: str,
        name: str | None = None,
        user_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        tags: list[str] | None = None,
    ) -> None:
        """Change what is given; a thread begins when it is given a user. A name is cut at a word.

        A user does not change any more: an id that a browser has made up is nobody's way in.
        """
        async with self._telling(thread_id), self._writer.in_turn() as connection:
            if user_id is not None:
                await self._writer.begin(connection, thread_id, user_id, utc_now())
            values: dict[str, Any] = {"name": shortened(name)} if name and name.strip() else {}
            if metadata and KEPT in metadata:
                values["kept"] = {KEPT: storable(metadata[KEPT])}
            if values:
                await self._writer.change_thread(connection, thread_id, values)

    async def delete_thread(self, thread_id: str) -> None:
        """The thread and all that belongs to it; a page that still shows it stores no more."""
        await self._writer.delete_thread(thread_id)

    async def list_threads(
        self, pagination: Pagination, filters: ThreadFilter
    ) -> PaginatedResponse[ThreadDict]:
        """A user's threads without their steps, the one last spoken in first."""
        query = threads_of(
            filters.userId, filters.search or "", filters.feedback, pagination.cursor
        ).limit(pagination.first + 1)
        async with self._writer.now() as connection:
            found = (await connection.execute(query)).all()
        page = [_thread(row._mapping) for row in found[: pagination.first]]
        return PaginatedResponse(
            pageInfo=PageInfo(
                hasNextPage=len(found) > pagination.first,
                startCursor=page[0]["id"] if page else None,
                endCursor=page[-1]["id"] if page else None,
            ),
            data=page,
        )

    async def get_thread(self, thread_id: str) -> ThreadDict | None:
        """A thread with its steps in the order in which they began, elements and feedback."""
        about = select(threads, users.c.identifier).join(users).where(threads.c.id == thread_id)
        shown = select(elements.c.element).where(elements.c.thread_id == thread_id)
        # What is being written comes first.
        async with self._writer.in_turn() as connection:
            found = (await connection.execute(about)).one_or_none()
            if found is None:
                return None
            thread = _thread(found._mapping)
            rows = (await connection.execute(steps_of(thread_id))).all()
            thread["elements"] = list((await connection.execute(shown)).scalars())
        thread["steps"] = [cast(StepDict, step_of(row._mapping)) for row in rows]
        return thread

    # Steps

    @_queued
    async def create_step(self, step_dict: StepDict) -> None:
        """Store a step, or its new state; the first one of a thread begins it."""
        step = storable(dict(step_dict))
        row = {column: step.pop(key) for key, column in COLUMNS.items()}
        row |= {"output": step.pop("output", None) or "", "rest": step}
        row["created_at"] = row["created_at"] or utc_now()
        async with self._telling(row["thread_id"]), self._writer.in_turn() as connection:
            await self._begin(connection, row["thread_id"])
            await self._writer.put(connection, steps, row)
            if row["type"] in MESSAGES:
                # Chainlit keeps the settings when the browser leaves; the server may leave first.
                kept = {KEPT: storable(cl.user_session.get("chat_settings"))}
                values = {"updated_at": utc_now(), "kept": kept}
                await self._writer.change_thread(connection, row["thread_id"], values)

    @_queued
    async def update_step(self, step_dict: StepDict) -> None:
        """As `create_step`."""
        await self.create_step(step_dict)

    @_queued
    async def delete_step(self, step_id: str) -> None:
        """A step of this session's thread, with its elements and feedback: browsers choose ids."""
        thread_id = chainlit_hooks.thread_id()
        async with self._telling(), self._writer.in_turn() as connection:
            for table, id_ in ((elements, elements.c.step_id), (steps, steps.c.id)):
                here = table.c.thread_id == thread_id
                await connection.execute(delete(table).where(id_ == step_id, here))

    async def get_favorite_steps(self, user_id: str) -> list[StepDict]:
        """None: the page has no favorites."""
        return []

    # Feedback

    async def upsert_feedback(self, feedback: Feedback) -> str:
        """The one feedback of a step; returns its id. Raises SQLAlchemyError for no such step."""
        row = {
            "step_id": feedback.forId,
            "id": str(uuid.uuid4()),
            "created_at": utc_now(),
            "value": feedback.value,
            "comment": storable(feedback.comment),
        }
        change = ["created_at", "value", "comment"]
        put = self._writer.put_by("step_id", feedbacks, row, change)
        async with self._writer.in_turn() as connection:
            return (await connection.execute(put.returning(feedbacks.c.id))).scalar_one()

    async def delete_feedback(self, feedback_id: str) -> bool:
        """Take a feedback back; returns whether there was one."""
        async with self._writer.in_turn() as connection:
            gone = await connection.execute(delete(feedbacks).where(feedbacks.c.id == feedback_id))
        return gone.rowcount > 0

    async def owner(self, *, step_id: str = "", feedback_id: str = "") -> str | None:
        """The identifier of the user in whose thread this step or this feedback stands."""
        query = owner_of(step_id, feedback_id)
        async with self._writer.in_turn() as connection:
            return (await connection.execute(query)).scalar_one_or_none()

    # Elements

    @_queued
    async def create_element(self, element: Element) -> None:
        """Keep a custom element, which is all properties; others are made again from steps."""
        own = element.thread_id == chainlit_hooks.thread_id()
        if element.type != "custom" or not (element.for_id and own):
            return
        row = {
            "id": element.id,
            "thread_id": element.thread_id,
            "step_id": element.for_id,
            "element": storable(dict(element.to_dict()) | {"chainlitKey": None, "url": None}),
        }
        async with self._telling(element.thread_id), self._writer.in_turn() as connection:
            await self._begin(connection, element.thread_id)
            await self._writer.put(connection, elements, row)

    async def get_element(self, thread_id: str, element_id: str) -> ElementDict | None:
        """An element of a thread."""
        where = and_(elements.c.id == element_id, elements.c.thread_id == thread_id)
        async with self._writer.now() as connection:
            found = await connection.execute(select(elements.c.element).where(where))
        return found.scalar_one_or_none()

    @_queued
    async def delete_element(self, element_id: str, thread_id: str | None = None) -> None:
        """An element of the session's own thread."""
        if thread_id is None or thread_id != chainlit_hooks.thread_id():
            return
        where = and_(elements.c.id == element_id, elements.c.thread_id == thread_id)
        async with self._telling(thread_id), self._writer.in_turn() as connection:
            await connection.execute(delete(elements).where(where))

    async def build_debug_url(self) -> str:
        """There is none."""
        return ""

    async def close(self) -> None:
        """Close the connections, once all is written."""
        await self._writer.close()

    @asynccontextmanager
    async def _telling(self, thread_id: str = "") -> AsyncIterator[None]:
        """Around a transaction: its failure is told to the patient, and ends nothing else."""
        try:
            yield
        except Deleted:
            pass
        except SQLAlchemyError as error:
            # The type alone: the text of an error may hold what the patient said.
            log.error("%s: thread %s was not stored", type(error).__name__, thread_id)
            if chainlit_hooks.is_there():
                await chainlit_hooks.toast(say("history.not_stored"), "warning")

    async def _begin(self, connection: AsyncConnection, thread_id: str) -> None:
        """Have a row for a thread of the session's user."""
        await self._writer.begin(connection, thread_id, chainlit_hooks.user_id(), utc_now())


def _thread(row: RowMapping) -> ThreadDict:
    return ThreadDict(
        id=row["id"],
        createdAt=row["created_at"],
        name=row["name"],
        userId=row["user_id"],
        userIdentifier=row["identifier"],
        tags=[],
        metadata=dict(row["kept"]),
        steps=[],
        elements=[],
    )
