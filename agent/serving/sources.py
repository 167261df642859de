"""`GET /v1/sources/{id}`: a doctor's reply that an answer cites.

Owns a source's address, the signature by which a link opens it where keys are asked for (a browser
sends none), and how it reads. Does not know how replies are found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from agent.chat.models import Models
from agent.serving.access import Access
from agent.serving.errors import Refused

TEXT = """\
{title}

A patient asked:

{patient}

A doctor replied:

{doctor}
"""


def linking(request: Request, sign: Callable[[str], str] | None) -> Callable[[str], str]:
    """From a source's id to its address at the server that `request` was sent to."""
    base = f"{request.url.scheme}://{request.url.netloc}/v1/sources"

    def link(id: str) -> str:
        return f"{base}/{quote(id)}" + (f"?signature={sign(id)}" if sign else "")

    return link


class Sources:
    """The sources of one server."""

    def __init__(self, models: Models, access: Access) -> None:
        self._models, self._access = models, access

    async def get(self, request: Request) -> Response:
        """A source as JSON, or as text for a browser. Raises Refused."""
        id = request.path_params["id"]
        await self._access.admit(request, signed=id)
        if not self._models.there:
            raise Refused("The index is not open yet.", 503, "loading", after=1)
        agent = await self._models.agent()
        found = await asyncio.to_thread(agent.retriever.reply, id)
        if found is None:
            raise Refused("There is no such source.", 404, "not_found")
        told = {"id": id, "title": found.title, "patient": found.patient, "doctor": found.doctor}
        if "text/html" in request.headers.get("accept", ""):
            nosniff = {"X-Content-Type-Options": "nosniff"}
            return PlainTextResponse(TEXT.format(**told), headers=nosniff)
        return JSONResponse(told)
