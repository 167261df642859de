"""The endpoint at the page's own port: `/v1` if it is wanted, `/ready` and `/metrics` always.

Owns which addresses are the endpoint's and not Chainlit's. Does not know what they answer.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from agent.chat.models import Models
from agent.page import chainlit_hooks
from agent.serving.app import app
from agent.settings import Settings


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
        served = self._endpoint if scope["type"] == "http" and ours else self._page
        await served(scope, receive, send)


def serve(settings: Settings, models: Models) -> None:
    """Call it when all else is around the page: what comes last is asked first."""
    host, _ = chainlit_hooks.serves_at()
    endpoint = app(settings, models, host, history=True)
    chainlit_hooks.add_middleware(Beside, endpoint=endpoint, protocol=settings.endpoint)
