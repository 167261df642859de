"""The endpoint at the page's own port: `/v1` if it is wanted, `/ready` and `/metrics` always.

Owns which addresses are the endpoint's and not Chainlit's. Does not know what they answer.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from agent.chat.models import Models
from agent.page import server_hooks
from agent.serving.app import app
from agent.settings import Settings

_under_way: set[asyncio.Task[Any]] = set()  # what the endpoint is answering, a task a request


class Beside:
    """ASGI middleware, before those of the page: a key is no login of Chainlit's, and what the page
    refuses to other websites the endpoint refuses itself."""

    def __init__(self, page: ASGIApp, endpoint: ASGIApp, protocol: bool) -> None:
        self._page, self._endpoint = page, endpoint
        self._beginnings = ("/v1/",) if protocol else ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, one web socket or the lifespan."""
        path = scope.get("path", "")
        ours = path in ("/ready", "/metrics") or path.startswith(self._beginnings)
        if scope["type"] != "http" or not ours:
            await self._page(scope, receive, send)
            return
        task = asyncio.current_task()
        assert task is not None
        _under_way.add(task)
        try:
            await self._endpoint(scope, receive, send)
        finally:
            _under_way.discard(task)


def hang_up() -> None:
    """End what is being answered, as the server does that is the endpoint's alone."""
    for task in _under_way:
        task.cancel()


def serve(settings: Settings, models: Models) -> None:
    """Call it when all else is around the page: what comes last is asked first."""
    host, _ = server_hooks.serves_at()
    endpoint = app(settings, models, host, history=True)
    server_hooks.add_middleware(Beside, endpoint=endpoint, protocol=settings.endpoint)
