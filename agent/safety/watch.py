"""What an emergency does to a conversation.

Owns the verdict on a message, when no model answers one, and what a model is not told of later.
Does not know how an emergency is found (`triage.py`), nor what is said then (`emergency.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from llama_index.core.base.llms.types import ChatMessage, MessageRole

from agent.safety.triage import Kind, is_plain, triage


@dataclass(frozen=True)
class Verdict:
    """An emergency of a `kind`; `plain` if a rule finds it, and not the weighed words alone."""

    kind: Kind
    plain: bool


@lru_cache(4096)
def verdict(text: str) -> Verdict | None:
    """Of a patient's message, each judged once: later turns ask of the earlier ones, too."""
    kind = triage(text)
    return Verdict(kind, is_plain(text)) if kind else None


async def verdicts(texts: Sequence[str]) -> list[Verdict | None]:
    """The same of several, off the event loop."""
    return await asyncio.to_thread(lambda: [verdict(text) for text in texts])


def is_held_back(now: Verdict, earlier: Sequence[Verdict | None]) -> bool:
    """Whether no LLM answers: always if it is about suicide; else if the emergency is plain, and
    this conversation had no notice of its kind before."""
    if now.kind == "suicide":
        return True
    return now.plain and all(before is None or before.kind != now.kind for before in earlier)


def without_crises(
    history: Sequence[ChatMessage], judged: Sequence[Verdict | None]
) -> list[ChatMessage]:
    """`history` without talk of suicide and what was said to it; `judged` has a verdict for each
    message of the user's. Thanked after such talk, a small LLM goes on about it in ways that nobody
    should read; the notice that was given stays on the screen."""
    told, crisis, left = [], False, iter(judged)
    for message in history:
        if message.role == MessageRole.USER:
            found = next(left)
            crisis = found is not None and found.kind == "suicide"
        if not crisis:
            told.append(message)
    return told
