"""Who is logged in: the one user of this machine, an account, a proxy's user, or OAuth's.

Owns which ways in there are, the name that each gives a user in the database, and that a login
ends with what it stood on. Does not know what users say, nor how passwords are kept.

Users of different ways in are different users: whoever calls themselves `alice` at an OAuth
provider is not the `alice` who has a password here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

import chainlit as cl
from jwt import InvalidTokenError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.errors import AgentError
from agent.page import server_hooks
from agent.serving.address import is_loopback, is_this_machine
from agent.settings import Settings
from agent.storage.passwords import Passwords

log = logging.getLogger("medraft")

LOCAL = cl.User("local", display_name="medraft", metadata={"provider": "local"})
StillHolds = Callable[[cl.User, Headers], bool]


def check(settings: Settings, host: str) -> None:
    """Raises AgentError if everybody who reaches `host` could read and write the one history."""
    if not (is_loopback(host) or _ways_in(settings)):
        raise AgentError(
            f"At {host} the page would be open to everybody who reaches it: add accounts with "
            "medraft accounts add NAME, set MEDRAFT_USER_HEADER or Chainlit's OAUTH_* variables, "
            "or serve it at 127.0.0.1."
        )


def open_ways_in(settings: Settings) -> None:
    """Tell Chainlit who may log in, and whose login still holds."""
    ways = _ways_in(settings)
    if "password" in ways:
        _take_passwords(Passwords(settings.home))
    if settings.user_header:
        _take_header(settings.user_header)
    if server_hooks.oauth_providers():
        cl.oauth_callback(_of_provider)
    if not ways:
        ways["local"] = lambda _, headers: is_this_machine(headers)
        cl.header_auth_callback(_local_user)
    server_hooks.add_middleware(Logins, ways=ways)


def _ways_in(settings: Settings) -> dict[str, StillHolds]:
    """The ways in that are configured, each with whether a login by it holds for a request."""
    ways: dict[str, StillHolds] = dict.fromkeys(
        server_hooks.oauth_providers(), lambda user, headers: True
    )
    passwords = Passwords(settings.home)
    if passwords.names():
        ways["password"] = lambda user, _: _unchanged(user, passwords)
    if header := settings.user_header:
        ways["header"] = lambda user, headers: user.identifier == f"header:{headers.get(header)}"
    return ways


class Logins:
    """ASGI middleware: a login that does not hold any more is none; cookies are Secure on HTTPS.

    Chainlit trusts what it has signed for 15 days, whatever has become of the account, and
    whomever the proxy names by then.
    """

    def __init__(self, app: ASGIApp, ways: Mapping[str, StillHolds]) -> None:
        self._app = app
        self._ways = ways

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, one web socket or the lifespan."""
        if scope["type"] != "lifespan":
            request = HTTPConnection(scope)
            # It may read a file, and must not wait behind the models, which have asyncio's threads.
            if not await run_in_threadpool(self._holds, request):
                headers = scope["headers"]
                login = (b"cookie", b"authorization")
                scope["headers"] = [pair for pair in headers if pair[0].lower() not in login]
            # Behind a proxy on this machine that sends X-Forwarded-Proto; uvicorn sees to that.
            if request.url.scheme in ("https", "wss"):
                send = _with_secure_cookies(send)
        await self._app(scope, receive, send)

    def _holds(self, request: HTTPConnection) -> bool:
        try:
            user = server_hooks.user_of(request)
            if user is None:
                return True
            holds = self._ways.get(str(user.metadata.get("provider")))
            return holds is not None and holds(user, request.headers)
        except (InvalidTokenError, TypeError):  # not signed here, expired, or not a user
            return False
        except AgentError as error:
            log.error("%s", error)
            return False


def _take_passwords(passwords: Passwords) -> None:
    one_at_a_time = asyncio.Lock()  # a hash takes memory and time, and so does guessing

    @cl.password_auth_callback
    async def log_in(username: str, password: str) -> cl.User | None:
        async with one_at_a_time:
            known = await asyncio.to_thread(passwords.check, username, password)
        if not known:
            return None
        proof = await asyncio.to_thread(passwords.fingerprint, username)
        about = {"provider": "password", "proof": proof}
        return cl.User(f"password:{username}", display_name=username, metadata=about)


def _take_header(header: str) -> None:
    @cl.header_auth_callback
    async def log_in(headers: Headers) -> cl.User | None:
        name = headers.get(header)
        about = {"provider": "header"}
        return cl.User(f"header:{name}", display_name=name, metadata=about) if name else None


async def _of_provider(
    provider_id: str,
    token: str,
    raw_user_data: dict[str, str],
    default_user: cl.User,
    id_token: str | None = None,
) -> cl.User | None:
    name = default_user.identifier
    about = default_user.metadata | {"provider": provider_id}
    return cl.User(f"{provider_id}:{name}", display_name=name, metadata=about)


async def _local_user(headers: Headers) -> cl.User | None:
    if is_this_machine(headers):
        return LOCAL
    log.warning(
        "A login was refused: this server is for one user on this machine, and the request came "
        "by another name or through a proxy. docs/page.md says how to serve more."
    )
    return None


def _unchanged(user: cl.User, passwords: Passwords) -> bool:
    proof = passwords.fingerprint(user.identifier.removeprefix("password:"))
    return proof is not None and proof == user.metadata.get("proof")


def _with_secure_cookies(send: Send) -> Send:
    async def send_secure(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            cookies = headers.getlist("set-cookie")
            del headers["set-cookie"]
            for cookie in cookies:
                marked = "; secure" in cookie.lower()
                headers.append("set-cookie", cookie if marked else f"{cookie}; Secure")
        await send(message)

    return send_secure
