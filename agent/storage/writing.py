"""Writing into the database of histories, from many tasks at once.

Owns that what is written happens in the order in which it was asked for, that nothing comes into a
thread that was deleted, and that no row of another thread is replaced. Does not know what is
written, nor what becomes of a failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy.dialects.postgresql as postgresql
import sqlalchemy.dialects.sqlite as sqlite
from sqlalchemy import Table, delete, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from agent.storage.database import threads


class Deleted(Exception):
    """The thread was deleted, and nothing comes into it any more."""


class Writer:
    """A transaction at a time. An older state of a row must not come last, nor after its deletion;
    whoever reads what is being written waits for its turn, too."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._in_order = asyncio.Lock()
        self._deleted: set[str] = set()  # threads which a page that is still open may write to
        dialect = sqlite if engine.dialect.name == "sqlite" else postgresql
        self._insert: Any = dialect.insert

    @asynccontextmanager
    async def now(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that waits for no other write, but for a connection."""
        async with self._engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def in_turn(self) -> AsyncIterator[AsyncConnection]:
        """A transaction after all that were asked for before."""
        async with self._in_order, self.now() as connection:
            yield connection

    async def begin(
        self, connection: AsyncConnection, thread_id: str, user_id: str | None, now: str
    ) -> None:
        """Have a row for the thread, and a user if it has none. Raises Deleted for one that was."""
        if thread_id in self._deleted:
            raise Deleted
        row = {"id": thread_id, "user_id": user_id, "created_at": now, "updated_at": now}
        put = self._insert(threads).values(row | {"kept": {}})
        await connection.execute(
            put.on_conflict_do_update(
                index_elements=["id"], set_={"user_id": user_id}, where=threads.c.user_id.is_(None)
            )
        )

    async def put(self, connection: AsyncConnection, table: Table, row: dict[str, Any]) -> None:
        """Insert or replace, but never what stands in another thread: browsers choose ids."""
        put = self._insert(table).values(row)
        await connection.execute(
            put.on_conflict_do_update(
                index_elements=["id"], set_=row, where=table.c.thread_id == row["thread_id"]
            )
        )

    def put_by(self, key: str, table: Table, row: dict[str, Any], change: list[str]) -> Any:
        """The statement that inserts a row, or changes these columns of the one with its `key`."""
        put = self._insert(table).values(row)
        changed = {name: row[name] for name in change}
        return put.on_conflict_do_update(index_elements=[key], set_=changed)

    async def change_thread(
        self, connection: AsyncConnection, thread_id: str, values: dict[str, Any]
    ) -> None:
        """Columns of a thread, if there is one."""
        where = threads.c.id == thread_id
        await connection.execute(update(threads).where(where).values(values))

    async def delete_thread(self, thread_id: str) -> None:
        """The thread and all that belongs to it, for good."""
        self._deleted.add(thread_id)
        try:
            async with self.in_turn() as connection:
                await connection.execute(delete(threads).where(threads.c.id == thread_id))
        except BaseException:
            self._deleted.discard(thread_id)  # it is still there, and may go on
            raise

    async def close(self) -> None:
        """Close the connections, once all is written."""
        async with self._in_order:
            await self._engine.dispose()
