"""`POST /v1/chat/completions`: a turn, in OpenAI's protocol.

Owns the objects of the protocol, and when an answer's status is decided: with its first words, so
that what fails before them is an error and no broken stream. What is decided about an answer is the
turn's (agent/chat), safety first of all. Does not know who may ask.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from agent.chat.events import Waiting
from agent.serving.body import while_listened
from agent.serving.errors import SOON, Refused, refusal
from agent.serving.request import Asked

if TYPE_CHECKING:
    from agent.serving.answer import Answer

log = logging.getLogger("medraft")

PATIENCE = 60.0  # seconds for a client to take a piece; one that does not holds an engine's slot
STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would keep the pieces together
]


class Room:
    """How many requests may be under way at once; more are told to come again."""

    def __init__(self, most: int) -> None:
        self._most, self._inside = most, 0

    def __enter__(self) -> None:
        if self._inside >= self._most:
            raise Refused(
                "Too many answers are under way: ask again soon.", 503, "overloaded", after=SOON
            )
        self._inside += 1

    def __exit__(self, *_: object) -> None:
        self._inside -= 1


class Completion:
    """The response to a request: an ASGI app that is called once. `begin` makes the answer."""

    def __init__(self, asked: Asked, begin: Callable[[], Answer], room: Room) -> None:
        self._asked, self._begin, self._room = asked, begin, room
        self._object: dict[str, Any] = {
            "object": "chat.completion.chunk" if asked.stream else "chat.completion",
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": asked.model,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; a client that hangs up ends it."""

        async def send_in_time(message: Any) -> None:
            async with asyncio.timeout(PATIENCE):
                await send(message)

        async def answer() -> None:
            try:
                with self._room:
                    told = await asyncio.to_thread(self._begin)
                    if self._asked.stream:
                        await self._stream(told, send_in_time)
                    else:
                        await self._whole(told, scope, receive, send_in_time)
            except Refused as refused:
                await refused.response()(scope, receive, send_in_time)

        try:
            await while_listened(receive, answer())
        except (OSError, TimeoutError):
            log.info("A client did not take its answer.")

    async def _whole(self, told: Answer, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with aclosing(told.pieces()) as pieces:
                async for _ in pieces:
                    pass
        except Exception as error:
            raise refusal(error) from None
        message: dict[str, Any] = {"role": "assistant", "content": told.content.strip()}
        message |= {"refusal": None, "annotations": told.annotations}
        choice = {"index": 0, "message": message, "finish_reason": told.finish, "logprobs": None}
        body = self._object | {"choices": [choice], "usage": _usage(told)}
        body |= {"medraft": told.record}
        await JSONResponse(body, headers={"Cache-Control": "no-store"})(scope, receive, send)

    async def _stream(self, told: Answer, send: Send) -> None:
        begun = False
        async with aclosing(self._events(told)) as events:
            async for event in events:
                if not begun:
                    await send({"type": "http.response.start", "status": 200, "headers": STREAM})
                begun = True
                body = {"type": "http.response.body", "body": event.encode(), "more_body": True}
                await send(body)
        await send({"type": "http.response.body", "body": b""})

    async def _events(self, told: Answer) -> AsyncGenerator[str, None]:
        """The stream's events. Raises Refused for what fails before the first."""
        begun = False
        try:
            async with aclosing(told.pieces()) as pieces:
                async for piece in pieces:
                    if not begun:
                        begun = True
                        yield self._chunk({"role": "assistant", "content": ""})
                    if isinstance(piece, Waiting):
                        yield f": {piece.before} before this one\n\n"
                    else:
                        yield self._chunk({"content": piece})
        except Exception as error:
            if not begun:
                raise refusal(error) from None
            yield _event(refusal(error).object)
            return
        yield self._chunk({"annotations": told.annotations}, told)
        if self._asked.include_usage:
            yield _event(self._object | {"choices": [], "usage": _usage(told)})
        yield "data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, Any], ended: Answer | None = None) -> str:
        """A piece of the answer, or its end."""
        choice = {"index": 0, "delta": delta, "finish_reason": ended and ended.finish}
        chunk = self._object | {"choices": [choice | {"logprobs": None}]}
        if self._asked.include_usage:
            chunk |= {"usage": None}
        if ended is not None:
            chunk |= {"medraft": ended.record}
        return _event(chunk)


def _event(value: object) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def _usage(told: Answer) -> dict[str, int]:
    timing = told.record["timing"] or {"prompt_tokens": 0, "tokens": 0}
    read, written = timing["prompt_tokens"], timing["tokens"]
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
