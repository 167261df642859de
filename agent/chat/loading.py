"""Everything a process loads once: encoder, index, embedding, inference engine.

Owns the order and the checks that come before anything slow. Knows no conversation's course.
"""

from __future__ import annotations

from collections.abc import Sequence

from llama_index.core.base.llms.types import ChatMessage

from agent.chat.engine import PatientChatEngine
from agent.chat.parts import Parts
from agent.llms import engines
from agent.routing.embedding import TurnEmbedding
from agent.settings import Settings, check_room
from agent.understanding.encoder import shipped
from index_store.embedding import question_embedder
from index_store.live import LiveIndex
from index_store.retriever import DoctorReplyRetriever


class Agent(Parts):
    """A loaded agent; conversations share all of it but their memory."""

    def conversation(self, history: Sequence[ChatMessage] = ()) -> PatientChatEngine:
        """A new conversation, or one that goes on from `history`."""
        return PatientChatEngine(self.settings, self._loaded, history)

    async def _loaded(self) -> Agent:
        return self


def load(settings: Settings) -> Agent:
    """Load all, quick checks first. Raises AgentError or StoreError, each one sentence."""
    shipped()  # first: an emergency is answered while the rest still loads
    store = LiveIndex(settings.index_dir, settings.embed_model, settings.search_on)
    engine = engines.load(settings)
    check_room(settings, engine.base.metadata.context_window, f"{engine.model} reads")
    embed = question_embedder(settings.embed_model)
    retriever = DoctorReplyRetriever(store, embed, settings.sources, settings.min_relevance)
    return Agent(settings, engine, TurnEmbedding(embed), retriever)
