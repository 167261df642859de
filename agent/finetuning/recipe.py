"""The numbers of a fine-tuning: what examples are made of, and how a run trains on them.

Owns the defaults, which the command's options are read from. Knows nothing of what is done with
them, and imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.errors import AgentError

MOST_RANK = 16  # vLLM's --max-lora-rank, unless it is told otherwise


@dataclass(frozen=True)
class Recipe:
    """What the examples are made of; docs/finetuning.md argues for the numbers."""

    rounds: int = 1  # examples of each dialogue, its documents drawn anew
    documents: float = 0.8  # share with documents; the rest trains `fine-tuned`
    oracle: float = 0.85  # P: share of those that hold a relevant document
    distractors: int = 1  # k
    altered: float = 0.2  # share of those with other numbers and medicines
    multi_turn: float = 0.15  # share that follows an earlier exchange
    by_hand: float = 0.0  # share of the answers by hand (`data/grounded.jsonl`) that is added
    seed: int = 0


@dataclass(frozen=True)
class Training:
    """How a run trains; batch size is the examples of one step, `at_once` those of one pass."""

    epochs: float = 1.0
    rank: int = 16
    learning_rate: float = 1.5e-3
    batch_size: int = 8
    at_once: int = 4
    four_bit: bool = False
    evaluations: int = 4  # over the whole run
    patience: int = 2  # evaluations without a better validation loss, then the run ends
    seed: int = 0

    def check(self) -> None:
        """Raise AgentError for numbers that do not go together."""
        if not 1 <= self.rank <= MOST_RANK:
            raise AgentError(
                f"--rank {self.rank} is out of range: 1 to {MOST_RANK}, because vLLM serves no "
                "more unless told."
            )
        if self.batch_size % self.at_once:
            raise AgentError(
                f"--batch-size {self.batch_size} is no multiple of --at-once {self.at_once}."
            )


@dataclass(frozen=True)
class RetrieverRecipe:
    """How a retriever is trained; docs/finetuning.md argues for the numbers."""

    rounds: int = 4  # times that pairs are drawn of each dialogue
    rank: int = 16  # of the LoRA; 0 trains all weights
    learning_rate: float = 8e-4
    batch_size: int = 32  # pairs, each other's negatives
    tokens: int = 96  # of a text while training
    negatives: bool = False  # whether each pair gets a mined negative, too
    kept: float = 0.0  # weight of the distance to the old vectors in the loss
    scale: float = 0.5  # of what was learned, in the weights that are kept (WiSE-FT)
    evaluations: int = 4
    patience: int = 2
    seed: int = 0

    def check(self) -> None:
        """Raise AgentError for numbers that do not go together."""
        if self.batch_size < 2:
            raise AgentError("--batch-size must be at least 2: pairs are each other's negatives.")
        if not 0 < self.scale <= 1:
            raise AgentError(f"--scale {self.scale} is out of range: more than 0, at most 1.")
