"""Who may ask, and how often.

Owns the rule (a machine's own user needs no key until there is one; everybody else has one), the
refusal of other websites, and the rate. Does not know how keys are kept, nor what is asked.
"""

from __future__ import annotations

import asyncio
import time

from starlette.requests import Request

from agent.errors import AgentError
from agent.serving.address import is_foreign, is_loopback, is_this_machine
from agent.serving.errors import Refused
from agent.settings import Settings
from agent.storage.keys import Keys

MOST_CALLERS = 10_000


class Access:
    """The rule of one server, which listens at `host`."""

    def __init__(self, settings: Settings, host: str) -> None:
        self.keys = Keys(settings.home)
        self.origins = settings.allow_origins.replace(",", " ").split()
        self._open = is_loopback(host)
        self._rate = Rate(settings.rate)

    async def admit(self, request: Request) -> None:
        """Let the request in, and count it. Raises Refused."""
        caller = await self.check(request)
        if wait := self._rate.wait(caller):
            raise Refused(
                "Too many requests: this server takes "
                f"{self._rate.a_minute} a minute of a client; ask again in {wait} s.",
                429,
                "rate_limit_exceeded",
                after=wait,
            )

    async def check(self, request: Request) -> str:
        """Let the request in; whose it is. Raises Refused."""
        self.refuse_other_websites(request)
        if (name := await self._owner(request)) is not None:
            return name
        if self._open and is_this_machine(request.headers):
            return ""
        raise Refused(
            "This server wants a key from whoever is not at the same machine: "
            "medraft keys add NAME makes one.",
            401,
            "invalid_api_key",
        )

    def refuse_other_websites(self, request: Request) -> None:
        """Raises Refused for a website's page that is not named in the settings."""
        if is_foreign(request.headers) and request.headers["origin"] not in self.origins:
            raise Refused("This website may not talk to medraft.", 403, "foreign_origin")

    async def _owner(self, request: Request) -> str | None:
        """Whose key the request has; None if there is no key at all. Raises Refused for another
        one, or none."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        given = key.strip() if scheme.lower() == "bearer" else ""
        try:
            if not await asyncio.to_thread(self.keys.names):
                return None
            name = await asyncio.to_thread(self.keys.owner, given)
        except AgentError as error:
            raise Refused(str(error), 500, "keys_failed") from None
        if name is None:
            told = "This key is not, or no longer, known here" if given else "A key is missing"
            raise Refused(
                f"{told}: send one that medraft keys add NAME has made, as Authorization: "
                "Bearer KEY.",
                401,
                "invalid_api_key",
            )
        return name


def check(settings: Settings, host: str) -> None:
    """Raises AgentError if everybody who reaches `host` could use the server."""
    if not is_loopback(host) and not Keys(settings.home).names():
        raise AgentError(
            f"At {host} the server would be open to everybody who reaches it: make a key with "
            "medraft keys add NAME, or serve it at 127.0.0.1."
        )


class Rate:
    """So many requests a minute of each caller, and no more than that at once (a token bucket)."""

    def __init__(self, a_minute: int) -> None:
        self.a_minute = a_minute
        self._left: dict[str, tuple[float, float]] = {}  # requests that are left, and since when

    def wait(self, caller: str) -> int:
        """Count a request: 0, or the seconds until the next one is taken."""
        now = time.monotonic()
        left, since = self._left.pop(caller, (float(self.a_minute), now))
        left = min(self.a_minute, left + (now - since) * self.a_minute / 60)
        taken = left >= 1
        self._left[caller] = (left - taken, now)
        while len(self._left) > MOST_CALLERS:
            del self._left[next(iter(self._left))]
        return 0 if taken else max(1, round((1 - left) * 60 / self.a_minute))
