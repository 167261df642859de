"""A server that speaks OpenAI's protocol as the test tells it: well, badly, or in a dialect."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from agent import settings
from agent.llms import engines
from agent.llms.interface import Engine


@dataclass
class Reply:
    """Bytes to send, at once and when the server may go on; then the connection is closed, or held
    until the client is gone."""

    sent: bytes = b""
    later: bytes = b""
    hangs: bool = False


def page(body: str, status: int = 200, **headers: str) -> Reply:
    head = [f"HTTP/1.1 {status} .", f"Content-Length: {len(body)}", "Connection: close"]
    head += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return Reply("\r\n".join([*head, "", body]).encode())


def stream(*events: object, end: bytes = b"") -> Reply:
    """Events of a stream (text as it is, all else as JSON), without the last chunk of HTTP."""
    sent = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for event in events:
        data = f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode()
        sent += f"{len(data):x}\r\n".encode() + data + b"\r\n"
    return Reply(sent + end)


def word(text: str, finish: str | None = None, **more: object) -> dict[str, object]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return {"object": "chat.completion.chunk", "choices": [choice], **more}


CLOSED = b"0\r\n\r\n"
WORDS = [word("Rest "), word("it.")]
GOOD = stream(*WORDS, word("", "stop"), "[DONE]", end=CLOSED)
MODELS = {"data": [{"id": "llama", "max_model_len": 2048}, {"id": "doctor", "parent": "llama"}]}


@dataclass
class Misbehaving:
    """Answers chats by its script, whose last line is repeated, and other paths by its pages."""

    script: list[Reply] = field(default_factory=list)
    pages: dict[str, Reply] = field(
        default_factory=lambda: {"/v1/models": page(json.dumps(MODELS))}
    )
    chats: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    listening: asyncio.Server = field(init=False)
    url: str = field(init=False)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
        body: Any = json.loads(await reader.readexactly(int(length[1]))) if length else None
        path = head.split()[1]
        if path == "/v1/chat/completions":
            self.chats.append(body)
            self.came.set()
            reply = self.script[min(len(self.chats), len(self.script)) - 1]
        else:
            self.asked.append((path, body))
            reply = self.pages.get(path, page("no such page", 404))
        with contextlib.suppress(ConnectionError):
            writer.write(reply.sent)
            await writer.drain()
            if reply.later:
                await self.may_go_on.wait()
                writer.write(reply.later)
            if reply.hangs:
                await reader.read()
                self.left.set()
        writer.close()

    async def engine(self, **values: Any) -> Engine:
        """Loaded as the agent loads it: in a thread, while the loop goes on."""
        chosen = settings.load(engine="openai_like", base_url=self.url, **values)
        return await asyncio.to_thread(engines.load, chosen)
