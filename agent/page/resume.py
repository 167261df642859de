"""A conversation that goes on, after a while or after a lost connection: on the screen again.

Owns what Chainlit leaves out of that. Does not know how steps are stored, what they mean to the
engine, nor what the buttons under an answer do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import chainlit as cl
from chainlit.data import get_data_layer
from chainlit.types import ThreadDict

from agent.page import chainlit_hooks, columns, server_hooks, sources

if TYPE_CHECKING:
    from llama_index.core.base.llms.types import ChatMessage


LONGEST = 4 * 2**20  # bytes of a message; one that no LLM can read is refused in a sentence


async def resume(thread: ThreadDict) -> None:
    """Make this session the thread's, and have its steps, buttons and elements on the screen.

    Chainlit shows `thread` afterwards, as it is left here.
    """
    chainlit_hooks.never_resume_again()
    make_whole(thread)
    for step in thread["steps"]:
        await sources.restore(step)


def make_whole(thread: ThreadDict) -> None:
    """What Chainlit keeps of a thread is not all that was on the screen."""
    there: set[str] = set()
    for step in thread["steps"]:
        # A step below one that is gone would be shown nowhere.
        if step.get("parentId") not in there:
            step["parentId"] = None
        there.add(step["id"])
        # A turn that never ended would seem to run for ever.
        step["end"] = step.get("end") or step.get("start") or step["createdAt"]
        step["streaming"] = False
    columns.restore(thread)


def messages(memory: Sequence[tuple[str, str]]) -> list[ChatMessage]:
    """`threads.remembered` as LlamaIndex takes it."""
    from llama_index.core.base.llms.types import ChatMessage, MessageRole

    return [ChatMessage(role=MessageRole(role), content=text) for role, text in memory]


def mend_connections() -> None:
    """What was said while a browser was away is sent to it when it is back, a page that is loaded
    at a conversation's address gets that conversation, and a letter of any length is heard.

    Without this, an answer that ended meanwhile stays cut off on the screen until the page is
    loaded again, and that page, on a busy machine, empty.
    """
    server_hooks.take_in(LONGEST)
    server_hooks.when_a_browser_is_back(_show_again)
    server_hooks.look_at_who_connects()


async def _show_again() -> None:
    layer, thread = get_data_layer(), None
    while layer is not None:
        if (last := chainlit_hooks.newest_task()) is not None and not last.done():
            # To a browser that is back, Chainlit says that nothing is running.
            await chainlit_hooks.say_busy()
            await asyncio.wait([last])
        thread = await layer.get_thread(chainlit_hooks.thread_id())
        # A message that came meanwhile is on the screen, and would go from it.
        if chainlit_hooks.newest_task() is last:
            break
    if thread:
        thread["metadata"] = {"chat_settings": cl.user_session.get("chat_settings")}
        make_whole(thread)
        await chainlit_hooks.show_thread(thread)
        await _show_buttons_again()


async def _show_buttons_again() -> None:
    """Those under the last turn; the browser was there when all others were sent."""
    for message in reversed(cl.chat_context.get()):
        if message.type == "user_message":
            return
        for button in message.actions:
            await button.remove()
            await button.send(message.id)
