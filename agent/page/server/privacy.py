"""Whom the patient's browser talks to: this server, and nobody else.

Owns the response headers, what browsers may keep, the refusal of requests that another website
sends, and the removal of third-party addresses from Chainlit's page. Knows nothing of
conversations.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.page import server_hooks
from agent.serving.address import is_foreign

HEADERS = {
    # Chainlit's page needs its inline scripts and styles. It fetches public/elements/Compare.jsx
    # from here as text and evaluates it: that is what 'unsafe-eval' is for.
    "Content-Security-Policy": "default-src 'self'; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "connect-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",  # for browsers that do not know frame-ancestors
}
# Browsers heed it on HTTPS only, and then for a year, whatever else serves the page by then.
ON_HTTPS = {"Strict-Transport-Security": "max-age=31536000"}
# The same for everybody. All else may hold what a patient said: whoever uses the browser next
# finds none of it on the disk, nor by "back" after a logout.
CACHEABLE = ("/assets/", "/public/", "/avatars/", "/logo", "/favicon")
# A `preconnect` link opens its connection before any policy is asked: such tags must go.
THIRD_PARTY_TAG = re.compile(r"<(?:link|meta)\b[^>]*\b(?:href|content)=\"https?://[^>]*>\s*")


class Privacy:
    """ASGI middleware: `HEADERS` on every response; 403 to the page of any other website.

    Chainlit's web socket takes every origin, so that without this any website that a patient
    visits could chat here in the patient's name. `origins` are let in besides our own.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, one web socket or the lifespan."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif self._foreign(Headers(scope=scope)):
            refusal = PlainTextResponse("This website may not talk to medraft.", 403)
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await refusal(scope, receive, send)
        else:
            await self._app(scope, receive, _with_headers(send, scope))

    def _foreign(self, headers: Headers) -> bool:
        return is_foreign(headers) and headers.get("origin") not in self._origins


def protect() -> None:
    """Make all that Chainlit serves private."""
    server_hooks.add_middleware(Privacy, origins=server_hooks.allowed_origins())
    server_hooks.change_the_html(lambda html: THIRD_PARTY_TAG.sub("", html))


def _with_headers(send: Send, scope: Scope) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(HEADERS)
            # Behind a proxy on this machine that sends X-Forwarded-Proto; uvicorn sees to that.
            if scope["scheme"] == "https":
                headers.update(ON_HTTPS)
            if not scope["path"].startswith(CACHEABLE):
                headers["Cache-Control"] = "no-store"
        await send(message)

    return send_with_headers
