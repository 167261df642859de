"""The end of the server, by Control-C or by who runs it: no page holds it up.

Owns what becomes of open requests then. Does not know what a conversation is.
"""

from __future__ import annotations

import asyncio
import signal
from types import FrameType
from typing import Any


def hang_up_at_the_end(sio: Any) -> None:
    """When the process is told to end, hang up on the pages that ask by long requests.

    Those do whose web socket does not get through, and the server would wait for each request to
    be answered: up to 45 seconds. Such a page connects again when there is a server.

    Call it in the event loop, when the server's own signal handlers are set.
    """
    loop = asyncio.get_running_loop()
    closing: set[asyncio.Future[None]] = set()

    def hang_up() -> None:
        for page in list(sio.eio.sockets.values()):
            if not page.upgraded:  # a web socket is closed by the server itself
                closing.add(asyncio.ensure_future(page.close(wait=False)))

    for number in (signal.SIGINT, signal.SIGTERM):
        end: Any = signal.getsignal(number)

        def end_and_hang_up(number: int, frame: FrameType | None, end: Any = end) -> None:
            end(number, frame)
            loop.call_soon_threadsafe(hang_up)

        signal.signal(number, end_and_hang_up)
