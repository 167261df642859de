"""The history: what is stored is read back, deleted for good, and its owner's only."""

from __future__ import annotations

import asyncio
import json
import shutil
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from chainlit.context import init_http_context
from chainlit.types import Feedback, Pagination, ThreadFilter
from chainlit.user import PersistedUser, User
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from agent import settings
from agent.errors import AgentError
from agent.page import chainlit_hooks, export
from agent.page.columns import Comparison
from agent.page.history import History
from agent.settings import Settings
from agent.storage import database, feedback, threads
from agent.storage.passwords import Passwords
from agent.storage.threads import NAME, shortened

from outside import needs_postgres

WHEN = "2026-01-02T03:04:05.{:06d}Z"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=needs_postgres)])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings with an empty database."""
    if request.param == "sqlite":
        return settings.load(home=tmp_path)
    address: str = request.getfixturevalue("postgres").address
    here = settings.load(home=tmp_path, database_url=address.format(name="postgres"))
    name = f"test_{abs(hash(request.node.name))}"
    with database.connect(here).execution_options(isolation_level="AUTOCOMMIT").connect() as admin:
        admin.execute(text(f"CREATE DATABASE {name}"))
    return settings.load(home=tmp_path, database_url=address.format(name=name))


@pytest.fixture
async def history(kept: Settings) -> AsyncIterator[History]:
    database.prepare(kept)
    opened = History(database.connect_async(kept))
    init_http_context()
    yield opened
    await opened.close()


async def person(history: History, name: str) -> PersistedUser:
    user = await history.create_user(User(name, metadata={"provider": "password"}))
    assert user is not None
    return user


def step(number: int, thread: str, **more: Any) -> Any:
    """A step as Chainlit hands it over, with all that it may hold."""
    kind = "user_message" if number % 2 else "assistant_message"
    return {
        "id": f"{thread}-{number}",
        "threadId": thread,
        "parentId": None,
        "createdAt": WHEN.format(number),
        "type": kind,
        "name": "medraft",
        "output": f"What was said {number}.",
        "input": "",
        "modes": {"llm": "base"},
        "tags": ["a", "b"],
        "metadata": {"behaviour": "RAG", "sources": [{"doctor": "Rest."}], "score": 0.5},
        "generation": None,
        "autoCollapse": False,
        "somethingNew": {"of": ["Chainlit's"]},
        **more,
    }


async def talk(history: History, user: PersistedUser, thread: str, *said: str) -> None:
    await history.update_thread(thread, name=said[0], user_id=user.id)
    for number, output in enumerate(said, 1):
        await history.create_step(step(number, thread, output=output))


def all_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def found(history: History, user: PersistedUser, search: str | None = None) -> list[str]:
    page = await history.list_threads(
        Pagination(first=20), ThreadFilter(userId=user.id, search=search)
    )
    return [thread["id"] for thread in page.data]


async def test_a_thread_is_read_back_as_it_was_stored(history: History, kept: Settings) -> None:
    ana = await person(history, "ana")
    await talk(history, ana, "t", "I have a headache.", "Rest in a dark room.")
    await history.update_thread("t", metadata={"chat_settings": {"llm": "base"}, "engine": None})
    given = Feedback(forId="t-2", value=1, comment="It helped. 😀 ¿Sí?")
    feedback_id = await history.upsert_feedback(feedback=given)
    await history.close()

    again = History(database.connect_async(kept))
    thread = await again.get_thread("t")
    await again.close()
    assert thread is not None
    assert thread["name"] == "I have a headache."
    assert thread["userIdentifier"] == "ana"
    assert thread["metadata"] == {"chat_settings": {"llm": "base"}}
    question, answer = thread["steps"]
    assert question == step(1, "t", output="I have a headache.")
    judged = {"id": feedback_id, "forId": "t-2", "value": 1, "comment": "It helped. 😀 ¿Sí?"}
    assert answer == step(2, "t", output="Rest in a dark room.") | {"feedback": judged}


async def test_the_newest_state_of_a_step_stays_however_many_come_at_once(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chainlit_hooks, "thread_id", lambda: "t")
    await talk(history, await person(history, "ana"), "t", "Hello.")
    states = [history.update_step(step(2, "t", output=f"As of {n}")) for n in range(30)]
    gone = [history.create_step(step(3, "t")), history.delete_step("t-3")]
    await asyncio.gather(*(asyncio.create_task(change) for change in [*states, *gone]))
    thread = await history.get_thread("t")
    assert thread is not None
    assert [said["output"] for said in thread["steps"]] == ["Hello.", "As of 29"]


async def test_search_finds_every_word_in_name_and_messages(history: History) -> None:
    ana = await person(history, "ana")
    await talk(history, ana, "acne", "My SKIN itches.", "Wash 100% of it.")
    await talk(history, ana, "ñandú", "Me duele el Oído, ¿qué HAGO, AÑO tras año?")
    await history.create_step(step(9, "acne", type="tool", output="reason: migraine"))
    assert await found(history, ana) == ["ñandú", "acne"]
    assert await found(history, ana, "itches wash") == ["acne"]
    assert await found(history, ana, "OÍDO año") == ["ñandú"]
    assert await found(history, ana, "100%") == ["acne"]
    assert await found(history, ana, "1_0%") == []
    assert await found(history, ana, "migraine") == []
    await history.update_thread("acne", name="Renamed by hand")
    assert await found(history, ana, "renamed") == ["acne"]
    assert await found(history, ana, "'; DROP TABLE steps; --") == []
    assert await found(history, ana, "itches wash " * 1_000) == ["acne"]
    assert await found(history, ana, " ".join(map(str, range(1_000)))) == []
    assert await found(history, ana, "x" * 60_000) == []


async def test_threads_come_page_by_page_and_by_feedback(history: History) -> None:
    ana = await person(history, "ana")
    for number in range(5):
        await talk(history, ana, f"t{number}", "Hello.", "Hello to you.")
    await history.create_step(step(5, "t0"))  # spoken in again
    await history.upsert_feedback(feedback=Feedback(forId="t3-2", value=0))
    seen: list[str] = []
    cursor = None
    while True:
        page = await history.list_threads(
            Pagination(first=2, cursor=cursor), ThreadFilter(userId=ana.id)
        )
        seen += [thread["id"] for thread in page.data]
        if not page.pageInfo.hasNextPage:
            break
        cursor = page.pageInfo.endCursor
    assert seen == ["t0", "t4", "t3", "t2", "t1"]
    filters = ThreadFilter(userId=ana.id, feedback=0)
    page = await history.list_threads(Pagination(first=9), filters)
    assert [thread["id"] for thread in page.data] == ["t3"]


async def test_one_user_never_gets_at_anothers(history: History) -> None:
    ana, ben = await person(history, "ana"), await person(history, "ben")
    await talk(history, ana, "anas", "Mine.", "Yours.")
    await talk(history, ben, "bens", "Ben's.")
    assert await found(history, ben) == ["bens"]
    assert await found(history, ben, "mine") == []
    assert await history.get_thread_author("anas") == "ana"
    assert await history.get_thread_author("nobody's") == ""
    assert await history.owner(step_id="anas-1") == "ana"
    assert await history.owner(step_id="anas-9") is None
    # A browser chooses the ids of its messages, and may come with the id of a thread.
    await history.create_step(step(1, "bens", id="anas-1", output="Not what Ana said."))
    await history.update_thread("anas", user_id=ben.id)
    assert await found(history, ben) == ["bens"]
    thread = await history.get_thread("anas")
    assert thread is not None
    assert thread["steps"][0]["output"] == "Mine."
    await history.delete_thread("bens")
    assert await found(history, ana) == ["anas"]


async def test_a_session_deletes_steps_of_its_own_thread_alone(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    await talk(history, await person(history, "ana"), "anas", "Mine.")
    for thread_id, there in (("bens", 1), ("anas", 0)):
        monkeypatch.setattr(chainlit_hooks, "thread_id", lambda here=thread_id: here)
        await history.delete_step("anas-1")
        thread = await history.get_thread("anas")
        assert thread is not None and len(thread["steps"]) == there


async def test_a_thread_whose_deletion_failed_goes_on(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    await talk(history, await person(history, "ana"), "t", "Hello.")

    def away() -> Any:
        raise OperationalError("DELETE", {}, Exception("database is locked"))

    with monkeypatch.context() as patched, pytest.raises(OperationalError):
        patched.setattr(history._writer, "in_turn", away)
        await history.delete_thread("t")
    await history.create_step(step(2, "t", output="Still here."))
    thread = await history.get_thread("t")
    assert thread is not None
    assert [said["output"] for said in thread["steps"]] == ["Hello.", "Still here."]


async def test_a_deleted_thread_is_nowhere_in_the_file(tmp_path: Path) -> None:
    here = settings.load(home=tmp_path)
    database.prepare(here)
    history = History(database.connect_async(here))
    init_http_context()
    ana = await person(history, "ana")
    for number in range(40):
        mark = f"MARK{number:02}"
        await talk(history, ana, f"t{number}", f"{mark} " * 300, f"A thought on {mark}.")
        await history.update_step(step(1, f"t{number}", output=f"Edited: {mark}. " * 200))
        judged = Feedback(forId=f"t{number}-2", value=1, comment=f"I like {mark}.")
        await history.upsert_feedback(feedback=judged)
    gone = range(0, 40, 3)
    for number in gone:
        await history.delete_thread(f"t{number}")
        # The page that still shows it has something to add.
        await history.update_step(step(1, f"t{number}", output=f"MARK{number:02}"))
        await history.update_thread(f"t{number}", metadata={"chat_settings": {}})
    files = all_bytes(tmp_path)
    await history.close()
    there = [number for number in range(40) if f"MARK{number:02}".encode() in files]
    assert there == [number for number in range(40) if number not in gone]
    assert await history.get_thread("t1") is not None


async def test_a_file_that_was_put_back_is_written_to(tmp_path: Path) -> None:
    here = settings.load(home=tmp_path)
    database.prepare(here)
    history = History(database.connect_async(here))
    init_http_context()
    await talk(history, await person(history, "ana"), "t", "Before.")
    file = tmp_path / "history.db"
    away = file.rename(tmp_path / "away")
    await history.create_step(step(2, "t", output="Lost."))
    assert not file.exists()  # an empty one, for everybody to read, would hide that it is gone
    shutil.copy(away, file)
    database.check(here)
    await history.create_step(step(3, "t", output="After."))
    thread = await history.get_thread("t")
    await history.close()
    assert thread is not None
    assert [each["output"] for each in thread["steps"]] == ["Before.", "After."]


async def test_a_thread_and_its_feedback_go_from_postgres_too(
    history: History, kept: Settings
) -> None:
    ana = await person(history, "ana")
    await talk(history, ana, "t", "Hello.", "Hello to you.")
    await history.upsert_feedback(feedback=Feedback(forId="t-2", value=1, comment="So so."))
    await history.delete_thread("t")
    with database.connect(kept).connect() as connection:
        for table in ("threads", "steps", "feedbacks", "elements"):
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar() == 0


async def test_what_no_database_takes_is_left_out_of_a_message(history: History) -> None:
    ana = await person(history, "ana")
    await talk(history, ana, "t", "nul \0 half \ud83d bell \a \u202e right", "😀" * 25_000)
    thread = await history.get_thread("t")
    assert thread is not None
    assert thread["steps"][0]["output"] == "nul  half ? bell \a \u202e right"
    assert thread["steps"][1]["output"] == "😀" * 25_000


async def test_a_database_that_fails_is_logged_without_what_was_said(
    history: History, kept: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    await talk(history, await person(history, "ana"), "t", "Hello.")
    with database.connect(kept).begin() as connection:
        connection.execute(text("DROP TABLE feedbacks"))
        connection.execute(text("DROP TABLE steps"))
    await history.create_step(step(2, "t", output="My secret."))
    assert "thread t was not stored" in caplog.text
    assert "secret" not in caplog.text


def test_tables_are_brought_to_a_newer_version_once_and_keep_their_rows(
    kept: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add_a_column(connection: Connection) -> None:
        connection.execute(text("ALTER TABLE threads ADD COLUMN colour TEXT DEFAULT 'blue'"))

    row = "INSERT INTO threads (id, created_at, updated_at, kept) VALUES ('t', '', '', '{}')"
    database.prepare(kept)
    with database.connect(kept).begin() as connection:
        connection.execute(text(row))
    monkeypatch.setattr(database, "MIGRATIONS", [add_a_column])
    for _ in range(2):
        database.prepare(kept)
    with database.connect(kept).connect() as connection:
        rows = connection.execute(text("SELECT id, colour FROM threads")).all()
    assert [tuple(found) for found in rows] == [("t", "blue")]
    monkeypatch.setattr(database, "MIGRATIONS", [])
    with pytest.raises(AgentError, match="written by a newer medraft"):
        database.prepare(kept)


def test_a_migration_that_fails_leaves_all_as_it_was(
    kept: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(connection: Connection) -> None:
        connection.execute(text("DROP TABLE feedbacks"))
        connection.execute(text("ALTER TABLE nowhere ADD COLUMN x TEXT"))

    database.prepare(kept)
    monkeypatch.setattr(database, "MIGRATIONS", [half])
    with pytest.raises(AgentError, match="cannot be opened"):
        database.prepare(kept)
    monkeypatch.setattr(database, "MIGRATIONS", [])
    database.prepare(kept)
    with database.connect(kept).connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM feedbacks")).scalar() == 0


def test_tables_of_another_program_are_left_alone(kept: Settings) -> None:
    if kept.database_url is None:
        (kept.home / "history.db").touch()
    with database.connect(kept).begin() as connection:
        connection.execute(text("CREATE TABLE threads (id TEXT)"))
    with pytest.raises(AgentError, match="a table threads of another program"):
        database.prepare(kept)


def test_the_file_is_its_owners_only(tmp_path: Path) -> None:
    database.prepare(settings.load(home=tmp_path / "new" / "home"))
    mode = (tmp_path / "new" / "home" / "history.db").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_a_tilde_in_the_address_is_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    database.prepare(settings.load(database_url="sqlite:///~/kept.db"))
    assert (tmp_path / "kept.db").is_file()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("history", "MEDRAFT_DATABASE_URL is not an address"),
        ("mysql://ana:secret@host/histories", "names mysql, which medraft cannot use"),
        ("sqlite://", "names no file"),
        ("postgres://ana:secret@127.0.0.1:1/histories", "cannot be opened"),
        ("sqlite:////proc/nowhere/history.db", "cannot be written to"),
    ],
)
def test_a_wrong_address_is_one_sentence_without_its_password(
    address: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(AgentError, match=said) as refused:
        database.prepare(settings.load(home=tmp_path, database_url=address))
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_name_is_cut_at_a_word() -> None:
    assert shortened("A short one") == "A short one"
    assert shortened(" two\nlines\t and a\x07bell ") == "two lines and a bell"
    long = shortened("My head has hurt on one side since Tuesday, the light is far too bright")
    assert long == "My head has hurt on one side since Tuesday, the light is …"
    assert len(shortened("x" * 500)) == NAME


def message(number: int, kind: str, output: str, parent: str | None = None, **about: Any) -> Any:
    return step(number, "t", type=kind, output=output, parentId=parent, metadata=about)


def test_what_is_remembered_is_what_the_engine_remembered() -> None:
    thread = [
        message(1, "user_message", "My chest hurts."),
        message(2, "run", ""),
        message(3, "assistant_message", "Call 112.", notice=True),
        message(4, "assistant_message", "Sit down.", notice=True),
        message(5, "assistant_message", "It is\\:so", behaviour="RAG", answer="It is:so"),
        message(6, "user_message", "Only compared."),
        message(7, "assistant_message", "", comparison={}),
        message(8, "user_message", "Failed."),
        message(9, "system_message", "Something went wrong."),
        message(10, "user_message", "Stopped."),
        message(11, "assistant_message", "As far as it", behaviour="base"),
    ]
    assert threads.remembered(thread) == [
        ("user", "My chest hurts."),
        ("assistant", "Call 112.\n\nSit down.\n\nIt is:so"),
        ("user", "Stopped."),
        ("assistant", "As far as it"),
    ]


async def test_feedback_is_exported_with_what_was_judged(history: History, kept: Settings) -> None:
    ana = await person(history, "ana")
    await history.update_thread("t", name="Hello", user_id=ana.id)
    about = {"llm": "base", "retrieval": "auto", "sources": [{"doctor": "Rest."}]}
    for said in (
        message(1, "user_message", "Before."),
        message(2, "assistant_message", "Then.", behaviour="base"),
        message(3, "user_message", "My head hurts."),
        message(4, "run", "", "t-3"),
        message(5, "retrieval", "reason", "t-4"),
        message(6, "assistant_message", "Rest.", "t-4", behaviour="RAG", **about),
    ):
        await history.create_step(said)
    # Chainlit's page judges the run in which the answer came.
    await history.upsert_feedback(feedback=Feedback(forId="t-4", value=0, comment="Too short."))
    await history.upsert_feedback(feedback=Feedback(forId="t-2", value=0))
    await history.upsert_feedback(feedback=Feedback(forId="t-2", value=1))  # another opinion
    with database.reading(kept) as connection:  # while the page's connection is open
        first, second = feedback.rows(connection)
    assert {key: first[key] for key in about} == about
    assert (first["question"], first["answer"]) == ("My head hurts.", "Rest.")
    assert (first["behaviour"], first["value"], first["comment"]) == ("RAG", "down", "Too short.")
    assert first["before"] == [
        {"role": "user", "content": "Before."},
        {"role": "assistant", "content": "Then."},
    ]
    assert (second["question"], second["value"], second["before"]) == ("Before.", "up", [])


def test_feedback_without_a_history_is_one_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(AgentError, match=r"There is no history at .* yet"),
        database.reading(settings.load(home=tmp_path)),
    ):
        pass


def test_an_exported_conversation_is_text_and_no_markup() -> None:
    hostile = "<script>x</script> & ![p](https://third.example/p)"
    source = {"title": "Q. <b>*bold*</b>", "doctor": "One\n\n# Two", "score": 0.712}
    sources = [source | {"use": "used"}, source | {"use": "unused"}]
    typed = "- Rest, 1.5 l a day.\n    2. *Sleep*\n\n---`x`"
    compared = Comparison("t-1", "Why?")
    compared.columns[0].answer = "Rest in the dark."
    thread: Any = {
        "id": "t",
        "name": "# My *head*",
        "createdAt": WHEN.format(0),
        "steps": [
            message(1, "user_message", f"{hostile}\n# not a title\n{typed}"),
            message(2, "assistant_message", hostile, behaviour="RAFT", sources=sources),
            message(3, "system_message", "", **compared.metadata()),
        ],
    }
    thread["steps"][1]["feedback"] = {"id": "f", "forId": "t-2", "value": 0, "comment": "No."}
    text = export.markdown(thread, "en")
    assert "(RAFT)" in text
    assert "1. Q. \\<b\\>\\*bold\\*\\</b\\>, similarity 0.71\n   > One" in text
    assert ", similarity 0.71 (not used)" in text
    assert "Judged not helpful: No." in text
    assert "\n> \\# not a title" in text
    assert "\\<script>x\\</script> \\& !\\[p\\](https://third.example/p)" in text
    assert "![" not in text and "](" not in text.replace("\\](", "")
    lines = "> \\- Rest, 1.5 l a day.  \n> 2\\. \\*Sleep\\*  \n>\n> \\---\\`x\\`"
    assert lines in text
    assert "(base)\n\n> Rest in the dark." in text
    assert "<script>" not in text.replace("\\<", "")
    assert "Juzgado" not in text
    assert "Begun January 2, 2026" in text
    spanish = export.markdown(thread, "es")
    assert "Valorada como no útil: No." in spanish
    assert "Comenzada el 2 de enero de 2026, 3:04:05 UTC." in spanish
    assert "similitud 0,71" in spanish
    assert export.file_name(thread) == "medraft-2026-01-02-my-head.md"


def test_a_password_is_checked_by_its_hash_alone(tmp_path: Path) -> None:
    passwords = Passwords(tmp_path)
    assert passwords.put("ana", "her long secret") is True
    assert passwords.put("bén", "her long secret") is True
    stored = json.loads(passwords.path.read_text(encoding="utf-8"))
    assert stored["ana"] != stored["bén"]
    assert "secret" not in passwords.path.read_text(encoding="utf-8")
    assert passwords.check("ana", "her long secret")
    assert not passwords.check("ana", "her long secret ")
    assert not passwords.check("zoe", "her long secret")
    assert not passwords.check("zoe", "")
    before = passwords.fingerprint("ana")
    assert passwords.put("ana", "another secret") is False
    assert passwords.fingerprint("ana") != before
    passwords.remove("ana")
    assert passwords.names() == ["bén"]
    assert passwords.fingerprint("ana") is None
    assert passwords.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("name", "password", "said"),
    [
        ("", "long enough", "must be printable text"),
        (" ana", "long enough", "must be printable text"),
        ("a\nna", "long enough", "must be printable text"),
        ("ana", "short", "too short: use 8 characters"),
    ],
)
def test_a_name_or_a_password_that_cannot_be_used(
    name: str, password: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(AgentError, match=said):
        Passwords(tmp_path).put(name, password)
    assert not (tmp_path / "accounts.json").exists()


def test_damaged_accounts_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "accounts.json").write_text("[1, ")
    with pytest.raises(AgentError, match="cannot be read"):
        Passwords(tmp_path).names()
    with pytest.raises(AgentError, match="There is no account zoe"):
        Passwords(tmp_path / "empty").remove("zoe")
