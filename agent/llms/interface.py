"""What every inference engine offers: one set of weights in, a base and a fine-tuned LLM out.

Owns the protocol that the engines keep and the numbers that mean the same on all of them. Knows
no engine, nothing of retrieval or conversations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from agent.behaviour import LLMChoice
from agent.errors import AgentError

if TYPE_CHECKING:
    from llama_index.core.base.llms.types import ChatMessage, ChatResponseAsyncGen, LLMMetadata

# Llama 3 ends a turn with one and a text with the other; ChatML models likewise.
END_TOKENS = ("<|eot_id|>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>")
PENALTY_WINDOW = 64  # tokens that the repetition penalty looks back on


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn; the same numbers mean the same on every engine."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 40
    min_p: float = 0.05
    repetition_penalty: float = 1.1
    seed: int | None = None  # drawn the same way again, as far as an engine can


@dataclass(frozen=True)
class Loss:
    """How much an LLM was surprised: nats over so many tokens; perplexity is exp(nats / tokens)."""

    nats: float
    tokens: int


class ChatLLM(Protocol):
    """A LlamaIndex chat LLM whose stream can be stopped, and which can count its own prompt."""

    @property
    def metadata(self) -> LLMMetadata: ...

    async def astream_chat(
        self, messages: Sequence[ChatMessage], **sampling: Any
    ) -> ChatResponseAsyncGen:
        """Stream one answer; where the last message is the assistant's, what follows it.

        `sampling` are the fields of `Sampling`.

        `raw["tokens"]` counts the answer's tokens so far. `raw["cut"]`, in a last response
        without text, tells that the model had not come to its end. Closing the generator stops
        the engine. Raises AgentError if the engine fails.
        """
        ...

    async def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        """Tokens of the whole prompt, as the model's chat template renders it."""
        ...

    async def loss(self, messages: Sequence[ChatMessage], answer: str) -> Loss | None:
        """Of reading `answer`, end of turn included, after `messages`, the last of which is not
        the assistant's. None where the engine does not tell."""
        ...


@dataclass(frozen=True)
class Engine:
    """A loaded inference engine; it works on up to `at_once` answers at the same time."""

    name: str
    model: str
    base: ChatLLM
    fine_tuned: ChatLLM | None
    at_once: int = 1

    def llm(self, choice: LLMChoice) -> ChatLLM:
        """The LLM of a choice. Raises AgentError if it is fine-tuned and there is none."""
        if choice == "base":
            return self.base
        if self.fine_tuned is None and self.name == "openai_like":
            raise AgentError(
                f"There is no fine-tuned LLM beside {self.model} here: set "
                "MEDRAFT_FINE_TUNED_MODEL to the server's name for it, or choose the base LLM.",
                key="no_fine_tuned",
                model=self.model,
            )
        if self.fine_tuned is None:
            raise AgentError(
                f"There is no fine-tuned LLM for {self.model} here: train a LoRA adapter for it "
                "(docs/finetuning.md says how) and set MEDRAFT_ADAPTER to its folder, or choose "
                "the base LLM.",
                key="no_fine_tuned",
                model=self.model,
            )
        return self.fine_tuned


def as_dicts(messages: Sequence[ChatMessage]) -> list[dict[str, str]]:
    """Messages as chat templates and servers take them."""
    return [{"role": m.role.value, "content": m.content or ""} for m in messages]


def prompt_ids(tokenizer: Any, messages: Sequence[ChatMessage]) -> list[int]:
    """The prompt's tokens by transformers' tokenizer; with the template, so there is one BOS."""
    begun = messages[-1].role == "assistant"
    encoded = tokenizer.apply_chat_template(
        as_dicts(messages),
        add_generation_prompt=not begun,
        continue_final_message=begun,
        return_dict=True,
    )
    return list(encoded["input_ids"])
