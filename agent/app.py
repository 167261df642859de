"""The page: `chainlit run agent/app.py`, from the repository's root.

Owns the wiring of Chainlit's callbacks to a conversation, and of a turn's events to the screen.
Does not know how an answer comes about, nor how it looks.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import chainlit as cl
from chainlit import server
from chainlit.config import config

from agent.errors import AgentError
from agent.page import choices, privacy, sources
from agent.page.startup import Models, settings_or_exit
from agent.page.turn import TurnOnScreen
from index_store.errors import StoreError

if TYPE_CHECKING:
    from agent.engine import PatientChatEngine

log = logging.getLogger("medraft")

LOADING = "The models are being loaded. Your message will be answered in a moment."
SORRY = "Something went wrong while answering; your message was not lost. Please send it again."

settings, manifest = settings_or_exit(config)
models = Models(settings)
privacy.protect(server, config.project.allow_origins)


@cl.on_app_startup
async def load_models() -> None:
    """The page is served at once; the models load behind it."""
    models.load()


@cl.set_starters
async def starters(user: cl.User | None) -> list[cl.Starter]:
    """Questions to begin with."""
    return choices.starters()


@cl.on_chat_start
async def begin() -> None:
    """The conversation gets its choices; its engine comes with the first message."""
    await choices.show_panel(settings)


@cl.on_message
async def answer(message: cl.Message) -> None:
    """One turn. However it ends, the patient sees how."""
    turn = TurnOnScreen(sample=manifest.source == "sample")
    running = _running()
    task = asyncio.current_task()
    assert task is not None
    running.add(task)
    try:
        engine = await _conversation()
        async with aclosing(engine.turn(message.content)) as events:
            async for event in events:
                await turn.show(event)
    except (AgentError, StoreError) as error:
        turn.fail(str(error))
    except Exception as error:
        # The type alone: the text of an error may hold what the patient said.
        log.error("%s in thread %s", type(error).__name__, message.thread_id)
        turn.fail(SORRY)
    finally:
        running.discard(task)
        # Stop, pressed again, must not cut short what makes the screen whole.
        await asyncio.shield(turn.finish())


@cl.on_stop
def stop() -> None:
    """Chainlit stops the newest message; after a lost connection an older one may still run."""
    for task in _running():
        task.cancel()


@cl.action_callback(sources.BUTTON)
async def open_source(button: cl.Action) -> None:
    """A click on "Source 1"."""
    await sources.open_beside(button)


async def _conversation() -> PatientChatEngine:
    """This session's engine, with the choices that hold from this message on."""
    if not models.loaded:
        notice = await cl.Message(LOADING).send()
        try:
            await models.agent()
        finally:
            await notice.remove()
    agent = await models.agent()
    engine: PatientChatEngine | None = cl.user_session.get("engine")
    if engine is None:
        engine = agent.conversation()
        cl.user_session.set("engine", engine)
    engine.llm, engine.retrieval = choices.chosen(settings)
    return engine


def _running() -> set[asyncio.Task[Any]]:
    """The turns of this session that have not ended."""
    running: set[asyncio.Task[Any]] | None = cl.user_session.get("running")
    if running is None:
        running = set()
        cl.user_session.set("running", running)
    return running
