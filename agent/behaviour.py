"""What the patient chooses, and the behaviour that results: LLM x retrieval."""

from __future__ import annotations

from typing import Literal

LLMChoice = Literal["base", "fine-tuned"]
Retrieval = Literal["auto", "always", "never"]
Behaviour = Literal["base", "RAG", "fine-tuned", "RAFT"]

# The choices that leave a behaviour no way but to result, in the order of comparisons.
CHOICES: dict[Behaviour, tuple[LLMChoice, Retrieval]] = {
    "base": ("base", "never"),
    "RAG": ("base", "always"),
    "fine-tuned": ("fine-tuned", "never"),
    "RAFT": ("fine-tuned", "always"),
}


def behaviour(llm: LLMChoice, replies: bool) -> Behaviour:
    """The behaviour of one answer: whether its prompt holds `replies`, not whether they were looked
    for. RAG that found nothing close enough is the base LLM alone."""
    if llm == "base":
        return "RAG" if replies else "base"
    return "RAFT" if replies else "fine-tuned"
