"""Whether this process lives, whether it can answer, and its figures.

Owns what must be there for an answer, and how it is told which part is not. Does not know how any
of it is loaded or mended, nor what is counted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent.chat.metrics import exposition
from agent.chat.models import Models
from agent.errors import AgentError
from agent.serving.access import Access
from agent.serving.errors import SOON
from agent.settings import Settings
from agent.storage import database
from index_store.errors import StoreError

log = logging.getLogger("medraft")

KEPT = 1.0  # seconds for which what the database answered holds
PATIENCE = 2.0  # seconds for its answer; a container's healthcheck waits 10

# No more than that: everybody may ask, and a sentence names files and addresses.
State = Literal["ready", "loading", "failed", "not used"]


async def health(request: Request) -> Response:
    """200: the process lives."""
    return JSONResponse({"status": "ok"})


class Metrics:
    """`GET /metrics`: the figures of this process, for who may ask it anything else."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def get(self, request: Request) -> Response:
        """In Prometheus's text format. Raises Refused."""
        await self._access.check(request)
        return Response(exposition(), media_type=CONTENT_TYPE_PLAIN_0_0_4)


class Ready:
    """`GET /ready`: 200 if models, index and database are there; else 503, and which is not.

    `history`: whether a history is kept here, so that its database must answer.
    """

    def __init__(self, settings: Settings, models: Models, history: bool) -> None:
        self._models = models
        self._database = _Database(settings) if history or settings.database_url else None

    async def get(self, request: Request) -> Response:
        """Also begins a load that failed anew: what it lacked may be there by now."""
        models, index = self._loaded()
        self._models.load()
        database = "not used" if self._database is None else await self._database.state()
        parts = {"models": models, "index": index, "database": database}
        ready = all(state in ("ready", "not used") for state in parts.values())
        headers = {"Cache-Control": "no-store"}
        if not ready:
            headers["Retry-After"] = str(SOON)
        return JSONResponse({"ready": ready, **parts}, 200 if ready else 503, headers)

    def _loaded(self) -> tuple[State, State]:
        """Of models and index; what is wrong with them is in the log."""
        if self._models.there:
            return "ready", "ready"
        match self._models.error:
            case None:
                return "loading", "loading"
            case StoreError():
                return "loading", "failed"
        return "failed", "loading"


class _Database:
    """Asks the database, one question at a time however many ask for its answer, in a thread of
    its own: one that hangs holds up nothing else."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, "ready")
        self._asked: asyncio.Future[str] | None = None
        self._since = 0.0
        self._logged = ""

    async def state(self) -> State:
        now = time.monotonic()
        if self._asked is None or (self._asked.done() and now - self._since >= KEPT):
            loop = asyncio.get_running_loop()
            self._asked, self._since = loop.run_in_executor(self._thread, self._ask), now
        await asyncio.wait({self._asked}, timeout=max(0.0, self._since + PATIENCE - now))
        done = self._asked.done()
        failure = self._asked.result() if done else "The history's database does not answer."
        if failure and failure != self._logged:
            log.warning("%s", failure)
        self._logged = failure
        return "failed" if failure else "ready"

    def _ask(self) -> str:
        """What is wrong with it; nothing: ""."""
        try:
            database.check(self._settings)
        except AgentError as error:
            return str(error)
        return ""
