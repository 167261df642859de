"""What tests of the endpoint share: a real server, in the test's own event loop."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from llama_index.core.base.llms.types import ChatResponseAsyncGen

from agent import settings
from agent.chat import models
from agent.chat.loading import Agent
from agent.chat.models import Models
from agent.llms.interface import Engine
from agent.serving.app import app

from browsing import free_port
from scripted import ScriptedLLM

HELLO = [{"role": "user", "content": "Hello there"}]


class Heard(ScriptedLLM):
    """Keeps the sampling it was asked with, too."""

    def __init__(self, window: int = 4096) -> None:
        super().__init__(window)
        self.sampling: list[dict[str, Any]] = []

    async def astream_chat(self, messages: Any, **sampling: Any) -> ChatResponseAsyncGen:
        self.sampling.append(sampling)
        return await super().astream_chat(messages, **sampling)

    @property
    def prompt(self) -> list[tuple[str, str]]:
        """The last one, as (role, text)."""
        return [(m.role.value, m.content or "") for m in self.prompts[-1]]


class Served:
    """A served endpoint and a client of it."""

    def __init__(self, client: httpx.AsyncClient, url: str, port: int) -> None:
        self.client, self.url, self.port = client, url, port

    async def ask(self, messages: Any = HELLO, model: str = "base", **more: Any) -> httpx.Response:
        body = {"model": model, "messages": messages, **more}
        return await self.client.post("/v1/chat/completions", json=body)

    async def answer(self, *arguments: Any, **more: Any) -> dict[str, Any]:
        response = await self.ask(*arguments, **more)
        assert response.status_code == 200, response.text
        return response.json()

    async def until_ready(self, part: str = "ready") -> None:
        """`part`: "models" for them alone."""
        for _ in itertools.count():
            if (await self.client.get("/ready")).json()[part] in (True, "ready"):
                return
            await asyncio.sleep(0.01)


def loaded(llm: Any, retriever: Any = None, embedding: Any = None, **values: Any) -> Agent:
    """An agent of one scripted LLM, base and fine-tuned."""
    chosen = settings.load(**{"max_tokens": 100, "llm": "base"} | values)
    engine = Engine("scripted", "scripted", base=llm, fine_tuned=llm)
    return Agent(chosen, engine, embedding, retriever)


async def until(condition: Callable[[], object]) -> None:
    """Return when it holds; the test's own timeout is the only one."""
    for _ in itertools.count():
        if condition():
            return
        await asyncio.sleep(0.005)


class _Server(uvicorn.Server):
    """uvicorn's, which ends when it is told to and not within two tenths of a second: hundreds of
    tests start one."""

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await until(lambda: self.should_exit)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await until(lambda: not self.server_state.connections and not self.server_state.tasks)


@asynccontextmanager
async def serving(
    load: Any, chosen: settings.Settings, host: str = "127.0.0.1", history: bool = False
) -> AsyncIterator[Served]:
    """An endpoint until the block ends, as if it listened at `host`; `load` gives its agent."""
    kept, models._load = models._load, lambda settings: load()
    port = free_port()
    endpoint = app(chosen, Models(chosen), host, history)
    config = uvicorn.Config(endpoint, port=port, log_level="warning", lifespan="off")
    server = _Server(config)
    running = asyncio.create_task(server.serve())
    url = f"http://127.0.0.1:{port}"
    try:
        await until(lambda: server.started)
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            yield Served(client, url, port)
    finally:
        server.should_exit = True
        await running
        models._load = kept
