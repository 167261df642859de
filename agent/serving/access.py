"""Who may ask, and how often.

Owns the rule (a machine's own user needs no key until there is one; everybody else has one), the
refusal of other websites, and the rate. Does not know how keys are kept, nor what is asked.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

from starlette.requests import Request

from agent.errors import AgentError
from agent.serving.address import is_foreign, is_loopback, is_this_machine
from agent.serving.errors import Refused
from agent.settings import Settings
from agent.storage.keys import Keys

log = logging.getLogger("medraft")
T = TypeVar("T")
Given = TypeVarTuple("Given")

MOST_CALLERS = 10_000


class Access:
    """The rule of one server, which listens at `host`."""

    def __init__(self, settings: Settings, host: str) -> None:
        self._keys = Keys(settings.home)
        self.origins = settings.allow_origins.replace(",", " ").split()
        self._open = is_loopback(host)
        self._rate = Rate(settings.rate)
        self._logged = ""

    async def admit(self, request: Request, signed: str | None = None) -> None:
        """Let the request in, by a signature of `signed`, too, and count it. Raises Refused."""
        if signed is not None and await self._has_signature(request, signed):
            self.refuse_other_websites(request)
            self._count(f"\n{signed}")  # no key has such a name
        else:
            self._count(await self.check(request))

    async def signing(self) -> Callable[[str], str] | None:
        """What signs links, None while there is no key (`Keys.signing`). Raises Refused."""
        return await self._of_keys(self._keys.signing)

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
        if not await self._of_keys(self._keys.names):
            return None
        name = await self._of_keys(self._keys.owner, given)
        if name is None:
            self._count(f"\n{request.client.host if request.client else ''}")
            told = "This key is not, or no longer, known here" if given else "A key is missing"
            raise Refused(
                f"{told}: send one that medraft keys add NAME has made, as Authorization: "
                "Bearer KEY.",
                401,
                "invalid_api_key",
            )
        return name

    async def _has_signature(self, request: Request, text: str) -> bool:
        if not (given := request.query_params.get("signature", "")):
            return False
        sign = await self.signing()
        return sign is not None and hmac.compare_digest(given.encode(), sign(text).encode())

    async def _of_keys(self, asked: Callable[[*Given], T], *given: *Given) -> T:
        try:
            told = await asyncio.to_thread(asked, *given)
        except AgentError as error:
            if str(error) != self._logged:
                log.error("%s", error)
            self._logged = str(error)
            raise Refused(
                "The keys of this server cannot be read: its log says why.", 500, "keys_failed"
            ) from None
        self._logged = ""
        return told

    def _count(self, caller: str) -> None:
        if wait := self._rate.wait(caller):
            raise Refused(
                "Too many requests: this server takes "
                f"{self._rate.a_minute} a minute of a client; ask again in {wait} s.",
                429,
                "rate_limit_exceeded",
                after=wait,
            )


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
