"""The endpoint: OpenAI's protocol before the agent, and what watches over it, as one ASGI app.

Owns its addresses, and that whatever goes wrong is told in OpenAI's form. Does not know what serves
it: a server of its own (`server.py`), or the page's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from agent.behaviour import CHOICES
from agent.chat.models import Models
from agent.errors import AgentError
from agent.llms import choice
from agent.serving import body, request
from agent.serving.access import Access
from agent.serving.completions import Completion, Room
from agent.serving.errors import Refused, StillLoading, refusal
from agent.serving.health import Metrics, Ready, health
from agent.serving.request import Asked
from agent.serving.sources import Sources, linking
from agent.settings import Settings
from agent.templates import Language, spoken
from index_store.errors import StoreError

if TYPE_CHECKING:
    from agent.chat.loading import Agent
    from agent.serving.answer import Answer

AT_ONCE = 64  # answers under way, most of them in the engine's line


class Endpoint:
    """What `/v1` needs of a process: its settings, its models, and who may ask."""

    def __init__(self, settings: Settings, models: Models, access: Access) -> None:
        self._settings, self._models, self._access = settings, models, access
        self._room = Room(AT_ONCE)
        self._names = _names(settings)

    async def models(self, asked: Request) -> Response:
        """`GET /v1/models`: the behaviours that the LLMs here have, and `auto`."""
        await self._access.admit(asked)
        return JSONResponse({"object": "list", "data": [_card(name) for name in self._names]})

    async def model(self, asked: Request) -> Response:
        """`GET /v1/models/NAME`."""
        await self._access.admit(asked)
        name = asked.path_params["name"]
        if name not in self._names:
            raise Refused(f"There is no model {name[:80]!r} here.", 404, "model_not_found", "model")
        return JSONResponse(_card(name))

    async def complete(self, asked: Request) -> ASGIApp:
        """`POST /v1/chat/completions`."""
        content = await body.read(asked)  # also of who is refused, and would hear nothing else
        await self._access.admit(asked)
        wanted = request.read(content, self._names)
        language = spoken(asked.headers.get("accept-language"))
        link = linking(asked, await self._access.signing())
        return Completion(wanted, lambda: self._begin(wanted, language, link), self._room)

    def _begin(self, wanted: Asked, language: Language, link: Callable[[str], str]) -> Answer:
        from agent.serving.beginning import begin  # heavy: a thread imports it

        return begin(self._settings, self._loading, wanted, language, link)

    async def _loading(self) -> Agent:
        """The models, if they are loaded. Raises StillLoading: a client is told to come again."""
        if self._models.there:
            return await self._models.agent()
        failed = self._models.error
        self._models.load()
        if isinstance(failed, AgentError | StoreError):
            raise StillLoading(str(failed))
        raise StillLoading("The models are being loaded: ask again in some seconds.")


def app(settings: Settings, models: Models, host: str, history: bool) -> Starlette:
    """The ASGI app of a server at `host`; `history` as in `Ready`."""
    access = Access(settings, host)
    endpoint = Endpoint(settings, models, access)
    sources, ready = Sources(models, access), Ready(settings, models, history)
    return Starlette(
        routes=[
            Route("/v1/models", _told(endpoint.models)),
            Route("/v1/models/{name}", _told(endpoint.model)),
            Route("/v1/chat/completions", _told(endpoint.complete), methods=["POST"]),
            Route("/v1/sources/{id}", _told(sources.get)),
            Route("/health", _told(health)),
            Route("/ready", _told(ready.get)),
            Route("/metrics", _told(Metrics(access).get)),
        ],
        middleware=_cors(access),
        exception_handlers={HTTPException: _nowhere},  # type: ignore[dict-item]
    )


def _told(answer: Callable[[Request], Awaitable[ASGIApp]]) -> Callable[[Request], Any]:
    """With every failure in OpenAI's form, and none in a traceback, which may quote a patient."""

    async def told(asked: Request) -> ASGIApp:
        try:
            return await answer(asked)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:
            return refusal(error).response()

    return told


async def _nowhere(asked: Request, error: HTTPException) -> Response:
    what = f"{asked.method} {asked.url.path[:80]}"
    there = "POST /v1/chat/completions and GET /v1/models"
    code = "method_not_allowed" if error.status_code == 405 else "not_found"
    return Refused(f"There is no {what} here: {there} are.", error.status_code, code).response()


def _cors(access: Access) -> list[Middleware]:
    if not access.origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=access.origins,
            allow_methods=["GET", "POST"],
            # OpenAI's JavaScript client tells of itself in headers of its own.
            allow_headers=["*"],
        )
    ]


def _names(settings: Settings) -> list[str]:
    chosen = choice.decide(settings)
    tuned = chosen.fine_tuned is not None or chosen.adapter is not None
    return [*(name for name, (llm, _) in CHOICES.items() if tuned or llm == "base"), "auto"]


def _card(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "medraft"}
