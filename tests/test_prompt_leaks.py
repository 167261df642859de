"""No line of a prompt is said to a patient."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent import settings
from agent.behaviour import LLMChoice
from agent.chat import loading
from agent.chat.loading import Agent
from agent.chat.record import collect
from agent.settings import ROOT
from index_store.dataset import Dialogue

PROMPTS = ("system", "rag", "rag.embedded", "raft")  # `opening` are the answer's own first words
SENTENCE = re.compile(r"(?<=[.:!?])\s+|\n+")


def sentences() -> list[str]:
    """What the prompts hold beside the patient's words and the replies."""
    texts = [(ROOT / "prompts" / f"{name}.j2").read_text(encoding="utf-8") for name in PROMPTS]
    fixed = [re.sub(r"\{[{%#].*?[}%#]\}", "\n", text, flags=re.DOTALL) for text in texts]
    return [s.strip() for text in fixed for s in SENTENCE.split(text) if len(s.split()) > 2]


def as_words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


@pytest.fixture(scope="module")
def agent(models_home: Path, sample_index: Path) -> Agent:
    return loading.load(
        settings.load(
            engine="llama_cpp",
            model="embedded",
            home=models_home,
            index_dir=sample_index,
            threads=1,
            temperature=0,
            min_relevance=0,
            max_tokens=80,
        )
    )


def test_there_are_sentences_to_look_for() -> None:
    assert len(sentences()) >= 5


@pytest.mark.parametrize("llm", ["base", "fine-tuned"])
@pytest.mark.parametrize("retrieval", ["always", "never"])
async def test_no_sentence_of_a_prompt_is_said(
    agent: Agent, dialogues: list[Dialogue], llm: LLMChoice, retrieval: str
) -> None:
    for dialogue in dialogues[:4]:
        conversation = agent.conversation()
        conversation.llm = llm
        conversation.retrieval = "always" if retrieval == "always" else "never"
        answer = as_words((await collect(conversation, dialogue.title))["answer"])
        assert answer
        assert [line for line in sentences() if as_words(line) in answer] == []
