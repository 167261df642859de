"""The page: `chainlit run agent/app.py`, from the repository's root.

Owns the wiring of Chainlit's callbacks to a conversation. Does not know how an answer comes
about, nor how it looks.
"""

from __future__ import annotations

from typing import Any

import chainlit as cl
from chainlit.types import ThreadDict

from agent.chat import otel
from agent.chat.models import Models
from agent.page import chainlit_hooks, choices, columns, compare, resume, sources, welcome
from agent.page.conversation import SESSIONS, Conversation, end_elsewhere, one_turn
from agent.page.history import History
from agent.page.language import speak
from agent.page.server import accounts, ending, endpoint, privacy, routes
from agent.page.server.startup import quieten, settings_or_exit
from agent.page.turn import RETRY
from agent.storage import database
from agent.templates import spoken

quieten()
settings, manifest = settings_or_exit()
models = Models(settings)
privacy.protect()
speak()
accounts.open_ways_in(settings)
routes.add()
endpoint.serve(settings, models)
resume.mend_connections()


@cl.data_layer
def history() -> History:
    """Where threads, steps and feedback are kept."""
    return History(database.connect_async(settings))


@cl.on_app_startup
async def start() -> None:
    """The page is served at once; the models load behind it."""
    ending.hang_up_at_the_end()
    models.load()


@cl.on_app_shutdown
async def finish() -> None:
    """No turn is under way any more; Chainlit ends the process right after."""
    await otel.end()


@cl.set_starters  # type: ignore[arg-type]  # Chainlit hands over the language, too
async def starters(user: cl.User | None, tag: str) -> list[cl.Starter]:
    """Questions to begin with."""
    return welcome.starters(spoken(tag))


@chainlit_hooks.on_chat_start
async def begin() -> None:
    """The conversation gets its choices; its engine comes with the first message."""
    chainlit_hooks.forget_ended_sessions()
    await choices.show(settings)
    await cl.context.emitter.set_commands([compare.command()])


@chainlit_hooks.on_chat_resume
async def go_on(thread: ThreadDict) -> None:
    """A stored conversation goes on where it was."""
    await end_elsewhere(thread)
    await resume.resume(thread)
    await _conversation().restore(thread)
    await choices.show(settings)
    await cl.context.emitter.set_commands([compare.command()])


@chainlit_hooks.on_message
async def answer(message: cl.Message) -> None:
    """A message of the patient, new or edited."""
    asked_of_all = compare.commanded(message)
    await _conversation().answer(message, compare.by_command if asked_of_all else one_turn)


@chainlit_hooks.on_stop
async def stop() -> None:
    """Stop, in whatever state the turns of this session are; each of them says so itself."""
    _conversation().stop(chainlit_hooks.newest_task())


@cl.action_callback(RETRY)
async def retry(button: cl.Action) -> None:
    """A click on "Try again"."""
    _conversation().retry(button.payload["message"])


@chainlit_hooks.on_leaving
async def leave() -> None:
    """The patient went to another conversation: what runs in this one is stopped."""
    await _conversation().end()


@chainlit_hooks.on_settings_update
async def confirm_choices(panel: dict[str, Any]) -> None:
    """The settings panel was confirmed."""
    await choices.show_picker(settings)


@cl.on_window_message
async def pick(data: object) -> None:
    """A pick in the composer, before any message; or anything else that a window was sent."""
    await choices.picked(data, settings)


@cl.action_callback(columns.COMPARE)
async def compare_all_four(button: cl.Action) -> None:
    """A click on "Compare all four"."""
    await compare.by_click(_conversation(), button)


@cl.action_callback(columns.CONTINUE)
async def take_over(button: cl.Action) -> None:
    """A click on "Continue with this one"."""
    await compare.take_over(_conversation(), button)


@cl.action_callback(sources.BUTTON)
async def open_source(button: cl.Action) -> None:
    """A click on "Source 1"."""
    await sources.open_beside(button)


def _conversation() -> Conversation:
    """This session's conversation."""
    found: Conversation | None = cl.user_session.get(SESSIONS)
    if found is None:
        found = Conversation(models, settings, sample=manifest.is_sample)
        cl.user_session.set(SESSIONS, found)
    return found
