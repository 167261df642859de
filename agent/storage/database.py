"""The database of histories: its tables, their versions, and how to connect.

Owns the schema, on SQLite (a file in MEDRAFT_HOME) and on Postgres (MEDRAFT_DATABASE_URL), and
what makes SQLite keep to it: foreign keys, one writer at a time, nothing left of what was deleted.
Does not know what is written or read, nor who asks.

A step is a row of the few columns that are searched and sorted by, and one JSON value for the
rest, so that no field that Chainlit adds to its steps is ever lost for want of a column.

Migrations are a list of functions, not Alembic's revisions. There is one line of versions, both
databases take a step of it in one transaction under one lock, and the tables of a newer medraft are
refused in one sentence: twenty lines here, and more of `env.py`, revisions and a second table of
versions there. What Alembic would write by itself does not see into JSON, where nearly all of a
step lies. `alembic stamp` can begin from any version, should the schema ever branch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    URL,
    Column,
    Connection,
    Engine,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    insert,
    inspect,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.exc import ArgumentError, DisconnectionError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from agent.errors import AgentError
from agent.settings import Settings

QUICK = 2  # seconds in which a database that is there answers
DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}

schema = MetaData()
users = Table(
    "users",
    schema,
    Column("id", String(36), primary_key=True),
    Column("identifier", Text, nullable=False, unique=True),
    Column("created_at", Text, nullable=False),
    Column("about", JSON, nullable=False),
)
threads = Table(
    "threads",
    schema,
    Column("id", Text, primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE")),
    Column("name", Text),
    Column("created_at", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
    Column("kept", JSON, nullable=False),  # what the session keeps: the chat settings
    Index("threads_of_a_user", "user_id", "updated_at"),
)
steps = Table(
    "steps",
    schema,
    Column("id", Text, primary_key=True),
    Column("thread_id", ForeignKey("threads.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("output", Text, nullable=False),
    Column("rest", JSON, nullable=False),
    Index("steps_of_a_thread", "thread_id", "created_at"),
)
elements = Table(
    "elements",
    schema,
    Column("id", Text, primary_key=True),
    Column("thread_id", ForeignKey("threads.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("step_id", Text, nullable=False),
    Column("element", JSON, nullable=False),
)
feedbacks = Table(
    "feedbacks",
    schema,
    Column("step_id", ForeignKey("steps.id", ondelete="CASCADE"), primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("created_at", Text, nullable=False),
    Column("value", Integer, nullable=False),
    Column("comment", Text),
)
versions = Table("medraft_version", schema, Column("version", Integer, nullable=False))

# From version 1 to 2, from 2 to 3, and so on; a new database begins with the last.
MIGRATIONS: list[Callable[[Connection], None]] = []


def prepare(settings: Settings) -> None:
    """Create the tables, or bring them to this version, in one transaction. Raises AgentError."""
    address = _address(settings)
    if address.get_backend_name() == "sqlite":
        _create_private(address.database or "")
    engine = connect(settings)
    try:
        with engine.begin() as connection:
            _migrate(connection, address)
    except SQLAlchemyError as error:
        raise AgentError(
            f"The history at {address} cannot be opened ({type(error).__name__}): "
            "start that server or mend the file, or set MEDRAFT_DATABASE_URL to another."
        ) from None
    finally:
        engine.dispose()


def check(settings: Settings) -> None:
    """Ask the database whether it is there, without a lock that writers wait for. Raises AgentError
    if it does not answer."""
    address = _address(settings)
    told = f"The history at {address} does not answer"
    if address.get_backend_name() == "sqlite" and not os.path.exists(address.database or ""):
        raise AgentError(f"{told} (its file is gone).")
    engine = create_engine(_opened(address), **_options(address, QUICK, QUICK))
    try:
        with engine.connect() as connection:
            connection.execute(select(versions.c.version)).scalar_one()
    except SQLAlchemyError as error:
        raise AgentError(f"{told} ({type(error).__name__}).") from None
    finally:
        engine.dispose()


@contextmanager
def reading(settings: Settings) -> Iterator[Connection]:
    """For commands, also while the page is served. Raises AgentError, also if there is none yet."""
    address = _address(settings)
    if address.get_backend_name() == "sqlite" and not os.path.exists(address.database or ""):
        raise AgentError(f"There is no history at {address} yet: the page begins it.")
    prepare(settings)
    engine = connect(settings)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def connect(settings: Settings) -> Engine:
    """One that is not asynchronous. Raises AgentError for an address that is no database's."""
    address = _address(settings)
    engine = create_engine(_opened(address), **_options(address))
    return _keep_sqlite_in_order(engine, address)


def connect_async(settings: Settings) -> AsyncEngine:
    """For the page. Raises AgentError for an address that is no database's."""
    address = _address(settings)
    name = DRIVERS[address.get_backend_name()]
    engine = create_async_engine(_opened(address).set(drivername=name), **_options(address))
    _keep_sqlite_in_order(engine.sync_engine, address)
    return engine


def _address(settings: Settings) -> URL:
    if settings.database_url is None:
        return URL.create("sqlite", database=str(settings.home / "history.db"))
    try:
        # Some hosts still call it postgres.
        given = settings.database_url.get_secret_value().replace("postgres://", "postgresql://", 1)
        address = make_url(given)
    except ArgumentError:
        raise AgentError(
            "MEDRAFT_DATABASE_URL is not an address: it must look like "
            "postgresql://NAME:PASSWORD@HOST/DATABASE or sqlite:///FILE."
        ) from None
    if address.get_backend_name() not in DRIVERS:
        raise AgentError(
            f"MEDRAFT_DATABASE_URL names {address.get_backend_name()}, which medraft cannot use: "
            "it must begin with postgresql:// or sqlite:///."
        )
    if address.get_backend_name() == "postgresql":
        return address.set(drivername=DRIVERS["postgresql"])
    if address.database in (None, "", ":memory:"):
        raise AgentError("MEDRAFT_DATABASE_URL names no file: it must look like sqlite:///FILE.")
    return address.set(database=os.path.expanduser(address.database))


def _opened(address: URL) -> URL:
    """The address by which SQLite opens a file that is there, and never makes one."""
    if address.get_backend_name() != "sqlite":
        return address
    file = Path(address.database or "").absolute().as_uri()
    return address.set(database=file).update_query_dict({"mode": "rw", "uri": "true"})


def _options(address: URL, connecting: int = 10, waiting: int = 30) -> dict[str, Any]:
    """With the seconds for Postgres to be reached, and for SQLite's lock."""
    # The text of an error is logged, and its parameters are what patients said.
    options: dict[str, Any] = {"hide_parameters": True}
    if address.get_backend_name() == "sqlite":
        # Another process that writes is waited for; in this one, one connection is all there is.
        options |= {"connect_args": {"timeout": waiting}, "pool_size": 1, "max_overflow": 0}
    else:
        options |= {"pool_pre_ping": True, "connect_args": {"connect_timeout": connecting}}
    return options


def _keep_sqlite_in_order(engine: Engine, address: URL) -> Engine:
    if engine.dialect.name != "sqlite":
        return engine

    @event.listens_for(engine, "connect")
    def configure(connection: Any, record: Any) -> None:
        record.info["file"] = _identity(address)
        connection.isolation_level = None  # SQLAlchemy begins transactions itself, below
        cursor = connection.cursor()
        for pragma in ("foreign_keys = ON", "secure_delete = ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()
        # SQLite's own knows the letters A to Z only.
        connection.create_function("lower", 1, lambda value: value and str(value).lower())

    @event.listens_for(engine, "checkout")
    def is_the_same(_: object, record: Any, __: object) -> None:
        # To a file that was put in its place a connection to the one that is gone never writes.
        if record.info["file"] != _identity(address):
            raise DisconnectionError("The file is another one.")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads first and writes then fails if another wrote in between.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _identity(address: URL) -> tuple[int, int] | None:
    try:
        found = os.stat(address.database or "")
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _create_private(database: str) -> None:
    """SQLite's journal gets the file's mode, too."""
    try:
        os.makedirs(os.path.dirname(database) or ".", exist_ok=True)
        os.close(os.open(database, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise AgentError(
            f"The history cannot be written to {database} ({error.strerror}): set MEDRAFT_HOME "
            "or MEDRAFT_DATABASE_URL to a place that can be written to."
        ) from None


def _migrate(connection: Connection, address: URL) -> None:
    newest = 1 + len(MIGRATIONS)
    if connection.dialect.name == "postgresql":
        # Two servers that start at once: the second one waits for the first.
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('medraft'))"))
    there = set(inspect(connection).get_table_names())
    if versions.name not in there:
        if foreign := there & set(schema.tables):
            raise AgentError(
                f"The database at {address} has a table {sorted(foreign)[0]} of another program: "
                "give medraft a database of its own in MEDRAFT_DATABASE_URL."
            )
        schema.create_all(connection)
        connection.execute(insert(versions).values(version=newest))
        return
    version = connection.execute(select(versions.c.version)).scalar_one()
    if version > newest:
        raise AgentError(
            f"The history at {address} was written by a newer medraft (version {version} of its "
            f"tables, this one knows {newest}): update medraft, or set MEDRAFT_DATABASE_URL."
        )
    for migrate in MIGRATIONS[version - 1 :]:
        migrate(connection)
    connection.execute(update(versions).values(version=newest))
