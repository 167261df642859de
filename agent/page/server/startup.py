"""Before the page is served: everything that can be checked quickly, then loading behind it.

Owns which checks come before serving, how a failed one ends the process, and the one load of
the models that all sessions wait for. Does not know what a conversation is.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from typing import TYPE_CHECKING

from chainlit.config import ChainlitConfig, config_file

from agent import settings as setting
from agent.errors import AgentError
from agent.llms import choice
from agent.page.server import accounts, secret
from agent.settings import ROOT, Settings
from agent.storage import database
from index_store import manifest
from index_store.embedding import identity
from index_store.errors import StoreError
from index_store.manifest import Manifest

if TYPE_CHECKING:
    from agent.chat.loading import Agent

log = logging.getLogger("medraft")


def settings_or_exit(config: ChainlitConfig) -> tuple[Settings, Manifest]:
    """The settings and the index's manifest; one sentence and exit code 2 if they are wrong."""
    try:
        _check_page(config)
        settings = choice.with_first_llm(setting.load())
        choice.check(settings)
        found = manifest.read(settings.index_dir, identity(settings.embed_model))
        accounts.check(settings, config.run.host)
        secret.provide(settings)
        database.prepare(settings)
        # --watch loads the app again while the server is on its port.
        if not config.run.watch:
            _check_port(config.run.host, config.run.port)
    except (AgentError, StoreError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    return settings, found


def quieten() -> None:
    """Chainlit makes every library tell of each request and each file: keep what is a warning."""
    for name in ("faiss.loader", "gguf", "httpx", "sentence_transformers"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # chainlit.md is the English welcome; Chainlit looks for one of a longer name first, and warns.
    logging.getLogger("chainlit").addFilter(
        lambda record: not record.getMessage().startswith("Translated markdown file for en-US")
    )


class Models:
    """The models of this process, loaded once, in a thread, while the page is already served."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loading: asyncio.Task[Agent] | None = None

    def load(self) -> asyncio.Task[Agent]:
        """Begin to load, if nobody has or it failed; needs a running event loop."""
        # What failed may be mended by now: a server that was away, a file that was missing.
        done = self._loading is not None and self._loading.done()
        if self._loading is None or (done and self._loading.exception()):
            self._loading = asyncio.create_task(asyncio.to_thread(_load, self._settings))
            self._loading.add_done_callback(_report)
        return self._loading

    @property
    def loaded(self) -> bool:
        """Whether `agent` returns at once, be it with an error."""
        return self.load().done()

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
            f"The models could not be loaded ({type(error).__name__}): "
            "the server's log says why, and medraft must be started again.",
            key="not_loaded",
        ) from error


def _report(loading: asyncio.Task[Agent]) -> None:
    if loading.cancelled():
        return
    if error := loading.exception():
        log.error("%s", error)
    else:
        log.info("The models are loaded.")


def _check_page(config: ChainlitConfig) -> None:
    if "*" in config.project.allow_origins:
        raise AgentError(
            f"{config_file} opens this server to every website: run chainlit in {ROOT}, where "
            "medraft's own file is, or name the websites in its allow_origins."
        )


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            # As the server itself does: a port that was left a moment ago is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise AgentError(
            f"The page cannot be served at {host}:{port} ({error.strerror}): "
            "choose another port with --port, or end what runs there."
        ) from None
