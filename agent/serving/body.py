"""A request's body, read with a bound; and work that ends when its client hangs up.

Owns how much is read, how long it is waited for, and how a lost client is noticed. Does not know
what a body says, nor what the work is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.requests import Request
from starlette.types import Receive

from agent.serving.errors import Refused

LARGEST = 1 << 20  # bytes of a body
READ_AWAY = 64 << 20  # bytes that are read of a larger one, so that its client hears why
PATIENCE = 30.0  # seconds for a body


async def read(request: Request) -> bytes:
    """The whole body. Raises Refused if it is too large or too slow, ClientDisconnect."""
    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(PATIENCE):
            async for piece in request.stream():
                size += len(piece)
                if size <= LARGEST:
                    body += piece
                elif size > READ_AWAY:
                    break
    except TimeoutError:
        raise Refused("The request's body did not come in time.", 408, "too_slow") from None
    if size > LARGEST:
        raise Refused(
            f"The request's body is larger than {LARGEST:,} bytes: send a shorter conversation.",
            413,
            "request_too_large",
        )
    return bytes(body)


async def while_listened(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do `work`, and cancel it once the client is gone, by when it has ended.

    The request's body must have been read.
    """
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_until_gone(receive))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait({working})
    if not working.cancelled():
        working.result()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
