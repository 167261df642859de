"""Doctors' replies as LlamaIndex retrieves them.

Owns the way from a query bundle to nodes, and the cut below which a reply is not shown.
Does not know when to retrieve, nor what is done with the nodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import NodeWithScore, QueryBundle

from index_store.dataset import Dialogue
from index_store.embedding import Embed
from index_store.live import LiveIndex
from index_store.node import reply_node
from index_store.store import Hit, IndexStore

SPARE = 5  # searched for each one wanted, because the cut takes some away


class DoctorReplyRetriever(BaseRetriever):
    """The `k` best replies that concern the question's problem as likely as `cut`: at most `k`,
    perhaps none.

    A bundle's own embedding, a unit vector (d,), searches if there is one; otherwise its text
    is embedded. A node's text is the reply; its metadata are `title`, `patient` and `rank`, the
    place in the search before the cut, from 1.
    """

    def __init__(
        self,
        store: IndexStore | LiveIndex,
        embed: Embed,
        k: int,
        cut: float,
        hidden: Callable[[Dialogue], bool] = lambda dialogue: False,
    ) -> None:
        """`cut` is a probability, 0 to 1; a `hidden` dialogue is passed over."""
        super().__init__(callback_manager=CallbackManager([]))
        self._store = store
        self._embed = embed
        self._k = k
        self._cut = cut
        self._hidden = hidden

    def hiding(self, hidden: Callable[[Dialogue], bool]) -> DoctorReplyRetriever:
        """The same, blind to some dialogues: who measures answers must not find them."""
        return DoctorReplyRetriever(self._store, self._embed, self._k, self._cut, hidden)

    def reply(self, id: str) -> Dialogue | None:
        """The dialogue of an id, as nodes have it, if the index holds it. Raises StoreError."""
        return self._store.find(id)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        text = query_bundle.query_str
        vector = (
            self._embed([text])[0]
            if query_bundle.embedding is None
            else np.asarray(query_bundle.embedding, dtype=np.float32)
        )
        hits = self._store.search(text, vector, self._k * SPARE)
        found = [(hit, Dialogue(hit.title, hit.patient, hit.doctor)) for hit in hits]
        return [
            _node(hit, dialogue)
            for hit, dialogue in found
            if hit.relevance >= self._cut and not self._hidden(dialogue)
        ][: self._k]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


def _node(hit: Hit, dialogue: Dialogue) -> NodeWithScore:
    node = reply_node(dialogue)
    node.metadata["rank"] = hit.rank
    return NodeWithScore(node=node, score=hit.score)
