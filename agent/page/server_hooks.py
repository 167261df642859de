"""The hooks into Chainlit's server: its app, its sockets, and who asks.

Owns how each of them is reached, and why it has to be, as `chainlit_hooks.py` does for what a
session needs; all were read in Chainlit 2.12.0, in the file that each names. Does not know what the
page does with them, and imports nothing of it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import chainlit as cl
from chainlit import server
from chainlit.auth.cookie import get_token_from_cookies
from chainlit.auth.jwt import decode_jwt
from chainlit.config import config, config_file
from chainlit.context import init_ws_context
from chainlit.oauth_providers import get_configured_oauth_providers
from chainlit.session import WebsocketSession
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
