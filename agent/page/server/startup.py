"""Before the page is served: everything that can be checked quickly.

Owns which checks come before serving, and how a failed one ends the process. Does not know what is
loaded behind the page, nor what a conversation is.
"""

from __future__ import annotations

import logging
import sys

from agent import settings as setting
from agent.chat import otel
from agent.errors import AgentError
from agent.llms import choice
from agent.page import server_hooks
from agent.page.server import accounts, secret
from agent.serving import access
from agent.serving.address import check_port
from agent.settings import ROOT, Settings
from agent.storage import database
from index_store import manifest
from index_store.embedding import identity
from index_store.errors import StoreError
from index_store.manifest import Manifest


def settings_or_exit() -> tuple[Settings, Manifest]:
    """The settings and the index's manifest; one sentence and exit code 2 if they are wrong."""
    try:
        _check_page()
        settings = choice.with_first_llm(setting.load())
        choice.check(settings)
        found = manifest.read(settings.index_dir, identity(settings.embed_model))
        host, port = server_hooks.serves_at()
        accounts.check(settings, host)
        if settings.endpoint:
            access.check(settings, host)
        secret.provide(settings)
        database.prepare(settings)
        # --watch loads the app again while the server is on its port.
        if not server_hooks.loads_again():
            check_port(host, port)
        otel.begin()
    except (AgentError, StoreError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    return settings, found


def quieten() -> None:
    """Chainlit makes every library tell of each request and each file: keep what is a warning."""
    for name in ("faiss.loader", "gguf", "httpx", "sentence_transformers"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # chainlit.md is the English welcome; Chainlit looks for one of a longer name first, and warns.
    server_hooks.leave_out_of_the_log("Translated markdown file for en-US")


def _check_page() -> None:
    if "*" in server_hooks.allowed_origins():
        raise AgentError(
            f"{server_hooks.CONFIG_FILE} opens this server to every website: run chainlit in "
            f"{ROOT}, where medraft's own file is, or name the websites in its allow_origins."
        )
