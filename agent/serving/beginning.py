"""A request's conversation, made anew from its messages.

Owns what a request sets of it. Does not know the protocol, nor what an answer is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from llama_index.core.base.llms.types import ChatMessage, MessageRole

from agent.chat.engine import PatientChatEngine
from agent.chat.parts import Loading
from agent.serving.answer import Answer
from agent.serving.request import Asked
from agent.settings import Settings
from agent.templates import Language


def begin(
    settings: Settings,
    loading: Loading,
    wanted: Asked,
    language: Language,
    link: Callable[[str], str],
) -> Answer:
    """The answer to a request; an answer is no longer than the settings let it be."""
    history = [ChatMessage(role=MessageRole(role), content=text) for role, text in wanted.history]
    engine = PatientChatEngine(settings, loading, history)
    engine.llm = wanted.llm or engine.llm
    engine.retrieval = wanted.retrieval
    engine.language = language
    engine.instructions, engine.stop = wanted.instructions, wanted.stop
    ours = engine.sampling
    engine.sampling = replace(
        ours,
        max_tokens=min(wanted.max_tokens or ours.max_tokens, ours.max_tokens),
        temperature=ours.temperature if wanted.temperature is None else wanted.temperature,
        top_p=ours.top_p if wanted.top_p is None else wanted.top_p,
        seed=wanted.seed,
    )
    return Answer(engine, link, wanted.message)
