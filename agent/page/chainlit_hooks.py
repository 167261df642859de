"""Every hook into Chainlit's inside: what the page needs and no documentation of it gives.

Owns how each of them is reached, and why it has to be. All were read in Chainlit 2.12.0, in the
file that each names; pyproject.toml keeps to 2.12, and another version is let in when they have
been read again. Does not know what the page does with them, and imports nothing of it.

What is documented (`cl`, `chainlit.types`, `chainlit.input_widget`, the data layer's base, the
emitter's `set_commands` and `set_modes`, `chat_settings` of a session) is used where it is needed.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from types import FrameType
from typing import Any

import chainlit as cl
from chainlit import server
from chainlit.auth.cookie import get_token_from_cookies
from chainlit.auth.jwt import decode_jwt
from chainlit.chat_context import chat_contexts
from chainlit.config import config, config_file
from chainlit.context import context_var, get_context, init_ws_context
from chainlit.element import ElementDict
from chainlit.oauth_providers import get_configured_oauth_providers
from chainlit.session import WebsocketSession, ws_sessions_id
from chainlit.types import ThreadDict, ToastType
from chainlit.user import PersistedUser
from chainlit.user_session import user_sessions
from chainlit.utils import wrap_user_function
from fastapi import APIRouter, HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

CONFIG_FILE = config_file  # config.py; named where it is wrong
CurrentUser = server.UserParam  # server.py; a route's parameter: the user of the request, or None
# server.py; Chainlit's own routes, which ask nobody whose answer it is.
give_feedback, take_feedback_back = server.update_feedback, server.delete_feedback
# oauth_providers.py; those that are configured by OAUTH_* variables.
oauth_providers = get_configured_oauth_providers


# The server


def serves_at() -> tuple[str, int]:
    """Host and port of `chainlit run`: its options reach the app in no other way (config.py)."""
    return config.run.host, config.run.port


def loads_again() -> bool:
    """Whether it was run with --watch: then the app is loaded again while it serves (config.py)."""
    return config.run.watch


def allowed_origins() -> list[str]:
    """`allow_origins` of the configuration, which Chainlit itself does not heed on the web socket
    (config.py; server.py, `sio`)."""
    return config.project.allow_origins


def add_middleware(middleware: Any, **options: Any) -> None:
    """Around all that Chainlit serves, web sockets too; once, since --watch loads the app again
    and Starlette takes none once it serves (server.py, `app`)."""
    if server.app.middleware_stack is None:
        server.app.add_middleware(middleware, **options)


def change_the_html(change: Callable[[str], str]) -> None:
    """Send Chainlit's one HTML page as `change` leaves it: no setting takes a tag out of it, and a
    middleware would have to read every response (server.py, `get_html_template`)."""
    if server.app.middleware_stack is None:
        page = server.get_html_template
        server.get_html_template = lambda root_path: change(page(root_path))


def add_routes(router: APIRouter) -> None:
    """Before Chainlit's own, the last of which takes every address; once, because of --watch
    (server.py, `serve`)."""
    routes = server.app.router.routes
    if router.routes[0] not in routes:
        routes[:0] = router.routes


def leave_out_of_the_log(beginning: str) -> None:
    """Chainlit's own logger has no levels that would tell this line from others (logger.py)."""
    logging.getLogger("chainlit").addFilter(
        lambda record: not record.getMessage().startswith(beginning)
    )


def when_told_to_end(call: Callable[[], None]) -> None:
    """Have `call` called in the event loop at SIGINT and SIGTERM, after the server's own handlers:
    its shutdown event comes when all requests have ended, which is too late (server.py,
    `lifespan`). Call it in the event loop, once those handlers are set."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        end: Any = signal.getsignal(number)

        def end_and_call(number: int, frame: FrameType | None, end: Any = end) -> None:
            end(number, frame)
            loop.call_soon_threadsafe(call)

        signal.signal(number, end_and_call)


def take_in(size: int) -> None:
    """Messages of so many bytes: engineio ends the connection at a longer one, and the page shows a
    letter of a million characters as sent, and never an answer (base_server.py)."""
    server.sio.eio.max_http_buffer_size = size


def pages_that_ask_by_long_requests() -> list[Any]:
    """engineio's sockets that are no web sockets; those the server closes itself (server.py,
    `sio`)."""
    return [page for page in server.sio.eio.sockets.values() if not page.upgraded]


def when_a_browser_is_back(show: Callable[[], Awaitable[None]]) -> None:
    """Have `show` called, in the session's context, when a lost connection is there again in the
    middle of a conversation: Chainlit goes on as if nothing had been missed, and has no callback
    for it (socket.py, `connection_successful`)."""
    come_back = server.sio.handlers["/"]["connection_successful"]
    if come_back.__name__ == "and_show":  # --watch loads the app again
        return

    async def and_show(sid: str) -> None:
        await come_back(sid)
        session = WebsocketSession.get(sid)
        if session is not None and session.restored and session.has_first_interaction:
            init_ws_context(session)
            await show()

    server.sio.on("connection_successful", and_show)


def look_at_who_connects() -> None:
    """Chainlit takes any text of a browser's for the id of its session, whose files lie in the
    folder of that name and are removed with it: "/data" would be another folder (session.py,
    `files_dir`, `delete`). Only what `uuid` writes is let in.

    And a page that is loaded at a thread's address connects twice on a busy machine, before it
    knows its thread and after, as one session: Chainlit restores the first, and shows an empty page
    (socket.py, `connect`, `connection_successful`). The thread that is asked for is resumed.
    """
    connect = server.sio.handlers["/"]["connect"]
    if connect.__name__ == "and_resume":  # --watch loads the app again
        return

    async def and_resume(sid: str, environ: dict[str, Any], auth: dict[str, Any]) -> bool:
        if not _is_uuid(auth.get("sessionId")):
            raise ConnectionRefusedError("the id of a session is a UUID")
        let_in: bool = await connect(sid, environ, auth)
        session, thread = WebsocketSession.get(sid), auth.get("threadId")
        if thread and session and session.restored and not session.has_first_interaction:
            if session.current_task is not None:
                session.current_task.cancel()
            session.thread_id = session.thread_id_to_resume = thread
            session.restored = False
        return let_in

    server.sio.on("connect", and_resume)


def _is_uuid(told: object) -> bool:
    try:
        return str(uuid.UUID(str(told))) == told
    except ValueError:
        return False


# Who asks


def user_of(request: HTTPConnection) -> cl.User | None:
    """Whom the login of a request names, None if there is none; its cookie may be cut into several.
    Raises jwt's InvalidTokenError, or TypeError (auth/cookie.py, auth/jwt.py)."""
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
    login = get_token_from_cookies(request.cookies) or bearer
    return decode_jwt(login) if login else None


async def page_with_login(request: Request) -> Response:
    """Chainlit's page, and the login of whoever the request's headers name with it: left alone the
    page is loaded, finds nobody logged in, and is loaded twice more (server.py, `serve`,
    `header_auth`)."""
    page: Response = await server.serve(request)
    if config.code.header_auth_callback and not get_token_from_cookies(request.cookies):
        with suppress(HTTPException):  # nobody who may log in; the page says so
            login = await server.header_auth(request)
            page.raw_headers += [each for each in login.raw_headers if each[0] == b"set-cookie"]
    return page


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
