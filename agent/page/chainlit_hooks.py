"""The hooks into Chainlit's inside: what the page needs and no documentation of it gives, of a
session, its turns and its screen. Those into its server are in `server_hooks.py`.

Owns how each of them is reached, and why it has to be. All were read in Chainlit 2.12.0, in the
file that each names; pyproject.toml keeps to 2.12, and another version is let in when they have
been read again. Does not know what the page does with them, and imports nothing of it.

What is documented (`cl`, `chainlit.types`, `chainlit.input_widget`, the data layer's base, the
emitter's `set_commands` and `set_modes`, `chat_settings` of a session) is used where it is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import chainlit as cl
from chainlit import server
from chainlit.chat_context import chat_contexts
from chainlit.config import config
from chainlit.context import context_var, get_context, init_ws_context
from chainlit.element import ElementDict
from chainlit.session import WebsocketSession, ws_sessions_id
from chainlit.types import ThreadDict, ToastType
from chainlit.user import PersistedUser
from chainlit.user_session import user_sessions
from chainlit.utils import wrap_user_function

# The session


def is_there() -> bool:
    """A request beside the chat, as to rename a thread, has none (context.py)."""
    return context_var.get(None) is not None


def thread_id() -> str:
    """The thread of this session (session.py)."""
    return get_context().session.thread_id


def user_id() -> str | None:
    """The id in the database of the user whose session this is (session.py)."""
    user = get_context().session.user
    return user.id if isinstance(user, PersistedUser) else None


def language_tag() -> str | None:
    """What this session's browser prefers (session.py)."""
    session = get_context().session
    return session.language if isinstance(session, WebsocketSession) else None


def choose(values: dict[str, Any]) -> None:
    """Into the settings, as if the panel had been confirmed (session.py, `chat_settings`)."""
    get_context().session.chat_settings |= values


def never_resume_again() -> None:
    """At every lost connection Chainlit would resume the thread again, and begin anew in the middle
    of a turn (socket.py, `connection_successful`)."""
    session = get_context().session
    session.thread_id_to_resume, session.chat_started = None, True


def others_of_this_thread(key: str) -> list[Any]:
    """What other sessions of this session's thread keep as `key`: a page that is loaded again has a
    new one, and `cl.user_session` knows the own only (session.py, user_session.py)."""
    here = get_context().session
    sessions = [each for each in ws_sessions_id.values() if each.thread_id == here.thread_id]
    kept = [user_sessions.get(each.id, {}).get(key) for each in sessions if each is not here]
    return [each for each in kept if each is not None]


def forget_ended_sessions() -> None:
    """Chainlit keeps the messages of every session for ever: let go of those that are over
    (chat_context.py)."""
    for session_id in chat_contexts.keys() - ws_sessions_id.keys():
        del chat_contexts[session_id]


# What runs


def on_chat_start(call: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """`cl.on_chat_start`, but for its end, where it tells the page that no answer is coming, also
    if one was asked for meanwhile (callbacks.py, `with_task`)."""
    config.code.on_chat_start = wrap_user_function(cl.step(call, name="on_chat_start", type="run"))
    return call


def on_chat_resume(call: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """`cl.on_chat_resume`, but for the same end."""
    config.code.on_chat_resume = wrap_user_function(call)
    return call


def on_leaving(call: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """For when the patient opens another conversation, and Chainlit lets go of this session: what
    runs in it would go on for nobody (socket.py, `clean_session`, `disconnect`)."""

    async def if_for_good() -> None:
        session = get_context().session
        if isinstance(session, WebsocketSession) and session.to_clear:
            await call()

    config.code.on_chat_end = wrap_user_function(if_for_good)
    return call


def on_settings_update(call: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """`cl.on_settings_update`, but for the same end."""
    config.code.on_settings_update = wrap_user_function(call)
    return call


def on_message(call: Callable[[cl.Message], Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """`cl.on_message`, its task the newest from the first moment: Chainlit knows that of a new
    message only, not of an edited one (session.py, `current_task`; socket.py, `edit_message`)."""
    cl.on_message(call)
    run = config.code.on_message

    async def newest(message: cl.Message) -> None:
        get_context().session.current_task = asyncio.current_task()
        await run(message)

    config.code.on_message = newest
    return call


def on_stop(call: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """In place of Chainlit's own, which says so in English, stores that, and ends a message's task
    even before the app knows the message: then nobody says what became of it (socket.py, `stop`).
    """

    async def stop(sid: str) -> None:
        if (session := WebsocketSession.get(sid)) is not None:
            init_ws_context(session)
            await call()

    server.sio.on("stop", stop)
    return call


def run_behind(work: Coroutine[Any, Any, None]) -> None:
    """As the newest task: a click is a request of its own, which must not last as long as an answer
    (session.py, `current_task`; server.py, `call_action`)."""
    get_context().session.current_task = asyncio.create_task(work)


def newest_task() -> asyncio.Task[Any] | None:
    """What the last message of this session began; it may have ended (session.py)."""
    return get_context().session.current_task


async def say_busy() -> None:
    """Have the page show Stop: the end of any turn takes it away (emitter.py, `task_start`)."""
    await get_context().emitter.task_start()


@asynccontextmanager
async def busy() -> AsyncIterator[None]:
    """The page shows Stop while the block lasts (emitter.py)."""
    await say_busy()
    try:
        yield
    finally:
        await get_context().emitter.task_end()


async def answer_again(message: cl.Message) -> None:
    """As if the message had come anew, in a run of its own, which the app's `on_message` alone does
    not begin (callbacks.py, `on_message`; socket.py, `process_message`)."""
    async with busy():
        await config.code.on_message(message)


def run_id() -> str | None:
    """The run that Chainlit has put around this turn, below which all of it stands (context.py)."""
    run = get_context().current_run
    return run and run.id


def step_id() -> str | None:
    """The step around what runs now (context.py)."""
    step = get_context().current_step
    return step and step.id


# The screen, and nothing but the screen: `cl.Message` stores what it sends (emitter.py)


async def show_unstored(message: cl.Message) -> None:
    """A message that no history holds."""
    await get_context().emitter.send_step(message.to_dict())


async def change_unstored(message: cl.Message) -> None:
    """Its new text."""
    await get_context().emitter.update_step(message.to_dict())


async def take_unstored_away(message: cl.Message) -> None:
    """Its end."""
    await get_context().emitter.delete_step(message.to_dict())


async def draw(element: ElementDict) -> None:
    """An element without the file in a store that `cl.CustomElement` writes at each update."""
    await get_context().emitter.send_element(element)


async def show_thread(thread: ThreadDict) -> None:
    """All of it, in place of what is shown."""
    await get_context().emitter.resume_thread(thread)


async def toast(text: str, kind: ToastType = "info") -> None:
    """A line that goes by itself."""
    await get_context().emitter.send_toast(text, kind)


async def open_panel(key: str, title: str, text: cl.Text) -> None:
    """`text` alone in the panel beside the chat. `cl.ElementSidebar` would send the element to the
    chat, too, which closes the panel again (sidebar.py)."""
    session, emitter = get_context().session, get_context().emitter
    # Another server that was started in this folder empties it when it ends.
    session.files_dir.mkdir(parents=True, exist_ok=True)
    stored = await session.persist_file(name=text.name, mime="text/plain", content=text.content)
    text.chainlit_key = stored["id"]
    await emitter.emit("set_sidebar_elements", {"elements": [text.to_dict()], "key": key})
    await emitter.emit("set_sidebar_title", title)
