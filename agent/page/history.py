"""What Chainlit stores and reads: users, threads, steps, elements and feedback.

Owns the queries. Does not know what a conversation means, nor what the tables look like on disk.

It stands in place of Chainlit's SQLAlchemyDataLayer, which on SQLite loses steps whose values are
dicts or lists, builds queries out of thread ids that the browser has chosen, and reads every step
of a user to list the threads.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import sqlalchemy.dialects.postgresql as postgresql
import sqlalchemy.dialects.sqlite as sqlite
from chainlit.context import ChainlitContextException, get_context
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
from sqlalchemy import RowMapping, Table, and_, delete, exists, func, or_, select, tuple_, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from agent.page.language import say
from agent.storage.database import elements, feedbacks, steps, threads, users
from agent.storage.threads import COLUMNS, shortened, step_of, steps_of, storable

log = logging.getLogger("medraft")

KEPT = "chat_settings"  # of what a session holds; the rest is made anew, or is no JSON
Method = TypeVar("Method", bound=Callable[..., Any])
MESSAGES = ("user_message", "assistant_message")


def _queued(method: Method) -> Method:
    """Nothing is stored of a conversation in which the patient has not said anything yet."""
    return queue_until_user_message()(method)


class History(BaseDataLayer):
    """Chainlit's data layer over `agent.storage.database`.

    What is written happens in the order in which it was asked for: Chainlit starts a task for
    each change of a step, and an older state must not come last, nor after its deletion.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._in_order = asyncio.Lock()
        self._deleted: set[str] = set()  # threads which a page that is still open may write to
        dialect = sqlite if engine.dialect.name == "sqlite" else postgresql
        self._insert = dialect.insert

    # Users

    async def get_user(self, identifier: str) -> PersistedUser | None:
        """Who has this identifier."""
        async with self._connection() as connection:
            found = (
                await connection.execute(select(users).where(users.c.identifier == identifier))
            ).one_or_none()
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
        put = self._insert(users).values(row)
        async with self._connection() as connection:
            await connection.execute(
                put.on_conflict_do_update(
                    index_elements=["identifier"], set_={"about": row["about"]}
                )
            )
        return await self.get_user(user.identifier)

    # Threads

    async def get_thread_author(self, thread_id: str) -> str:
        """The identifier of the thread's user; empty if there is no such thread."""
        query = select(users.c.identifier).join(threads).where(threads.c.id == thread_id)
        async with self._connection() as connection:
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
        async with self._writing(thread_id) as connection:
            if user_id is not None:
                await self._begin(connection, thread_id, user_id)
            values: dict[str, Any] = {"name": shortened(name)} if name and name.strip() else {}
            if metadata and KEPT in metadata:
                values["kept"] = {KEPT: storable(metadata[KEPT])}
            if values:
                where = threads.c.id == thread_id
                await connection.execute(update(threads).where(where).values(values))

    async def delete_thread(self, thread_id: str) -> None:
        """The thread and all that belongs to it; a page that still shows it stores no more."""
        self._deleted.add(thread_id)
        async with self._in_order, self._connection() as connection:
            await connection.execute(delete(threads).where(threads.c.id == thread_id))

    async def list_threads(
        self, pagination: Pagination, filters: ThreadFilter
    ) -> PaginatedResponse[ThreadDict]:
        """A user's threads without their steps, the one last spoken in first.

        A search finds the threads in whose name or messages each of its words stands.
        """
        query = select(threads, users.c.identifier).join(users)
        query = query.where(threads.c.user_id == filters.userId)
        for word in (filters.search or "").lower().split():
            said = func.lower(steps.c.output).contains(word, autoescape=True)
            query = query.where(
                or_(
                    func.lower(threads.c.name).contains(word, autoescape=True),
                    exists().where(
                        steps.c.thread_id == threads.c.id, steps.c.type.in_(MESSAGES), said
                    ),
                )
            )
        if filters.feedback is not None:
            judged = and_(steps.c.thread_id == threads.c.id, feedbacks.c.step_id == steps.c.id)
            query = query.where(exists().where(judged, feedbacks.c.value == filters.feedback))
        if pagination.cursor:
            place = select(threads.c.updated_at, threads.c.id).where(
                threads.c.id == pagination.cursor
            )
            query = query.where(
                tuple_(threads.c.updated_at, threads.c.id) < place.scalar_subquery()
            )
        query = query.order_by(threads.c.updated_at.desc(), threads.c.id.desc())
        async with self._connection() as connection:
            found = (await connection.execute(query.limit(pagination.first + 1))).all()
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
        async with self._in_order, self._connection() as connection:
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
        async with self._writing(row["thread_id"]) as connection:
            await self._begin(connection, row["thread_id"], _session_user())
            await self._put(connection, steps, row)
            if row["type"] in MESSAGES:
                # Chainlit keeps the settings when the browser leaves; the server may leave first.
                kept = {KEPT: storable(get_context().session.chat_settings)}
                values = {"updated_at": utc_now(), "kept": kept}
                where = threads.c.id == row["thread_id"]
                await connection.execute(update(threads).where(where).values(values))

    @_queued
    async def update_step(self, step_dict: StepDict) -> None:
        """As `create_step`."""
        await self.create_step(step_dict)

    @_queued
    async def delete_step(self, step_id: str) -> None:
        """A step with its elements and its feedback."""
        async with self._writing() as connection:
            await connection.execute(delete(elements).where(elements.c.step_id == step_id))
            await connection.execute(delete(steps).where(steps.c.id == step_id))

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
        put = self._insert(feedbacks).values(row)
        change = {name: row[name] for name in ("created_at", "value", "comment")}
        put = put.on_conflict_do_update(index_elements=["step_id"], set_=change)
        async with self._in_order, self._connection() as connection:
            return (await connection.execute(put.returning(feedbacks.c.id))).scalar_one()

    async def delete_feedback(self, feedback_id: str) -> bool:
        """Take a feedback back; returns whether there was one."""
        async with self._in_order, self._connection() as connection:
            gone = await connection.execute(delete(feedbacks).where(feedbacks.c.id == feedback_id))
        return gone.rowcount > 0

    async def owner(self, *, step_id: str = "", feedback_id: str = "") -> str | None:
        """The identifier of the user in whose thread this step or this feedback stands."""
        query = select(users.c.identifier).select_from(users).join(threads).join(steps)
        if feedback_id:
            query = query.join(feedbacks).where(feedbacks.c.id == feedback_id)
        else:
            query = query.where(steps.c.id == step_id)
        async with self._in_order, self._connection() as connection:
            return (await connection.execute(query)).scalar_one_or_none()

    # Elements

    @_queued
    async def create_element(self, element: Element) -> None:
        """Keep a custom element, which is all properties; others are made again from steps."""
        if element.type != "custom" or not element.for_id or not _of_session(element.thread_id):
            return
        row = {
            "id": element.id,
            "thread_id": element.thread_id,
            "step_id": element.for_id,
            "element": storable(dict(element.to_dict()) | {"chainlitKey": None, "url": None}),
        }
        async with self._writing(element.thread_id) as connection:
            await self._begin(connection, element.thread_id, _session_user())
            await self._put(connection, elements, row)

    async def get_element(self, thread_id: str, element_id: str) -> ElementDict | None:
        """An element of a thread."""
        where = and_(elements.c.id == element_id, elements.c.thread_id == thread_id)
        async with self._connection() as connection:
            found = await connection.execute(select(elements.c.element).where(where))
        return found.scalar_one_or_none()

    @_queued
    async def delete_element(self, element_id: str, thread_id: str | None = None) -> None:
        """An element of the session's own thread."""
        if thread_id is None or not _of_session(thread_id):
            return
        where = and_(elements.c.id == element_id, elements.c.thread_id == thread_id)
        async with self._writing(thread_id) as connection:
            await connection.execute(delete(elements).where(where))

    async def build_debug_url(self) -> str:
        """There is none."""
        return ""

    async def close(self) -> None:
        """Close the connections, once all is written."""
        async with self._in_order:
            await self._engine.dispose()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection]:
        """A transaction."""
        async with self._engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def _writing(self, thread_id: str = "") -> AsyncIterator[AsyncConnection]:
        """A transaction in its turn. Its failure is told to the patient, and ends nothing else."""
        try:
            async with self._in_order, self._connection() as connection:
                yield connection
        except _Deleted:
            pass
        except SQLAlchemyError as error:
            # The type alone: the text of an error may hold what the patient said.
            log.error("%s: thread %s was not stored", type(error).__name__, thread_id)
            await _tell_not_stored()

    async def _begin(
        self, connection: AsyncConnection, thread_id: str, user_id: str | None
    ) -> None:
        """Have a row for the thread. Raises _Deleted for one that was deleted."""
        if thread_id in self._deleted:
            raise _Deleted
        now = utc_now()
        row = {"id": thread_id, "user_id": user_id, "created_at": now, "updated_at": now}
        put = self._insert(threads).values(row | {"kept": {}})
        await connection.execute(
            put.on_conflict_do_update(
                index_elements=["id"], set_={"user_id": user_id}, where=threads.c.user_id.is_(None)
            )
        )

    async def _put(self, connection: AsyncConnection, table: Table, row: dict[str, Any]) -> None:
        """Insert or replace, but never what stands in another thread: browsers choose ids."""
        put = self._insert(table).values(row)
        await connection.execute(
            put.on_conflict_do_update(
                index_elements=["id"], set_=row, where=table.c.thread_id == row["thread_id"]
            )
        )


class _Deleted(Exception):
    """The thread was deleted, and nothing comes into it any more."""


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


def _session_user() -> str | None:
    """The id of the user whose session this is."""
    user = get_context().session.user
    return user.id if isinstance(user, PersistedUser) else None


def _of_session(thread_id: str) -> bool:
    return get_context().session.thread_id == thread_id


async def _tell_not_stored() -> None:
    try:
        await get_context().emitter.send_toast(say("history.not_stored"), "warning")
    except ChainlitContextException:  # a request beside the chat, as to rename a thread
        return
