"""A turn in the terminal: as text while it streams, as a conversation.

Owns how events are written down. Knows nothing of how they come about.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing

from agent.chat.engine import PatientChatEngine
from agent.chat.events import Delta, Emergency, Finished, Notice, Retrieved, Routed
from agent.errors import AgentError


async def show(engine: PatientChatEngine, question: str) -> None:
    """Stream a turn to standard output; what is about the answer goes to standard error."""
    async with aclosing(engine.turn(question)) as events:
        async for event in events:
            match event:
                case Emergency(_, notice, _):
                    print(f"{notice}\n", flush=True)
                case Routed(route, behaviour):
                    print(f"[{behaviour}: {route.reason}]", file=sys.stderr)
                case Retrieved(sources, left_out):
                    for number, found in enumerate(sources, start=1):
                        title = found.node.metadata["title"]
                        print(f"[{number}] {title} ({found.score:.2f})", file=sys.stderr)
                    for found in left_out:
                        print(f"[left out] {found.node.metadata['title']}", file=sys.stderr)
                    if not sources and not left_out:
                        print("[no doctor's reply was close enough]", file=sys.stderr)
                case Notice(text):
                    print(f"[{text}]", file=sys.stderr)
                case Delta(text):
                    print(text, end="", flush=True)
                case Finished(speaker=None):
                    print("[the model gave no answer: ask in other words]", file=sys.stderr)
                case Finished(speaker="medraft"):
                    print(flush=True)
                case Finished(_, timing, _, support):
                    print(flush=True)
                    marks = "".join(f"[{s.source}]" if s.source else "[-]" for s in support)
                    if marks:
                        print(f"[sentence by sentence, its source: {marks}]", file=sys.stderr)
                    print(
                        f"[first token after {timing.first_token_ms:.0f} ms, "
                        f"{timing.tokens} tokens in {timing.total_ms / 1000:.1f} s]",
                        file=sys.stderr,
                    )


def converse(engine: PatientChatEngine) -> None:
    """A conversation until the end of input; an error or Control-C ends the answer, not it."""
    print("I am not a doctor. In an emergency call your local emergency number.")
    with asyncio.Runner() as runner:
        while True:
            try:
                question = input("\n> ").strip()
            except (EOFError, KeyboardInterrupt):
                print()
                return
            if not question:
                continue
            try:
                runner.run(show(engine, question))
            except AgentError as error:
                print(error, file=sys.stderr)
            except KeyboardInterrupt:
                print("\n[stopped]", file=sys.stderr)
