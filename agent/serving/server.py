"""A server of the endpoint alone: `medraft serve`.

Owns what is checked before anything slow, and the server's start and end. Does not know what it
serves.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module

import uvicorn
from starlette.applications import Starlette

from agent.chat import otel
from agent.chat.models import Models
from agent.llms import choice
from agent.serving import access
from agent.serving.address import check_port
from agent.serving.app import app
from agent.settings import Settings
from agent.storage import database
from index_store import manifest
from index_store.embedding import identity

GRACE = 3  # seconds for answers under way when the server is told to end


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve until the process is told to end. Raises AgentError or StoreError before."""
    choice.check(settings)
    manifest.read(settings.index_dir, identity(settings.embed_model))
    access.check(settings, host)
    if settings.database_url:
        database.prepare(settings)
    check_port(host, port)
    otel.begin()
    import_module("agent.serving.beginning")  # heavy: no emergency must wait for it
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("medraft").setLevel(logging.INFO)
    models = Models(settings)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        models.load()
        shown = f"[{host}]" if ":" in host else host
        print(f"OpenAI's protocol at http://{shown}:{port}/v1", file=sys.stderr, flush=True)
        yield
        await otel.end()

    endpoint = app(settings, models, host, history=False)
    endpoint.router.lifespan_context = lifespan
    # Its own log of requests would say who asks, and nothing that /metrics does not count.
    uvicorn.run(
        endpoint,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
