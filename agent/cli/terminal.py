"""A turn in the terminal: as text while it streams, as a conversation.

Owns how events are written down. Knows nothing of how they come about.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing

from agent.chat.engine import PatientChatEngine
from agent.chat.events import Advice, Delta, Emergency, Event, Finished, Notice, Retrieved, Routed
from agent.errors import AgentError
from agent.templates import Language

NO_DOCTOR: dict[Language, str] = {
    "en": "I am not a doctor. In an emergency call your local emergency number.",
    "es": "No soy médico. En una emergencia, llame al número de emergencias de su zona.",
}


async def show(engine: PatientChatEngine, question: str) -> None:
    """Stream a turn to the terminal."""
    async with aclosing(engine.turn(question)) as events:
        async for event in events:
            write(event)


def write(event: Event) -> None:
    """The answer goes to standard output; what is about it goes to standard error."""
    match event:
        case Emergency(notice=text) | Advice(text):
            print(f"{text}\n", flush=True)
        case Routed(route, behaviour):
            _aside(f"{behaviour or 'medraft'}: {route.reason}")
        case Retrieved():
            _write_sources(event)
        case Notice(text):
            _aside(text)
        case Delta(text):
            print(text, end="", flush=True)
        case Finished():
            _write_end(event)


def _write_sources(found: Retrieved) -> None:
    for number, source in enumerate(found.sources, start=1):
        title = source.node.metadata["title"]
        print(f"[{number}] {title} ({source.score:.2f})", file=sys.stderr)
    for source in found.left_out:
        print(f"[left out] {source.node.metadata['title']}", file=sys.stderr)
    if found.behaviour is None:  # no model tells what is in them
        for number, source in enumerate(found.sources, start=1):
            print(f"[{number}] {source.get_content()}\n", flush=True)
    elif not found.sources:
        why = "may go to the model" if found.left_out else "was close enough"
        _aside(f"no doctor's reply {why}: {found.behaviour} answers, without sources")


def _write_end(finished: Finished) -> None:
    if finished.speaker is None:
        _aside("the model gave no answer: ask in other words")
        return
    print(flush=True)
    if finished.speaker == "medraft":
        return
    if said := finished.support:
        without = sum(sentence.source is None for sentence in said)
        _aside(f"{without} of {len(said)} sentences have no source")
    timing = finished.timing
    _aside(
        f"first token after {timing.first_token_ms:.0f} ms, "
        f"{timing.tokens} tokens in {timing.total_ms / 1000:.1f} s"
    )


def _aside(text: str) -> None:
    print(f"[{text}]", file=sys.stderr)


def converse(engine: PatientChatEngine) -> None:
    """A conversation until the end of input; an error or Control-C ends the answer, not it."""
    print(NO_DOCTOR[engine.language])
    with asyncio.Runner() as runner:
        while True:
            try:
                question = input("\n> ").strip()
            except (EOFError, KeyboardInterrupt):
                print()
                return
            except UnicodeDecodeError:
                print("That was not UTF-8: please write it again.", file=sys.stderr)
                continue
            if not question:
                continue
            try:
                runner.run(show(engine, question))
            except AgentError as error:
                print(error, file=sys.stderr)
            except KeyboardInterrupt:
                print("\n[stopped]", file=sys.stderr)
