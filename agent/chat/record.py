"""A turn as one object: what `medraft ask --json` prints, and what evaluation keeps.

Owns its keys. Knows nothing of how the events come about.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import asdict
from typing import Any

from llama_index.core.schema import NodeWithScore

from agent.chat.engine import PatientChatEngine
from agent.chat.events import Advice, Emergency, Event, Finished, Retrieved, Routed


async def collect(engine: PatientChatEngine, question: str) -> dict[str, Any]:
    """The documented object of `medraft ask --json`."""
    told = unanswered(engine, question)
    async with aclosing(engine.turn(question)) as events:
        async for event in events:
            told |= part(event)
    return told


def part(event: Event) -> dict[str, Any]:
    """What an event tells of that object."""
    match event:
        case Emergency(kind, notice):
            return {"emergency": True, "emergency_kind": kind, "emergency_notice": notice}
        case Advice(text):
            return {"advice": text}
        case Routed(route, behaviour):
            return {"behaviour": behaviour, "route": asdict(route)}
        case Retrieved(sources, left_out, behaviour):
            return {
                "behaviour": behaviour,
                "nothing_fitted": not sources,
                "sources": [source(found) for found in sources],
                "left_out": [source(found) for found in left_out],
            }
        case Finished(answer, timing, ended, support, claims, speaker):
            return {
                "answer": answer,
                "speaker": speaker,
                "ended": ended,
                "timing": asdict(timing),
                "support": [asdict(sentence) for sentence in support],
                "claims": asdict(claims),
            }
    return {}


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
        "advice": None,
        "answer": "",
        "speaker": None,
        "ended": False,
        "nothing_fitted": False,
        "sources": [],
        "left_out": [],
        "support": [],
        "claims": None,
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
