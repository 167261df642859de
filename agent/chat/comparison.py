"""One question through all four behaviours: base, RAG, fine-tuned, RAFT.

Owns their order, and that an error of one does not end the others. Knows neither a screen nor
the conversation that the question came from: each behaviour answers in a conversation of its own
that is thrown away, so nobody's memory changes.

One after the other, so that no answer's times hold the work of another. What an engine keeps from
one prompt to the next still helps: base reads the history, and RAG, right after it, need not.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.behaviour import CHOICES, Behaviour
from agent.chat.events import Event

if TYPE_CHECKING:
    from agent.chat.engine import PatientChatEngine


@dataclass(frozen=True)
class Failed:
    """This behaviour has no answer, or no end of it."""

    error: Exception


def conversations(
    begin: Callable[[], PatientChatEngine],
) -> Iterator[tuple[Behaviour, PatientChatEngine]]:
    """A conversation that `begin` makes for each behaviour, in the order of the asking."""
    for name, (llm, retrieval) in CHOICES.items():
        engine = begin()
        engine.llm, engine.retrieval = llm, retrieval
        yield name, engine


async def compare(
    question: str, each: Iterable[tuple[Behaviour, PatientChatEngine]]
) -> AsyncGenerator[tuple[Behaviour, Event | Failed], None]:
    """The events of the turn of each of `conversations`; closing the generator stops the engine.

    A turn that fails ends in `Failed`, and the next behaviour goes on.
    """
    for name, engine in each:
        try:
            async with aclosing(engine.turn(question)) as events:
                async for event in events:
                    yield name, event
        except Exception as error:
            yield name, Failed(error)
