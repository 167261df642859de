"""The end of the server, by Control-C or by who runs it: no page holds it up.

Owns what becomes of open requests then. Does not know what a conversation is.
"""

from __future__ import annotations

import asyncio

from agent.page import server_hooks
from agent.page.server import endpoint
from agent.serving.server import GRACE


def hang_up_at_the_end() -> None:
    """When the process is told to end, hang up on the pages that ask by long requests, and after
    GRACE seconds on the endpoint's clients.

    Those pages do whose web socket does not get through, and the server would wait for each request
    to be answered: up to 45 seconds, and for an answer of the endpoint's to its last word. Such a
    page connects again when there is a server.

    Call it in the event loop, when the server's own signal handlers are set.
    """
    closing: set[asyncio.Future[None]] = set()

    def hang_up() -> None:
        for page in server_hooks.pages_that_ask_by_long_requests():
            closing.add(asyncio.ensure_future(page.close(wait=False)))
        asyncio.get_running_loop().call_later(GRACE, endpoint.hang_up)

    server_hooks.when_told_to_end(hang_up)
