"""Four behaviours, one question, with LLMs that say what the test tells them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest
from llama_index.core.base.llms.types import ChatMessage, MessageRole

from agent import settings
from agent.chat.comparison import Failed, compare, conversations
from agent.chat.engine import PatientChatEngine
from agent.chat.events import Delta, Emergency, Event, Finished, Retrieved
from agent.chat.loading import Agent
from agent.cli import talk
from agent.errors import AgentError
from agent.llms.interface import Engine
from agent.routing.embedding import TurnEmbedding
from index_store.embedding import EMBEDDED, Embed
from index_store.retriever import DoctorReplyRetriever
from index_store.store import IndexStore

from scripted import ScriptedLLM

COMPLAINT = "What helps against my migraine?"
BEFORE = [
    ChatMessage(role=MessageRole.USER, content="I am 40."),
    ChatMessage(role=MessageRole.ASSISTANT, content="Go on."),
]


@pytest.fixture
def base() -> ScriptedLLM:
    return ScriptedLLM()


@pytest.fixture
def tuned() -> ScriptedLLM:
    llm = ScriptedLLM()
    llm.script = ["Dear ", "patient, ", "rest."]
    return llm


@pytest.fixture
def agent(
    base: ScriptedLLM, tuned: ScriptedLLM, embed_questions: Embed, sample_index: Path
) -> Agent:
    """All but the LLMs is real."""
    chosen = settings.load(max_tokens=100, min_relevance=0.01)
    store = IndexStore.open(sample_index, EMBEDDED)
    retriever = DoctorReplyRetriever(store, embed_questions, chosen.sources, chosen.min_relevance)
    engine = Engine("scripted", "scripted", base=base, fine_tuned=tuned)
    return Agent(chosen, engine, TurnEmbedding(embed_questions), retriever)


async def events_of(
    agent: Agent, question: str, begun: PatientChatEngine | None = None
) -> list[tuple[str, Event | Failed]]:
    begun = begun or agent.conversation()
    each = conversations(lambda: begun.another(BEFORE))
    async with aclosing(compare(question, each)) as events:
        return [event async for event in events]


def last(events: list[tuple[str, Event | Failed]]) -> dict[str, Event | Failed]:
    return dict(events)


async def test_each_behaviour_answers_in_turn_after_the_same_history(
    agent: Agent, base: ScriptedLLM, tuned: ScriptedLLM
) -> None:
    events = await events_of(agent, COMPLAINT)
    assert list(dict.fromkeys(name for name, _ in events)) == ["base", "RAG", "fine-tuned", "RAFT"]
    ends = last(events)
    answers = {name: end.answer for name, end in ends.items() if isinstance(end, Finished)}
    assert "Rest in the dark." in answers["base"] and "Rest in the dark." in answers["RAG"]
    assert "Dear patient, rest." in answers["fine-tuned"] and "rest." in answers["RAFT"]
    looked_up = {name for name, event in events if isinstance(event, Retrieved) and event.sources}
    assert looked_up == {"RAG", "RAFT"}
    prompts = [*base.prompts, *tuned.prompts]
    assert len(prompts) == 4
    for prompt in prompts:
        said = [m.content for m in prompt]
        assert said[said.index("I am 40.") + 1] == "Go on."


async def test_an_error_of_one_does_not_end_the_others(agent: Agent, base: ScriptedLLM) -> None:
    base.script = ["Rest ", AgentError("The engine is gone.")]
    ends = last(await events_of(agent, COMPLAINT))
    for name in ("base", "RAG"):
        failed = ends[name]
        assert isinstance(failed, Failed) and str(failed.error) == "The engine is gone."
    assert isinstance(ends["fine-tuned"], Finished) and isinstance(ends["RAFT"], Finished)


async def test_without_a_fine_tuned_llm_two_say_so(agent: Agent, base: ScriptedLLM) -> None:
    alone = Agent(
        agent.settings,
        Engine("scripted", "scripted", base=base, fine_tuned=None),
        agent.embedding,
        agent.retriever,
    )
    ends = last(await events_of(alone, COMPLAINT))
    for name in ("fine-tuned", "RAFT"):
        failed = ends[name]
        assert isinstance(failed, Failed)
        assert str(failed.error).startswith("There is no fine-tuned LLM for scripted here")
    assert isinstance(ends["base"], Finished) and isinstance(ends["RAG"], Finished)


async def test_closing_it_stops_the_engine(agent: Agent, base: ScriptedLLM) -> None:
    async with aclosing(compare(COMPLAINT, conversations(agent.conversation))) as events:
        async for _, event in events:
            if isinstance(event, Delta):
                break
    assert base.closed and len(base.prompts) == 1


async def test_the_notice_of_an_emergency_is_in_the_language_asked_for(agent: Agent) -> None:
    begun = agent.conversation()
    begun.language, begun.country = "es", "ES"
    events = await events_of(agent, "my chest hurts badly and my left arm is numb", begun)
    notices = [event.notice for _, event in events if isinstance(event, Emergency)]
    assert len(notices) == 4 and all("112" in notice for notice in notices)


def test_in_the_terminal_each_is_shown_under_its_name(
    agent: Agent, base: ScriptedLLM, capsys: pytest.CaptureFixture[str]
) -> None:
    base.script = [AgentError("The engine is gone.")]
    asyncio.run(talk.all_four(agent.conversation, COMPLAINT, as_json=False))
    out, err = capsys.readouterr()
    assert out.index("--- base") < out.index("--- RAG") < out.index("--- fine-tuned")
    assert "Dear patient, rest." in out
    assert "base: The engine is gone." in err and "tokens in" in err


def test_as_json_each_is_what_ask_prints_and_an_error_is_named(
    agent: Agent, base: ScriptedLLM
) -> None:
    base.script = [AgentError("The engine is gone.")]
    answers = asyncio.run(talk.all_four(agent.conversation, COMPLAINT, as_json=True))
    assert [answer["behaviour"] for answer in answers] == ["base", "RAG", "fine-tuned", "RAFT"]
    assert [answer.get("error") for answer in answers] == ["The engine is gone."] * 2 + [None] * 2
    assert answers[3]["answer"].endswith("Dear patient, rest.") and answers[3]["sources"]
    assert answers[0].keys() - {"error"} == answers[3].keys()


def test_no_answer_at_all_is_an_error(agent: Agent, base: ScriptedLLM, tuned: ScriptedLLM) -> None:
    base.script = tuned.script = [AgentError("The engine is gone.")]
    with pytest.raises(AgentError, match="The engine is gone"):
        asyncio.run(talk.all_four(agent.conversation, COMPLAINT, as_json=True))
