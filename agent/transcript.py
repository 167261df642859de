"""A turn in the terminal: as one JSON object, as text while it streams, as a conversation.

Owns how events are written down. Knows nothing of how they come about.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

from llama_index.core.schema import NodeWithScore

from agent.engine import PatientChatEngine
from agent.errors import AgentError
from agent.events import Delta, Emergency, Finished, Notice, Retrieved, Routed


async def collect(engine: PatientChatEngine, question: str) -> dict[str, Any]:
    """The documented object of `medraft ask --json`."""
    told = unanswered(engine, question)
    async with aclosing(engine.turn(question)) as events:
        async for event in events:
            match event:
                case Emergency(kind, notice):
                    told |= {
                        "emergency": True,
                        "emergency_kind": kind,
                        "emergency_notice": notice,
                    }
                case Routed(route, behaviour):
                    told |= {"behaviour": behaviour, "route": asdict(route)}
                case Retrieved(sources, left_out):
                    told["sources"] = [source(found) for found in sources]
                    told["left_out"] = [source(found) for found in left_out]
                case Finished(answer, timing, ended, support):
                    told |= {"answer": answer, "ended": ended, "timing": asdict(timing)}
                    told["support"] = [asdict(sentence) for sentence in support]
    return told


def unanswered(engine: PatientChatEngine, question: str) -> dict[str, Any]:
    """That object before the turn."""
    return {
        "question": question,
        "llm": engine.llm,
        "retrieval": engine.retrieval,
        "behaviour": None,
        "route": None,
        "emergency": False,
        "emergency_kind": None,
        "emergency_notice": None,
        "answer": "",
        "ended": False,
        "sources": [],
        "left_out": [],
        "support": [],
        "timing": None,
    }


def source(found: NodeWithScore) -> dict[str, Any]:
    """A retrieved reply as people and scripts read it; `score` is a cosine."""
    return {
        "id": found.node.node_id,
        "rank": found.node.metadata["rank"],
        "score": found.score,
        "title": found.node.metadata["title"],
        "patient": found.node.metadata["patient"],
        "doctor": found.node.get_content(),
    }


async def show(engine: PatientChatEngine, question: str) -> None:
    """Stream a turn to standard output; what is about the answer goes to standard error."""
    async with aclosing(engine.turn(question)) as events:
        async for event in events:
            match event:
                case Emergency(_, notice):
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
                case Finished(_, timing) if timing.first_token_ms is None:
                    print("[the model gave no answer: ask in other words]", file=sys.stderr)
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
