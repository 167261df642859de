"""The prompt of a turn: templates rendered, and cut to what the model can read.

Owns the order in the prompt (system, the history as it was said, the patient's message with
the retrieved replies last, so that the engine's prefix cache serves all that came before) and
what gives way when it is too long. The templates are `prompts/*.j2`, one file a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from llama_index.core.base.llms.types import ChatMessage, MessageRole

from agent.errors import AgentError
from agent.llms import ChatLLM
from agent.settings import ROOT

# The history gives way in blocks of this many messages: were it cut by one at every turn,
# the prefix cache would be worth nothing from the first cut on.
BLOCK = 8


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(ROOT / "prompts"),
        undefined=StrictUndefined,
        autoescape=False,  # prompts are plain text
        keep_trailing_newline=False,
    )


def render(name: str, **values: object) -> str:
    """`prompts/NAME.j2` with its variables."""
    return _templates().get_template(f"{name}.j2").render(**values).strip()


async def prompt(
    llm: ChatLLM,
    history: Sequence[ChatMessage],
    message: str,
    sources: Sequence[str],
    max_tokens: int,
) -> tuple[list[ChatMessage], int]:
    """The messages to send, and how many of the sources they hold.

    What is too long loses its oldest turns first, then its last sources, never the message.
    Raises AgentError if the message alone is longer than the model can read.
    """
    window = llm.metadata.context_window
    system = ChatMessage(role=MessageRole.SYSTEM, content=render("system"))
    for used in range(len(sources), -1, -1):
        last = render("sources", message=message, sources=sources[:used]) if used else message
        end = ChatMessage(role=MessageRole.USER, content=last)
        for start in range(0, len(history) + BLOCK, BLOCK):
            messages = [system, *history[start:], end]
            if await _fits(llm, messages, window - max_tokens):
                return messages, used
    raise AgentError(
        f"This message is longer than the model can read ({window - max_tokens} tokens): "
        "please send a shorter one."
    )


async def _fits(llm: ChatLLM, messages: Sequence[ChatMessage], budget: int) -> bool:
    # A token stands for one byte at least, so that most prompts need no counting.
    most = sum(len((m.content or "").encode()) + 16 for m in messages)
    return most <= budget or await llm.count_tokens(messages) <= budget
