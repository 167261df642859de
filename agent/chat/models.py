"""The models of this process, loaded behind what is served.

Owns the one load that all conversations wait for, and that a failed one is tried again. Does not
know what is loaded, nor who waits.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from agent.errors import AgentError
from agent.settings import Settings
from index_store.errors import StoreError

if TYPE_CHECKING:
    from agent.chat.loading import Agent

log = logging.getLogger("medraft")


class Models:
    """The models of this process, loaded once, in a thread, while the server already answers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loading: asyncio.Task[Agent] | None = None

    def load(self) -> asyncio.Task[Agent]:
        """Begin to load, if nobody has or it failed; needs a running event loop."""
        # What failed may be mended by now: a server that was away, a file that was missing.
        if self._loading is None or self.error:
            self._loading = asyncio.create_task(asyncio.to_thread(_load, self._settings))
            self._loading.add_done_callback(_report)
        return self._loading

    @property
    def loaded(self) -> bool:
        """Whether `agent` returns at once; after an error loading has begun anew."""
        return self.load().done()

    @property
    def there(self) -> bool:
        """Whether they are loaded; begins nothing."""
        return self._loading is not None and self._loading.done() and self.error is None

    @property
    def error(self) -> BaseException | None:
        """Why the last load failed, if it did; begins nothing."""
        if self._loading is None or not self._loading.done():
            return None
        return self._loading.exception()

    async def agent(self) -> Agent:
        """The loaded agent. Raises AgentError or StoreError if loading failed; then it is tried
        again the next time."""
        # A patient who stops waiting must not stop the load, which others wait for, too.
        return await asyncio.shield(self.load())


def _load(settings: Settings) -> Agent:
    try:
        from agent.chat import loading

        return loading.load(settings)
    except (AgentError, StoreError):
        raise
    except Exception as error:
        log.exception("The models could not be loaded.")
        raise AgentError(
            f"The models could not be loaded ({type(error).__name__}): tell whoever runs the "
            "server, whose log says why.",
            key="not_loaded",
        ) from error


def _report(loading: asyncio.Task[Agent]) -> None:
    if loading.cancelled():
        return
    if error := loading.exception():
        log.error("%s", error)
    else:
        log.info("The models are loaded.")
