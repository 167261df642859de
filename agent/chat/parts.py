"""What a turn is given: the parts that a process loads once, and a conversation's choices.

Owns neither how they are loaded nor who chooses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agent.behaviour import LLMChoice, Retrieval
from agent.llms.interface import Engine, Sampling
from agent.routing.embedding import TurnEmbedding
from agent.settings import Settings
from agent.templates import Language
from index_store.retriever import DoctorReplyRetriever


@dataclass(frozen=True)
class Parts:
    """What a process loads once, and its conversations answer with."""

    settings: Settings
    engine: Engine
    embedding: TurnEmbedding
    retriever: DoctorReplyRetriever


# The parts when they are loaded. Raises AgentError or StoreError if they cannot be.
Loading = Callable[[], Awaitable[Parts]]


@dataclass(frozen=True)
class Choices:
    """What holds for a turn, whatever is chosen while it runs."""

    llm: LLMChoice
    retrieval: Retrieval
    language: Language
    country: str
    watchful: bool
    sampling: Sampling
    stop: tuple[str, ...]
    instructions: str
    window: int  # tokens that no LLM here reads more of at once
