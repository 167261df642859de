"""Training examples: from dialogues to prompts with the answers that belong to them.

Owns how an example is drawn, by the shares of a `Recipe`. The prompt itself comes from
`agent.chat.prompting`, as in a conversation, and what stands in it from the index's own search, so
that training sees what serving sends. RAFT is Zhang et al. 2024, arXiv 2403.10131: a share P of
the prompts with documents holds relevant ones beside k distractors, the others distractors
alone. Two things differ from the paper: a share of the examples has no documents at all, so
that one adapter serves `fine-tuned` and `RAFT`, and the answer is a doctor's reply to another
patient than the documents', never a quotation of them.

Knows nothing of training.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatMessage, LLMMetadata, MessageRole

from agent.chat.prompting import prompt
from agent.finetuning.recipe import Recipe
from agent.llms.interface import as_dicts
from agent.routing.embedding import TurnEmbedding
from agent.routing.query import query
from agent.routing.router import route
from index_store.dataset import Dialogue
from index_store.split import gives_away
from index_store.store import IndexStore

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONVERSATIONS = Path(__file__).parent / "data" / "conversations.jsonl"
# Hits of a search from which hard distractors are drawn: near the question, behind its answers.
HARD = slice(8, 40)
HARD_SHARE = 0.5  # the other distractors are drawn from the whole data set
SPARE = 10
MOST_RELEVANT = 2  # documents of other patients that one prompt holds at most


@dataclass(frozen=True)
class Example:
    """One prompt and its answer; `relevant` and `distractors` are ids of the replies in it."""

    prompt: list[ChatMessage]
    answer: str
    relevant: list[str]
    distractors: list[str]

    def row(self) -> dict[str, Any]:
        """As TRL reads it: a conversational prompt and completion."""
        return {
            "prompt": as_dicts(self.prompt),
            "completion": [{"role": "assistant", "content": self.answer}],
            "relevant": self.relevant,
            "distractors": self.distractors,
        }


class Tokenizer:
    """As much of an LLM as a prompt needs, with none of its weights."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, window: int) -> None:
        self._tokenizer = tokenizer
        self.metadata = LLMMetadata(context_window=window, is_chat_model=True)

    async def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        """Tokens of the whole prompt, as the model's chat template renders it."""
        encoded: Any = self._tokenizer.apply_chat_template(as_dicts(messages), return_dict=True)
        return len(encoded["input_ids"])

    def answer_tokens(self, text: str) -> int:
        """Tokens of an answer, without the one that ends it."""
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])


class ExampleMaker:
    """Makes examples from dialogues and conversations over one index of training dialogues."""

    def __init__(
        self,
        recipe: Recipe,
        tokenizer: Tokenizer,
        store: IndexStore,
        embedding: TurnEmbedding,
        training: Sequence[Dialogue],
        *,
        min_score: float,
        max_tokens: int,
    ) -> None:
        """`training` are the dialogues in `store`, more than k."""
        self.recipe = recipe
        self._tokenizer = tokenizer
        self._store = store
        self._embedding = embedding
        self._training = training
        self._min_score = min_score
        self._max_tokens = max_tokens
        self._random = random.Random(recipe.seed)
        self.counts: Counter[str] = Counter()

    async def dialogue(self, dialogue: Dialogue, with_documents: bool | None = None) -> Example:
        """One example of a dialogue; whether it has documents is drawn unless it is told."""
        draw = self._random.random
        history: list[ChatMessage] = []
        if draw() < self.recipe.multi_turn:
            earlier = self._random.choice(self._training)
            if earlier.patient != dialogue.patient:
                history = _exchange(earlier)
        if with_documents is None:
            with_documents = draw() < self.recipe.documents
        return await self._example(history, dialogue.patient, dialogue.doctor, with_documents)

    async def conversation(self, messages: Sequence[dict[str, str]]) -> list[Example]:
        """An example of every answer in a conversation; the router says which have documents."""
        said = [ChatMessage(role=MessageRole(m["role"]), content=m["content"]) for m in messages]
        examples = []
        for end in range(0, len(said), 2):
            decided, _ = route(messages[: end + 1])
            with_documents = decided.retrieve and self._random.random() < self.recipe.documents
            asked, answer = (m.content or "" for m in said[end : end + 2])
            examples.append(await self._example(said[:end], asked, answer, with_documents))
        return examples

    async def _example(
        self, history: list[ChatMessage], message: str, answer: str, with_documents: bool
    ) -> Example:
        relevant: list[Dialogue] = []
        distractors: list[Dialogue] = []
        if with_documents:
            relevant, distractors = self._documents(history, message, answer)
        documents = [*relevant, *distractors]
        self._random.shuffle(documents)
        texts = [document.doctor for document in documents]
        made = await prompt(
            self._tokenizer, "fine-tuned", history, message, texts, self._max_tokens
        )
        there = {document.id for document in documents[: made.used]}
        self.counts["with documents" if made.used else "without documents"] += 1
        self.counts["of them with a relevant one"] += any(d.id in there for d in relevant)
        self.counts["after an earlier exchange"] += bool(history)
        return Example(
            made.messages,
            answer,
            [document.id for document in relevant if document.id in there],
            [document.id for document in distractors if document.id in there],
        )

    def _documents(
        self, history: list[ChatMessage], message: str, answer: str
    ) -> tuple[list[Dialogue], list[Dialogue]]:
        """Relevant replies of other patients and k distractors, for one prompt."""
        said = [*as_dicts(history), {"role": "user", "content": message}]
        turns = [m["content"] for m in said if m["role"] == "user"]
        _, searched = route(said)
        asked = query(searched, self._embedding.matrix(searched))

        def of_another(dialogue: Dialogue) -> bool:
            return not gives_away(dialogue, turns, answer)

        relevant: list[Dialogue] = []
        hard: list[Dialogue] = []
        for hit in self._store.search(asked.text, asked.vector, HARD.stop):
            dialogue = Dialogue(hit.title, hit.patient, hit.doctor)
            if not of_another(dialogue):
                continue
            if hit.score >= self._min_score and len(relevant) < MOST_RELEVANT:
                relevant.append(dialogue)
            elif hit.rank > HARD.start:
                hard.append(dialogue)
        holds_oracle = self._random.random() < self.recipe.oracle
        relevant = relevant[: self._random.randint(1, MOST_RELEVANT)] if holds_oracle else []

        spare = min(len(self._training), SPARE + self.recipe.distractors)
        easy = [d for d in self._random.sample(self._training, spare) if of_another(d)]
        distractors: list[Dialogue] = []
        while len(distractors) < self.recipe.distractors and (hard or easy):
            pool = hard if hard and (not easy or self._random.random() < HARD_SHARE) else easy
            drawn = pool.pop(self._random.randrange(len(pool)))
            if drawn not in relevant and drawn not in distractors:
                distractors.append(drawn)
        return relevant, distractors


def _exchange(dialogue: Dialogue) -> list[ChatMessage]:
    return [
        ChatMessage(role=MessageRole.USER, content=dialogue.patient),
        ChatMessage(role=MessageRole.ASSISTANT, content=dialogue.doctor),
    ]
