"""The turn: its order, its memory, its choices, with an LLM that says what the test tells it."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    MessageRole,
)
from llama_index.core.schema import NodeWithScore, QueryBundle

from agent import settings
from agent.chat.engine import PatientChatEngine
from agent.chat.events import (
    Advice,
    Delta,
    Emergency,
    Event,
    Finished,
    HeldBack,
    Notice,
    Retrieved,
    Routed,
    Waiting,
)
from agent.chat.loading import Agent, load
from agent.chat.record import collect
from agent.cli.terminal import show
from agent.errors import AgentError
from agent.llms.interface import Engine
from agent.routing.embedding import TurnEmbedding
from agent.safety.triage import CALM, Verdict
from agent.templates import Language, render
from agent.understanding.encoder import behind
from index_store.dataset import Dialogue
from index_store.embedding import EMBEDDED, Embed
from index_store.errors import StoreError
from index_store.node import dialogue_of, reply_node
from index_store.retriever import DoctorReplyRetriever
from index_store.store import IndexStore

from scripted import ScriptedLLM
from serving import until

COMPLAINT = "What helps against my migraine?"
OPENING = render("opening.rag.embedded") + "\n\n"
ANSWER = f"{OPENING}Rest in the dark. [1]"  # as the first reply found says


Talk = Callable[..., PatientChatEngine]


@pytest.fixture
def base() -> ScriptedLLM:
    return ScriptedLLM()


@pytest.fixture
def talk(base: ScriptedLLM, embed_questions: Embed, sample_index: Path) -> Talk:
    """A conversation over the small index, with a scripted base LLM and no adapter."""
    store = IndexStore.open(sample_index, EMBEDDED)

    def start(**values: Any) -> PatientChatEngine:
        chosen = settings.load(**{"max_tokens": 100, "min_relevance": 0} | values)
        retriever = DoctorReplyRetriever(
            store, embed_questions, chosen.sources, chosen.min_relevance
        )
        engine = Engine("scripted", "scripted", base=base, fine_tuned=None)
        return Agent(chosen, engine, TurnEmbedding(embed_questions), retriever).conversation()

    return start


async def events_of(engine: PatientChatEngine, message: str) -> list[Event]:
    async with aclosing(engine.turn(message)) as events:
        return [event async for event in events]


def history(engine: PatientChatEngine) -> list[tuple[str, str]]:
    return [(m.role.value, m.content or "") for m in engine.chat_history]


async def test_a_complaint_is_routed_retrieved_and_answered(talk: Talk, base: ScriptedLLM) -> None:
    routed, retrieved, *deltas, finished = await events_of(engine := talk(), COMPLAINT)
    assert isinstance(routed, Routed) and routed.behaviour == "RAG"
    assert isinstance(retrieved, Retrieved)
    assert "migraine" in retrieved.sources[0].get_content()
    first, *others = [delta.text for delta in deltas if isinstance(delta, Delta)]
    assert [first.removeprefix(OPENING), *others] == ["Rest", " in", " the", " dark. [1]"]
    assert isinstance(finished, Finished) and finished.answer == ANSWER
    assert finished.timing.tokens == 4
    assert 0 < finished.timing.route_ms < finished.timing.first_token_ms  # type: ignore[operator]
    assert history(engine) == [("user", COMPLAINT), ("assistant", finished.answer)]


async def test_sources_stand_in_the_last_message_only(talk: Talk, base: ScriptedLLM) -> None:
    engine = talk()
    await events_of(engine, COMPLAINT)
    await events_of(engine, "And if the pain comes back at night?")
    system, question, reply, last, opening = base.prompts[1]
    assert system.role == MessageRole.SYSTEM
    assert (question.content, reply.content) == (COMPLAINT, f"{OPENING}Rest in the dark.")
    assert "dark room" in (last.content or "")
    assert opening.content == OPENING
    assert base.prompts[0][0] == system


async def test_a_reply_of_which_nothing_may_be_said_is_left_out_and_the_next_one_is_the_first(
    talk: Talk, base: ScriptedLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = Dialogue("Q. A stent?", "I take aspirin 75.", "Aspirin 75 mg protects the stent.")
    ours = Dialogue("Q. Migraine?", "My head throbs.", "Light hurts. Rest in the dark.")

    async def found(_: DoctorReplyRetriever, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=reply_node(each), score=0.9) for each in (theirs, ours)]

    monkeypatch.setattr(DoctorReplyRetriever, "_aretrieve", found)
    base.script = ["Aspirin 75 mg protects the stent. ", "Rest in the dark."]
    events = await events_of(talk(), COMPLAINT)
    retrieved = next(event for event in events if isinstance(event, Retrieved))
    assert [dialogue_of(node) for node in retrieved.sources] == [ours]
    assert [dialogue_of(node) for node in retrieved.left_out] == [theirs]
    assert "stent" not in str(base.prompts)
    said = events[-1]
    assert isinstance(said, Finished)
    # What was not read bears nothing.
    assert "Aspirin" not in said.answer and "Rest in the dark. [1]" in said.answer


async def test_thanks_are_not_retrieved(talk: Talk, base: ScriptedLLM) -> None:
    engine = talk()
    await events_of(engine, COMPLAINT)
    routed, *rest = await events_of(engine, "thank you doctor")
    assert isinstance(routed, Routed) and routed.behaviour == "base"
    assert not any(isinstance(event, Retrieved) for event in rest)
    assert base.prompts[1][-1].content == "thank you doctor"


async def test_a_follow_up_searches_with_the_turn_before(talk: Talk) -> None:
    engine = talk(sources=1)
    await events_of(engine, "I get migraine twice a month and light hurts my eyes.")
    events = await events_of(engine, "It gets worse when I look at a screen. What should I take?")
    sources = next(event.sources for event in events if isinstance(event, Retrieved))
    assert "migraine" in sources[0].get_content()


async def test_never_and_always_are_obeyed(talk: Talk) -> None:
    engine = talk()
    engine.retrieval = "never"
    routed, *rest = await events_of(engine, COMPLAINT)
    assert isinstance(routed, Routed) and routed.behaviour == "base"
    assert routed.route.score is None
    assert not any(isinstance(event, Retrieved) for event in rest)
    engine.retrieval = "always"
    routed, retrieved, *_ = await events_of(engine, "thank you doctor")
    assert isinstance(routed, Routed) and routed.behaviour == "RAG"
    assert isinstance(retrieved, Retrieved)


async def test_nothing_close_enough_is_answered_without_sources(
    talk: Talk, base: ScriptedLLM
) -> None:
    events = await events_of(talk(min_relevance=0.99), COMPLAINT)
    found = next(e for e in events if isinstance(e, Retrieved))
    assert (found.sources, found.behaviour) == ([], "base")
    assert base.prompts[0][-1].content == COMPLAINT
    assert isinstance(events[-1], Finished) and events[-1].speaker == "base"


async def test_a_badge_is_raft_or_rag_only_where_the_prompt_held_replies(
    talk: Talk, capsys: pytest.CaptureFixture[str]
) -> None:
    told = await collect(talk(), COMPLAINT)
    assert (told["behaviour"], told["speaker"], told["nothing_fitted"]) == ("RAG", "RAG", False)
    told = await collect(talk(min_relevance=0.99), COMPLAINT)
    assert (told["behaviour"], told["speaker"], told["nothing_fitted"]) == ("base", "base", True)
    assert told["route"]["retrieve"] is True
    whole = await talk(min_relevance=0.99).achat(COMPLAINT)
    assert whole.metadata is not None and whole.metadata["behaviour"] == "base"
    await show(talk(min_relevance=0.99), COMPLAINT)
    aside = "no doctor's reply was close enough: base answers, without sources"
    assert aside in capsys.readouterr().err


async def test_fine_tuned_without_an_adapter_is_refused_and_forgotten(talk: Talk) -> None:
    engine = talk()
    engine.llm = "fine-tuned"
    with pytest.raises(AgentError, match="MEDRAFT_ADAPTER"):
        await events_of(engine, COMPLAINT)
    assert engine.chat_history == []


async def test_an_emergency_is_told_first_and_the_conversation_goes_on(
    talk: Talk, base: ScriptedLLM
) -> None:
    engine = talk()
    chest = "I have crushing chest pain and my left arm is numb"
    first, *_, words, finished = await events_of(engine, chest)
    assert isinstance(first, Emergency) and first.kind == "cardiac"
    assert isinstance(words, Delta) and "no model answers now" in words.text
    assert isinstance(finished, Finished) and finished.answer == words.text
    assert history(engine)[1] == ("assistant", f"{first.notice}\n\n{words.text}")
    assert base.prompts == []

    # Who insists is answered, below the notice.
    again, *_, finished = await events_of(engine, f"A doctor has seen me. {chest}, why?")
    assert isinstance(again, Emergency) and isinstance(finished, Finished)
    assert finished.answer.endswith("Rest in the dark.")


async def test_words_for_an_emergency_wait_for_nothing(talk: Talk, tmp_path: Path) -> None:
    """Neither for models that still load, nor for an index that is gone or damaged, nor for an LLM
    that is dead, nor for room in its window."""
    chosen = settings.load(index_dir=tmp_path, home=tmp_path)

    async def still_loading() -> Agent:
        await asyncio.Event().wait()
        raise AssertionError

    async def without_index() -> Agent:
        return await asyncio.to_thread(load, chosen)

    chest = "I have crushing chest pain and my left arm is numb"
    for loading, text in (
        (still_loading, chest),
        (without_index, chest),
        (without_index, f"{chest}. " * 10_000),
    ):
        told = await events_of(PatientChatEngine(chosen, loading), text)
        assert [type(event) for event in told] == [Emergency, HeldBack, Delta, Finished]

    # An emergency that an LLM is to answer is told, too, before it turns out that none can.
    insists = PatientChatEngine(chosen, without_index)
    await events_of(insists, chest)
    with pytest.raises(StoreError, match="index"):
        await events_of(insists, f"A doctor has seen me. {chest}, why?")
    assert [text.split("\n")[0] for role, text in history(insists) if role == "assistant"] == [
        "**This may be an emergency. Call your local emergency number now (112, 911 or 999).**"
    ] * 2


async def test_a_dead_engine_or_a_damaged_index_does_not_hide_the_notice(
    talk: Talk, base: ScriptedLLM, sample_index: Path, tmp_path: Path
) -> None:
    base.script = [AgentError("The engine is dead.")]
    engine = talk()
    first, *_ = await events_of(engine, "I have crushing chest pain")
    assert isinstance(first, Emergency) and base.prompts == []

    damaged = tmp_path / "index"
    shutil.copytree(sample_index, damaged)
    for file in damaged.rglob("vectors.faiss"):
        file.write_bytes(file.read_bytes()[:100])
    chosen = settings.load(index_dir=damaged, home=tmp_path)

    async def loading() -> Agent:
        return await asyncio.to_thread(load, chosen)

    first, *_ = await events_of(PatientChatEngine(chosen, loading), "I have crushing chest pain")
    assert isinstance(first, Emergency)


async def test_who_measures_a_model_gets_its_own_words(talk: Talk, base: ScriptedLLM) -> None:
    engine = talk()
    engine.watchful = False
    *events, finished = await events_of(engine, "I have crushing chest pain")
    assert not any(isinstance(event, Emergency) for event in events)
    assert isinstance(finished, Finished) and finished.answer.endswith("Rest in the dark.")


async def test_talk_of_suicide_is_answered_by_no_model_nor_told_to_it_later(
    talk: Talk, base: ScriptedLLM
) -> None:
    engine = talk()
    for text in ("I want to kill myself", "I still want to kill myself"):
        emergency, *_, words, finished = await events_of(engine, text)
    assert isinstance(emergency, Emergency) and emergency.kind == "suicide"
    assert isinstance(words, Delta) and "a person rather than a program" in words.text
    assert isinstance(finished, Finished) and finished.answer == words.text
    assert base.prompts == []
    assert history(engine)[1][1] == f"{emergency.notice}\n\n{words.text}"

    await events_of(engine, COMPLAINT)
    assert not any("kill" in (message.content or "") for message in base.prompts[0])


def judged(monkeypatch: pytest.MonkeyPatch, **by_text: Verdict) -> None:
    """Triage finds what a message's first word says."""

    def told(texts: list[str]) -> list[Verdict]:
        return [by_text.get(text.split()[0], CALM) for text in texts]

    monkeypatch.setattr("agent.safety.triage.verdicts", told)


@pytest.mark.parametrize("language", ["en", "es"])
async def test_what_someone_should_see_soon_has_a_line_above_its_answer(
    language: Language, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(monkeypatch, jaundice=Verdict("soon", "abdomen"))
    engine = talk()
    engine.language, engine.country = language, "ES"
    advice, *rest, finished = await events_of(engine, "jaundice since Monday")
    assert isinstance(advice, Advice) and "112" in advice.text
    assert isinstance(finished, Finished) and finished.answer.endswith("Rest in the dark.")
    assert not any(isinstance(event, Emergency) for event in rest)
    assert history(engine)[1][1] == f"{advice.text}\n\n{finished.answer}"
    whole = await talk().achat("jaundice since Monday")
    assert whole.metadata is not None and whole.metadata["advice"] in whole.response
    stream = await talk().astream_chat("jaundice since Monday")
    pieces = [piece async for piece in stream.async_response_gen()]
    assert pieces[0].startswith(whole.metadata["advice"])


async def test_after_talk_of_suicide_no_model_answers_an_emergency(
    talk: Talk, base: ScriptedLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(monkeypatch, goodbye=Verdict("soon", "suicide"), pills=Verdict("now", "overdose"))
    engine = talk()
    await events_of(engine, "goodbye all")
    for _ in range(2):
        emergency, _, words, _ = await events_of(engine, "pills are gone")
        assert isinstance(emergency, Emergency) and emergency.kind == "overdose"
        assert isinstance(words, Delta) and "a person rather than a program" in words.text
    assert base.prompts == []


async def test_a_follow_up_is_not_searched_with_talk_of_suicide(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(monkeypatch, goodbye=Verdict("now", "suicide"))
    searched: list[str] = []

    async def turns(_: object, texts: list[str]) -> Any:
        searched.extend(texts)
        return np.eye(len(texts), 384, dtype=np.float32)

    monkeypatch.setattr(TurnEmbedding, "turns", turns)
    engine = talk()
    await events_of(engine, "goodbye all, I have the pills here and my head hurts")
    await events_of(engine, "and my head still hurts so much, what can I take?")
    assert searched and not any("goodbye" in text for text in searched)


async def test_who_asks_again_is_answered_whatever_kind_is_read(
    talk: Talk, base: ScriptedLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(monkeypatch, chest=Verdict("now", "cardiac"), breath=Verdict("now", "breathing"))
    engine = talk()
    await events_of(engine, "chest pain")
    emergency, *events = await events_of(engine, "breath was short last year, a doctor saw it")
    assert isinstance(emergency, Emergency)
    assert not any(isinstance(event, HeldBack) for event in events)
    assert base.prompts


async def test_an_emergency_is_looked_up_by_its_own_words(talk: Talk) -> None:
    async def sources(engine: PatientChatEngine) -> list[str]:
        chest = "I have crushing chest pain"
        for _ in range(2):  # the second time it is answered
            events = await events_of(engine, chest)
        (found,) = [event.sources for event in events if isinstance(event, Retrieved)]
        return [source.get_content() for source in found]

    engine = talk(min_relevance=0)
    await events_of(engine, COMPLAINT)
    assert await sources(engine) == await sources(talk(min_relevance=0))


async def test_stop_remembers_what_was_seen_and_closes_the_engine(
    talk: Talk, base: ScriptedLLM
) -> None:
    engine = talk()
    async with aclosing(engine.turn(COMPLAINT)) as turn:
        async for event in turn:
            if isinstance(event, Delta):
                break
    assert base.closed
    assert history(engine) == [("user", COMPLAINT), ("assistant", f"{OPENING}Rest")]


async def test_a_message_stopped_before_any_word_is_forgotten(
    talk: Talk, base: ScriptedLLM
) -> None:
    engine = talk()
    for last in (Routed, Retrieved):
        async with aclosing(engine.turn(COMPLAINT)) as turn:
            async for event in turn:
                if isinstance(event, last):
                    break
        assert history(engine) == []
    await events_of(engine, COMPLAINT)
    assert [role for role, _ in history(engine)] == ["user", "assistant"]


async def test_a_stopped_emergency_is_remembered_with_its_notice(talk: Talk) -> None:
    engine = talk()
    async with aclosing(engine.turn("I have crushing chest pain")) as turn:
        first = await anext(turn)
    assert isinstance(first, Emergency)
    assert history(engine)[1] == ("assistant", first.notice)


async def test_what_is_rewound_is_in_no_prompt(talk: Talk, base: ScriptedLLM) -> None:
    engine = talk()
    for text in ("Why do my knees creak?", COMPLAINT, "And at night?"):
        await events_of(engine, text)
    engine.rewind(2)
    assert [text for role, text in history(engine) if role == "user"] == ["Why do my knees creak?"]
    await events_of(engine, "Thank you")
    assert [m.content for m in base.prompts[-1][1:3]] == [text for _, text in history(engine)[:2]]
    assert all(COMPLAINT not in (m.content or "") for m in base.prompts[-1])


async def test_a_cancelled_task_remembers_too(talk: Talk, base: ScriptedLLM) -> None:
    engine = talk()
    seen = asyncio.Event()

    async def patient() -> None:
        async with aclosing(engine.turn(COMPLAINT)) as turn:
            async for event in turn:
                if isinstance(event, Delta):
                    base.hold.clear()
                    seen.set()

    task = asyncio.create_task(patient())
    await seen.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert base.closed
    assert history(engine)[-1] == ("assistant", f"{OPENING}Rest")
    base.hold.set()
    assert isinstance((await events_of(engine, "And then?"))[-1], Finished)


async def test_an_engine_that_fails_in_mid_answer_keeps_what_was_said(
    talk: Talk, base: ScriptedLLM
) -> None:
    base.script = ["Rest ", "now", AgentError("The engine failed.")]
    engine = talk()
    with pytest.raises(AgentError, match="engine failed"):
        await events_of(engine, COMPLAINT)
    assert history(engine)[-1] == ("assistant", f"{OPENING}Rest")


async def test_a_model_that_does_not_end_is_ended_with_a_sentence(
    talk: Talk, base: ScriptedLLM
) -> None:
    base.script = [f"{number} water{'. ' if number % 2 else ' '}" for number in range(100)]
    finished = (await events_of(talk(max_tokens=21), COMPLAINT))[-1]
    assert isinstance(finished, Finished)
    assert finished.timing.tokens == 16
    assert finished.answer.endswith("15 water.") and not finished.ended


async def test_a_model_that_repeats_itself_is_ended(talk: Talk, base: ScriptedLLM) -> None:
    base.script = ["Drink ", "water. ", "Rest ", "well. "] * 10
    finished = (await events_of(talk(), COMPLAINT))[-1]
    assert isinstance(finished, Finished)
    assert finished.answer == f"{OPENING}Drink water. Rest well."
    assert not finished.ended
    base.script = ["Rest ", "well."]
    finished = (await events_of(talk(), COMPLAINT))[-1]
    assert isinstance(finished, Finished) and finished.ended


async def test_an_answer_that_the_engine_cut_has_not_ended(talk: Talk, base: ScriptedLLM) -> None:
    answer = base._stream

    async def cut() -> ChatResponseAsyncGen:
        async for response in answer():
            yield response
        raw = {"tokens": 4, "cut": True}
        yield ChatResponse(message=response.message, delta="", raw=raw)

    base._stream = cut  # type: ignore[method-assign]
    finished = (await events_of(talk(), COMPLAINT))[-1]
    assert isinstance(finished, Finished) and not finished.ended
    assert finished.answer == ANSWER


async def test_a_list_that_does_not_end_is_ended_with_an_item(
    talk: Talk, base: ScriptedLLM
) -> None:
    base.script = [f"{number}. Take step {number}; \n" for number in range(1, 100)]
    finished = (await events_of(talk(max_tokens=20), COMPLAINT))[-1]
    assert isinstance(finished, Finished)
    assert finished.answer.endswith("15. Take step 15;")


async def test_a_list_that_repeats_itself_is_ended(talk: Talk, base: ScriptedLLM) -> None:
    base.script = ["1. Rest;", "\n", "2. Drink;", "\n", "3. Rest;", "\n", "4. Sleep;", "\n"]
    finished = (await events_of(talk(), COMPLAINT))[-1]
    assert isinstance(finished, Finished)
    assert finished.answer == f"{OPENING}1. Rest;\n2. Drink;\n3. Rest;"


async def test_a_model_that_says_nothing_is_told_in_the_terminal(
    talk: Talk, base: ScriptedLLM, capsys: pytest.CaptureFixture[str]
) -> None:
    base.script = []
    await show(talk(), COMPLAINT)
    assert "no answer" in capsys.readouterr().err


async def test_the_place_in_the_queue_is_told_and_is_no_part_of_the_answer(
    talk: Talk, base: ScriptedLLM, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = base._stream

    async def queued() -> ChatResponseAsyncGen:
        for raw in ({"waiting": 2}, {"waiting": 1}, {"notice": "The model is loaded now."}):
            nothing = ChatMessage(role=MessageRole.ASSISTANT, content="")
            yield ChatResponse(message=nothing, delta="", raw={"tokens": 0, **raw})
            await asyncio.sleep(0.05)
        async for response in answer():
            yield response

    base._stream = queued  # type: ignore[method-assign]
    engine = talk()
    _, _, *told, finished = await events_of(engine, COMPLAINT)
    assert told[:3] == [Waiting(2), Waiting(1), Notice("The model is loaded now.")]
    assert told[3] == Delta(f"{OPENING}Rest")
    assert isinstance(finished, Finished) and finished.timing.tokens == 4
    assert finished.timing.first_token_ms is not None and finished.timing.first_token_ms > 150
    assert history(engine)[1] == ("assistant", ANSWER)
    await show(engine, COMPLAINT)
    assert "The model is loaded now." in (shown := capsys.readouterr()).err
    assert "loaded" not in shown.out


async def test_one_turn_at_a_time(talk: Talk, base: ScriptedLLM) -> None:
    engine = talk()
    await asyncio.gather(events_of(engine, "First?"), events_of(engine, "Second?"))
    assert [role for role, _ in history(engine)] == ["user", "assistant"] * 2


async def test_too_long_a_message_is_refused_and_forgotten(
    talk: Talk, base: ScriptedLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(monkeypatch)
    engine = talk()
    with pytest.raises(AgentError, match="shorter"):
        await events_of(engine, "It hurts. " * 3000)
    # Where characters tell, no token is counted, and nothing is loaded.
    monkeypatch.setattr(engine, "_loading", None)
    with pytest.raises(AgentError, match="shorter"):
        await events_of(engine, "It hurts. " * 4000)
    assert engine.chat_history == []


async def test_no_notice_waits_for_what_others_said_before(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[list[str]] = []
    goes_on = threading.Event()

    def told(texts: list[str]) -> list[Verdict]:
        read.append(texts)
        if texts[0].startswith(("before", "a letter")):
            goes_on.wait()
        return [Verdict("now", "cardiac") if text == "chest" else CALM for text in texts]

    monkeypatch.setattr("agent.safety.triage.verdicts", told)
    engine = talk()
    engine.recall([ChatMessage(role="user", content=f"before {n} " * 99) for n in range(20)])
    other = asyncio.create_task(events_of(engine.another(engine.chat_history), "My knee hurts"))
    letter = asyncio.create_task(events_of(engine.another([]), "a letter " * 5000))
    busy = [asyncio.create_task(asyncio.to_thread(goes_on.wait, None)) for _ in range(64)]
    await until(lambda: any(texts[0].startswith("before") for texts in read))
    try:
        async with aclosing(engine.turn("chest")) as turn:
            assert isinstance(await anext(turn), Emergency)
        other.cancel()
        await asyncio.wait([other])
    finally:
        goes_on.set()
    await asyncio.wait([*busy, letter])
    await behind(int)  # whatever else was to be read has been
    assert [len(texts) - 1 for texts in read if texts[0].startswith("before")] == [2]


async def test_a_crisis_before_all_that_an_llm_can_read_is_heeded_and_shown_to_none(
    talk: Talk, base: ScriptedLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(monkeypatch, goodbye=Verdict("now", "suicide"), pills=Verdict("now", "overdose"))
    engine = talk(context_window=512)
    said = ["goodbye all", "You are not alone.", *["My knee hurts. " * 20, "Rest."] * 40]
    roles = ("user", "assistant")
    before = [ChatMessage(role=roles[n % 2], content=text) for n, text in enumerate(said)]
    engine.recall(before)
    await events_of(engine, "And my elbow?")
    told = [message.content or "" for message in base.prompts[0]]
    assert any("knee" in text for text in told)
    assert not any("goodbye" in text or "alone" in text for text in told)
    engine.recall(before)
    _, _, words, _ = await events_of(engine, "pills are gone")
    assert isinstance(words, Delta) and "a person rather than a program" in words.text


async def test_the_views_of_llama_index(talk: Talk) -> None:
    engine = talk()
    whole = await engine.achat(COMPLAINT)
    assert whole.response == ANSWER
    assert whole.source_nodes
    assert whole.metadata is not None and whole.metadata["behaviour"] == "RAG"
    streamed = await engine.astream_chat("Why do my knees hurt?", chat_history=[])
    assert streamed.source_nodes
    told = "".join([text async for text in streamed.async_response_gen()])
    assert told.startswith(f"{OPENING}Rest in the dark.")
    assert [role for role, _ in history(engine)] == ["user", "assistant"]
    engine.reset()
    assert engine.chat_history == []


def test_the_synchronous_views(talk: Talk) -> None:
    engine = talk()
    assert engine.chat(COMPLAINT).response == ANSWER
    engine.stream_chat("Why do my knees hurt?")  # whose answer nobody reads
    streamed = engine.stream_chat("Why do my knees hurt?")
    assert streamed.source_nodes
    assert "".join(streamed.response_gen).startswith(f"{OPENING}Rest in the dark.")
    assert len(engine.chat_history) == 6
