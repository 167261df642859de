"""Training examples: from dialogues to prompts with the answers that belong to them.

Owns how an example is drawn, by the shares of a `Recipe`. The prompt itself comes from
`agent.chat.prompting`, as in a conversation, and what stands in it from the index's own search, so
that training sees what serving sends. RAFT is Zhang et al. 2024, arXiv 2403.10131: a share P of
the prompts with documents holds relevant ones beside k distractors, the others distractors
alone, and the answer is drawn from the documents (`targets.py`). Two things differ from the
paper: a share of the examples has no documents at all, so that one adapter serves `fine-tuned` and
`RAFT`, and some prompts hold one document, as some searches find one.

Knows nothing of training.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatMessage, LLMMetadata, MessageRole

from agent.chat.prompting import Prompt, as_read, prompt
from agent.finetuning.altered import Altered
from agent.finetuning.grounded import Grounded
from agent.finetuning.recipe import Recipe
from agent.finetuning.targets import TargetMaker, borne_alone
from agent.llms.interface import as_dicts, prompt_ids
from agent.routing.embedding import TurnEmbedding
from agent.routing.query import queries
from agent.routing.router import route
from index_store.dataset import Dialogue
from index_store.embedding import Embed
from index_store.split import gives_away
from index_store.store import IndexStore

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DATA = Path(__file__).parent / "data"
CONVERSATIONS = DATA / "conversations.jsonl"
MEDICINES = DATA / "medicine_questions.jsonl"  # and answers that say that it cannot be known
# Hits of a search from which hard distractors are drawn: near the question, behind its answers.
HARD = slice(8, 40)
HARD_SHARE = 0.5  # the other distractors are drawn from the whole data set
SPARE = 10
SINGLE = 0.3  # share of the prompts with documents that hold one


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

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str, window: int) -> None:
        """`name` is the model's, as its engine has it."""
        self._tokenizer = tokenizer
        self.metadata = LLMMetadata(context_window=window, is_chat_model=True, model_name=name)

    async def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        """Tokens of the whole prompt, as the model's chat template renders it."""
        return len(prompt_ids(self._tokenizer, messages))

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
        embed: Embed,
        *,
        min_relevance: float,
        max_tokens: int,
    ) -> None:
        """`training` are the dialogues in `store`, more than k; `embed` is for sentences."""
        self.recipe = recipe
        self._tokenizer = tokenizer
        self._store = store
        self._embedding = embedding
        self._training = training
        self._min_relevance = min_relevance
        self._max_tokens = max_tokens
        self._random = random.Random(recipe.seed)
        self._targets = TargetMaker(embed, self._random)
        self.counts: Counter[str] = Counter()

    async def dialogue(self, dialogue: Dialogue) -> Example:
        """One example of a dialogue."""
        draw = self._random.random
        history: list[ChatMessage] = []
        if draw() < self.recipe.multi_turn:
            earlier = self._random.choice(self._training)
            if earlier.patient != dialogue.patient:
                history = _exchange(earlier)
        with_documents = draw() < self.recipe.documents
        return await self._example(history, dialogue.patient, dialogue.doctor, with_documents)

    async def conversation(self, messages: Sequence[dict[str, str]]) -> list[Example]:
        """An example of every answer in a conversation; the router says which have documents."""
        said = _chat(messages)
        examples = []
        for end in range(0, len(said), 2):
            decided, _ = route(messages[: end + 1])
            with_documents = decided.retrieve and self._random.random() < self.recipe.documents
            asked, answer = (m.content or "" for m in said[end : end + 2])
            examples.append(await self._example(said[:end], asked, answer, with_documents))
        return examples

    async def alone(self, messages: Sequence[dict[str, str]]) -> list[Example]:
        """An example of every answer in a conversation, as it was written: for no documents."""
        said = _chat(messages)
        examples = []
        for end in range(0, len(said), 2):
            asked, answer = (m.content or "" for m in said[end : end + 2])
            examples.append(await self._alone(said[:end], asked, answer))
        return examples

    async def grounded(self, written: Grounded) -> Example | None:
        """An example of an answer by hand, which was written from whole replies, as other LLMs than
        the embedded one read them; None if they are longer than the model reads."""
        texts = [reply.doctor for reply in written.replies]
        made = await self._prompt([], written.patient.patient, texts)
        if made.used < len(texts):
            return None
        self.counts["written by hand"] += 1
        cited = [
            reply.id for n, reply in enumerate(written.replies, 1) if f"[{n}]" in written.answer
        ]
        others = [reply.id for reply in written.replies if reply.id not in cited]
        return Example(made.messages, written.answer, cited, others)

    async def _example(
        self, history: list[ChatMessage], message: str, answer: str, with_documents: bool
    ) -> Example:
        self.counts["after an earlier exchange"] += bool(history)
        example = await self._raft(history, message, answer) if with_documents else None
        if example is not None:
            return example
        asked = [m.content or "" for m in history if m.role == MessageRole.USER]
        return await self._alone(history, message, borne_alone(answer, [*asked, message]))

    async def _alone(self, history: list[ChatMessage], message: str, answer: str) -> Example:
        """An example without documents."""
        self.counts["without documents"] += 1
        made = await self._prompt(history, message, [])
        return Example(made.messages, answer, [], [])

    async def _raft(self, history: list[ChatMessage], message: str, answer: str) -> Example | None:
        """An example with documents; None if the search finds what nothing can be quoted of, which
        is neither a yes nor a no to learn."""
        said = [*as_dicts(history), {"role": "user", "content": message}]
        _, searched = route(said)
        turns = [m["content"] for m in said if m["role"] == "user"]
        documents, relevant = self._documents(searched, turns, answer)
        texts = [document.doctor for document in documents]
        letters = [document.letter for document in documents]
        altered: Callable[[str], str] = str
        if self._random.random() < self.recipe.altered:
            altered = Altered(texts, self._random)
        read = as_read(self._tokenizer, texts, letters, turns)
        made = await self._prompt(history, message, [altered(text) for text in read if text])
        documents = [each for each, text in zip(documents, read, strict=True) if text][: made.used]
        there = [document for document in documents if document in relevant]
        own = "\n".join(searched)
        asked = self._embedding.matrix([queries(searched)[-1]])[0]
        target = self._targets.answer(own, asked, answer, documents, altered)
        if not documents or (there and not target.cited):
            return None
        self.counts["with documents"] += 1
        self.counts["of them with a relevant one"] += bool(there)
        self.counts["of them that no reply fits"] += not target.cited
        self.counts["of them changed"] += altered is not str
        return Example(
            made.messages,
            target.text,
            [document.id for document in there],
            [document.id for document in documents if document not in there],
        )

    async def _prompt(
        self, history: list[ChatMessage], message: str, texts: Sequence[str]
    ) -> Prompt:
        return await prompt(
            self._tokenizer, "fine-tuned", history, message, texts, self._max_tokens
        )

    def _documents(
        self, searched: Sequence[str], turns: Sequence[str], answer: str
    ) -> tuple[list[Dialogue], list[Dialogue]]:
        """The documents of one prompt, shuffled, and which of them are relevant: what the search
        finds first beside k distractors, or as many distractors alone."""

        def of_another(dialogue: Dialogue) -> bool:
            return not gives_away(dialogue, turns, answer)

        near, hard = self._found(searched, of_another)
        size = 1 if self._random.random() < SINGLE else 1 + self.recipe.distractors
        relevant: list[Dialogue] = []
        if self._random.random() < self.recipe.oracle:
            # As often as not a second one stands where a distractor would: so does a search's end.
            relevant = near[: min(size, self._random.randint(1, 2))]
        documents = [*relevant]
        spare = min(len(self._training), SPARE + size)
        easy = [d for d in self._random.sample(self._training, spare) if of_another(d)]
        while len(documents) < size and (hard or easy):
            pool = hard if hard and (not easy or self._random.random() < HARD_SHARE) else easy
            drawn = pool.pop(self._random.randrange(len(pool)))
            if drawn not in near and drawn not in documents:
                documents.append(drawn)
        self._random.shuffle(documents)
        return documents, relevant

    def _found(
        self, searched: Sequence[str], of_another: Callable[[Dialogue], bool]
    ) -> tuple[list[Dialogue], list[Dialogue]]:
        """The replies to others that fit, and those that a search puts far down."""
        for asked in queries(searched):
            near: list[Dialogue] = []
            hard: list[Dialogue] = []
            for hit in self._store.search(asked, self._embedding.matrix([asked])[0], HARD.stop):
                dialogue = Dialogue(hit.title, hit.patient, hit.doctor)
                if of_another(dialogue):
                    if hit.rank > HARD.start:
                        hard.append(dialogue)
                    elif hit.relevance >= self._min_relevance:
                        near.append(dialogue)
            if near:
                break
        return near, hard


def _chat(messages: Sequence[dict[str, str]]) -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole(m["role"]), content=m["content"]) for m in messages]


def _exchange(dialogue: Dialogue) -> list[ChatMessage]:
    return [
        ChatMessage(role=MessageRole.USER, content=dialogue.patient),
        ChatMessage(role=MessageRole.ASSISTANT, content=dialogue.doctor),
    ]
