"""What an emergency does to a conversation.

Owns when no model answers one, and what a model is not told of later. Does not know how an
emergency is found (`triage.py`), nor what is said then (`emergency.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

from llama_index.core.base.llms.types import ChatMessage, MessageRole

from agent.safety.triage import Verdict


def is_held_back(now: Verdict, earlier: Sequence[Verdict]) -> bool:
    """Whether no LLM answers an emergency: always in a crisis; else if this conversation had no
    notice before, so that who asks again is answered."""
    return in_crisis(now, earlier) or not any(before.emergency for before in earlier)


def in_crisis(now: Verdict, earlier: Sequence[Verdict]) -> bool:
    """Whether an emergency is about suicide, or comes after talk of it: pills, say, are no accident
    then."""
    return any(each.emergency and each.kind == "suicide" for each in (now, *earlier))


def without_crises(history: Sequence[ChatMessage], judged: Sequence[Verdict]) -> list[ChatMessage]:
    """`history` without talk of suicide and what was said to it; `judged` has a verdict for each
    message of the user's. Thanked after such talk, a small LLM goes on about it in ways that nobody
    should read; the notice that was given stays on the screen."""
    told, crisis, left = [], False, iter(judged)
    for message in history:
        if message.role == MessageRole.USER:
            verdict = next(left)
            crisis = verdict.emergency and verdict.kind == "suicide"
        if not crisis:
            told.append(message)
    return told
