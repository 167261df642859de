"""The prompt of a turn: templates rendered, and cut to what the model can read.

Owns the order in the prompt (system, the history as it was said, the patient's message with
the retrieved replies last, so that the engine's prefix cache serves all that came before), that
nobody's text is more than text in it, and what gives way when it is too long. The templates are
`prompts/*.j2`, one file a behaviour, in words for any LLM that follows instructions; what only the
embedded LLM needs, which is too small for them, stands in `prompts/*.embedded.j2`. And since it
copies what it reads, it reads nothing that concerns another patient alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llama_index.core.base.llms.types import ChatMessage, LLMMetadata, MessageRole

from agent.behaviour import LLMChoice
from agent.chat.own_words import named
from agent.chat.particulars import for_another
from agent.chat.support import sentences
from agent.errors import AgentError
from agent.llms.embedded import EMBEDDED
from agent.safety.injection import harmless
from agent.templates import render
from agent.understanding.language import spoken

# The history gives way in blocks of this many messages: were it cut by one at every turn,
# the prefix cache would be worth nothing from the first cut on.
BLOCK = 8
HEADINGS = (2, 4)  # words of each order of the embedded LLM's prompt that tell it
# Of text in words a token has fewer characters than that. What is longer needs no counting.
CHARACTERS = 8


class Reader(Protocol):
    """What a prompt must know of an LLM: its name, how much it reads, and how long a prompt is."""

    @property
    def metadata(self) -> LLMMetadata: ...

    async def count_tokens(self, messages: Sequence[ChatMessage]) -> int: ...


@dataclass(frozen=True)
class Prompt:
    """What goes to the LLM: the messages, how many sources they hold, the first words of the answer
    if the LLM is to go on from them (they are the last message, then), and the orders of ours
    about the sources, with which an answer has come to its end.

    The sources are numbered from 1, as an answer cites them, except for the embedded base LLM."""

    messages: list[ChatMessage]
    used: int
    opening: str
    orders: tuple[str, ...] = ()


def as_read(
    llm: Reader, replies: Sequence[str], letters: Sequence[str], said: Sequence[str]
) -> list[str]:
    """What the LLM of a patient who wrote `said` reads of `replies` to other `letters`: all, or, if
    it is the embedded one, what may be said to this patient, which may be nothing ("")."""
    if not is_embedded(llm):
        return [*replies]
    own = "\n".join(said)
    return [for_another(*each, own) for each in zip(replies, letters, strict=True)]


def readable(history: Sequence[ChatMessage], window: int) -> Sequence[ChatMessage]:
    """The end of `history` that an LLM with a window of so many tokens may have room for. What is
    cut gives way as in a prompt, and a cut one begins with a message of the patient's."""
    lengths = [len(message.content or "") for message in history]
    start, left = 0, sum(lengths)
    while left > CHARACTERS * window:
        left -= sum(lengths[start : start + BLOCK])
        start += BLOCK
    while 0 < start < len(history) and history[start].role != MessageRole.USER:
        start += 1
    return history[start:]


def check_length(message: str, budget: int) -> None:
    """Raises AgentError for a message that is longer than so many tokens, whatever its words."""
    if len(message) > CHARACTERS * budget:
        raise _too_long(budget)


async def fits(llm: Reader, message: str, max_tokens: int) -> bool:
    """Whether an LLM can be asked a message and answer in so many tokens: where not, neither a
    turn nor `prompt` takes it, whatever gives way."""
    budget = llm.metadata.context_window - max_tokens
    ours = ChatMessage(role=MessageRole.SYSTEM, content=await _system(spoken([message], "en")))
    asked = ChatMessage(role=MessageRole.USER, content=harmless(message))
    return len(message) <= CHARACTERS * budget and await _fits(llm, [ours, asked], budget)


async def prompt(
    llm: Reader,
    choice: LLMChoice,
    history: Sequence[ChatMessage],
    message: str,
    sources: Sequence[str],
    max_tokens: int,
    instructions: str = "",
    language: str = "en",
) -> Prompt:
    """The prompt of a turn; `instructions` stand below our own system prompt, and below them the
    order to answer in the patient's language: the message's, or that of the last one that tells, or
    else `language`.

    What is too long loses its oldest turns first, then its last sources, never the message.
    Raises AgentError if the message alone is longer than the model can read.
    """
    asked = [m.content or "" for m in history if m.role == MessageRole.USER]
    language = spoken([message, *reversed(asked)], language)
    history = [ChatMessage(role=m.role, content=harmless(m.content or "")) for m in history]
    message, sources = harmless(message), [harmless(source) for source in sources]
    budget = llm.metadata.context_window - max_tokens
    ours = await _system(language, harmless(instructions))
    system = ChatMessage(role=MessageRole.SYSTEM, content=ours)
    bare = choice == "base" and is_embedded(llm)
    layout = "rag.embedded" if bare else "rag" if choice == "base" else "raft"
    for used in range(len(sources), -1, -1):
        last = render(layout, message=message, sources=sources[:used]) if used else message
        end = [ChatMessage(role=MessageRole.USER, content=last)]
        opening = ""
        if used and bare:  # so small an LLM talks about the task, unless it is in mid-answer
            opening = render("opening.rag.embedded") + "\n\n"
            end.append(ChatMessage(role=MessageRole.ASSISTANT, content=opening))
        for start in range(0, len(history) + BLOCK, BLOCK):
            messages = [system, *history[start:], *end]
            if await _fits(llm, messages, budget):
                return Prompt(messages, used, opening, _orders(layout) if used else ())
    raise _too_long(budget)


async def _system(language: str, instructions: str = "") -> str:
    """The system prompt for a patient who speaks that language."""
    order = ""
    if language != "en":
        order = render("answer_in", language=await asyncio.to_thread(named, [language], "en"))
    return "\n\n".join(part for part in (render("system"), instructions, order) if part)


def _too_long(budget: int) -> AgentError:
    return AgentError(
        f"This message is longer than the model can read ({budget} tokens): "
        "please send a shorter one.",
        key="too_long",
        budget=budget,
    )


def is_embedded(llm: Reader) -> bool:
    """Whether this is the LLM that comes with medraft: too small for much, and for any medicine."""
    return llm.metadata.model_name.startswith(EMBEDDED)


def _orders(layout: str) -> tuple[str, ...]:
    """What a template tells the LLM to do: a small one says it after its answer. The embedded one
    says the beginning of it, too, in words like ours, as a heading."""
    paragraph = render(layout, message="", sources=[]).strip().rpartition("\n\n")[2]
    orders = [paragraph[start:end] for start, end in sentences(paragraph)]
    if layout == "rag.embedded":
        pairs = zip(orders, HEADINGS, strict=True)
        orders = [" ".join(order.split()[:words]) for order, words in pairs]
    return tuple(orders)


async def _fits(llm: Reader, messages: Sequence[ChatMessage], budget: int) -> bool:
    # A token stands for one byte at least, so that most prompts need no counting.
    most = sum(len((m.content or "").encode()) + 16 for m in messages)
    return most <= budget or await llm.count_tokens(messages) <= budget
