"""What a client is told that gets no answer: OpenAI's error object.

Owns its form, the status and code of each kind of failure, and that they are counted. Does not know
what was asked.
"""

from __future__ import annotations

import logging
from typing import Any

from prometheus_client import Counter
from starlette.responses import JSONResponse

from agent.chat.metrics import registry
from agent.errors import AgentError
from index_store.errors import StoreError

log = logging.getLogger("medraft")

refusals = Counter(
    "medraft_refusals", "Requests that were refused, by OpenAI's code", ["code"], registry=registry
)
SOON = 5  # seconds after which a client may ask again what could not be answered yet


class Refused(Exception):
    """One sentence for who runs the client, with OpenAI's `code` and `param`, and the status.

    `after`: the seconds after which asking again makes sense.
    """

    def __init__(
        self,
        sentence: str,
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
        after: int | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status, self.code, self.param, self.after = status, code, param, after

    @property
    def object(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        if self.status == 429:
            kind = "rate_limit_error"
        about = {"type": kind, "param": self.param, "code": self.code}
        return {"error": {"message": str(self), **about}}

    def response(self) -> JSONResponse:
        """The whole answer to a request that is refused, which is counted."""
        refusals.labels(self.code or "none").inc()
        headers = {} if self.after is None else {"Retry-After": str(self.after)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.object, self.status, headers)


class StillLoading(AgentError):
    """A turn needs the models, and they are not loaded."""


def refusal(error: Exception) -> Refused:
    """Any failure of a turn, as a client is told of it."""
    match error:
        case Refused():
            return error
        case StillLoading():
            return Refused(str(error), 503, "loading", after=SOON)
        case AgentError(key="too_long"):
            return Refused(str(error), 400, "context_length_exceeded", "messages")
        case AgentError(key="no_fine_tuned"):
            return Refused(str(error), 404, "model_not_found", "model")
        case AgentError():
            return Refused(str(error), 500, "engine_failed")
        case StoreError():
            return Refused(str(error), 500, "index_failed")
    # The type alone: the text of an error may hold what the patient said.
    log.error("%s while answering a request", type(error).__name__)
    return Refused("Something went wrong in medraft; please ask again.", 500, "failed")
