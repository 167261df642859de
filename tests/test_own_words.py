"""What medraft says itself in place of an LLM, and the language of a message."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from babel import Locale

from agent import settings
from agent.chat.engine import PatientChatEngine
from agent.chat.events import Delta, Event, Finished, Retrieved, Routed
from agent.chat.loading import Agent
from agent.chat.own_words import unwritten
from agent.chat.record import collect
from agent.cli.terminal import show
from agent.errors import AgentError
from agent.llms.choice import languages
from agent.llms.embedded import EMBEDDED as EMBEDDED_LLM
from agent.llms.interface import Engine
from agent.page.sources import payloads
from agent.routing import about
from agent.routing.embedding import TurnEmbedding
from agent.routing.router import Reason
from agent.understanding.language import language_of
from index_store.embedding import EMBEDDED, Embed
from index_store.retriever import DoctorReplyRetriever
from index_store.store import IndexStore

from scripted import ScriptedLLM

THROAT = "Me duele la garganta desde hace tres días, ¿qué puedo tomar?"


@pytest.fixture
def llm() -> ScriptedLLM:
    return ScriptedLLM()


@pytest.fixture(scope="module")
def embedding_of_turns(embed_questions: Embed) -> TurnEmbedding:
    return TurnEmbedding(embed_questions)


class Talk:
    def __init__(self, llm: ScriptedLLM, embed_questions: Embed, index: Path) -> None:
        self._llm, self._embed, self._index = llm, embed_questions, index
        self._store = IndexStore.open(index, EMBEDDED)

    def __call__(self, engine: str = "scripted", **values: Any) -> PatientChatEngine:
        chosen = settings.load(**{"index_dir": self._index, "min_relevance": 0} | values)
        retriever = DoctorReplyRetriever(self._store, self._embed, 2, chosen.min_relevance)
        served = Engine(engine, "scripted", base=self._llm, fine_tuned=None)
        return Agent(chosen, served, TurnEmbedding(self._embed), retriever).conversation()


@pytest.fixture
def talk(llm: ScriptedLLM, embed_questions: Embed, sample_index: Path) -> Talk:
    return Talk(llm, embed_questions, sample_index)


async def events_of(engine: PatientChatEngine, message: str) -> list[Event]:
    turn: AsyncGenerator[Event, None] = engine.turn(message)
    async with aclosing(turn) as events:
        return [event async for event in events]


@pytest.mark.parametrize("retrieval", ["auto", "always", "never"])
async def test_a_question_about_the_program_is_answered_by_no_model(
    talk: Talk, llm: ScriptedLLM, retrieval: Any
) -> None:
    engine = talk()
    engine.retrieval = retrieval
    routed, words, finished = await events_of(engine, "Who can read this?")
    assert isinstance(routed, Routed) and routed.behaviour is None
    assert (routed.route.retrieve, routed.route.reason) == (False, Reason.ABOUT)
    assert isinstance(words, Delta) and "no other service" in words.text
    assert isinstance(finished, Finished) and finished.answer == words.text
    assert finished.speaker == "medraft" and llm.prompts == []
    assert [m.content for m in engine.chat_history] == ["Who can read this?", words.text]


async def test_the_pages_first_question_is_answered_in_its_language(
    talk: Talk, llm: ScriptedLLM, capsys: pytest.CaptureFixture[str]
) -> None:
    told = await collect(talk(), "What can you help me with?")
    assert (told["speaker"], told["behaviour"]) == ("medraft", None)
    assert "a program and not a doctor" in told["answer"]
    assert told["route"]["reason"] == "a question about medraft, which answers it itself"
    await show(talk(), "¿En qué me puede ayudar?")
    shown = capsys.readouterr()
    assert "un programa, no un médico" in shown.out and "medraft: a question" in shown.err
    assert llm.prompts == []


async def test_where_the_words_go_is_said_as_it_is(talk: Talk) -> None:
    told = await collect(
        talk("openai_like", base_url="https://ann:secret@llm.example:8080/v1"), "Who can read this?"
    )
    assert "secret" not in told["answer"]
    assert "llm.example:8080" in told["answer"] and "no other service" not in told["answer"]
    told = await collect(talk(llm_languages="en,es"), "What languages do you speak?")
    assert "writes English, Spanish;" in told["answer"]


async def test_a_question_of_health_is_none_about_the_program(talk: Talk, llm: ScriptedLLM) -> None:
    for question in ("What can you tell me about my migraine?", "Can my migraine be cured?"):
        finished = (await events_of(talk(), question))[-1]
        assert isinstance(finished, Finished) and finished.speaker == "RAG"
    assert len(llm.prompts) == 2


async def test_who_measures_an_llm_gets_its_words_to_such_a_question(
    talk: Talk, llm: ScriptedLLM
) -> None:
    engine = talk()
    engine.watchful = False
    finished = (await events_of(engine, "Who can read this?"))[-1]
    assert isinstance(finished, Finished) and finished.speaker == "base" and llm.prompts


def test_every_question_of_the_file_means_its_matter(embedding_of_turns: TurnEmbedding) -> None:
    facts = {"model": "M", "elsewhere": "", "languages": "", "sample": True}
    for name, matter in about.matters().items():
        assert len(matter.asked) >= 10
        for question in matter.asked:
            assert about.is_asked(question.upper() + " ")
            assert about.matter(question, embedding_of_turns.matrix) == name
        for to in ("en", "es"):
            words = about.words(name, to, **facts)
            assert "{" not in words and len(words) > 100
    assert about.is_asked("que modelo de lenguaje usas")  # without the accents
    assert not about.is_asked("I have a headache")
    assert not about.is_asked("What is this?")  # of a lump, say, that was just spoken of


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("who is able to read my messages here", "privacy"),
        ("do you keep a record of what i say", "privacy"),
        ("where does your information come from?", "sources"),
        ("could you prescribe me something", "limits"),
        ("do you speak Spanish too", "languages"),
        ("¿hablas español?", "languages"),
        ("how can I switch to another mode", "modes"),
        ("are you a real doctor?", "what"),
        ("zzz qqq", "what"),
    ],
)
def test_a_question_means_the_nearest_matter(
    question: str, name: str, embedding_of_turns: TurnEmbedding
) -> None:
    assert about.matter(question, embedding_of_turns.matrix) == name


async def test_an_llm_that_lacks_the_language_does_not_talk(
    talk: Talk, llm: ScriptedLLM, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = talk(llm_languages="en", retrieval="always")
    routed, retrieved, words, finished = await events_of(engine, THROAT)
    assert isinstance(routed, Routed) and routed.behaviour is None
    assert isinstance(retrieved, Retrieved) and len(retrieved.sources) == 2
    assert isinstance(words, Delta) and "no escribe en español" in words.text
    assert "[1] [2]" in words.text and "inglés" in words.text
    assert isinstance(finished, Finished) and finished.speaker == "medraft"
    used = [payload["use"] for payload in payloads(retrieved, False, finished.support)]
    assert used == ["used", "used"]
    assert llm.prompts == []
    # What goes on without a word of any language is in the language of what it goes on from.
    assert "español" in (await collect(engine, "38,5"))["answer"]
    await show(engine, THROAT)
    assert retrieved.sources[0].get_content() in capsys.readouterr().out


async def test_without_replies_it_says_so(talk: Talk, llm: ScriptedLLM) -> None:
    told = await collect(talk(llm_languages="en", retrieval="never"), THROAT)
    assert "no he encontrado" in told["answer"] and told["sources"] == []
    assert llm.prompts == []


async def test_an_llm_that_writes_it_is_told_to(talk: Talk, llm: ScriptedLLM) -> None:
    engine = talk(llm_languages="en,es", retrieval="always")
    finished = (await events_of(engine, THROAT))[-1]
    assert isinstance(finished, Finished) and finished.speaker == "RAG"
    assert "Answer in Spanish" in (llm.prompts[0][0].content or "")
    await events_of(talk(), "What helps against my migraine?")
    assert "Answer in" not in (llm.prompts[1][0].content or "")


@pytest.mark.parametrize("written", ["en", "en,es"])
async def test_the_names_of_languages_are_read_off_the_event_loop(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    readers: list[threading.Thread] = []

    def read(to: str) -> Locale:
        readers.append(threading.current_thread())
        return Locale(to)

    monkeypatch.setattr("babel.Locale", read)
    await events_of(talk(llm_languages=written, retrieval="never"), THROAT)
    assert readers and threading.current_thread() not in readers


async def test_a_note_is_in_the_patients_language(talk: Talk, llm: ScriptedLLM) -> None:
    llm.script = ["Tome ", "amoxicilina ", "de ", "500 mg."]
    told = await collect(talk(retrieval="never"), THROAT)
    assert told["answer"].startswith("(Aquí se omite una frase")
    assert told["claims"] == {"asked_anew": 2, "left_out": 1, "unborne": []}


def test_what_an_llm_writes_is_known_or_set() -> None:
    assert languages(settings.load(), EMBEDDED_LLM) == frozenset({"en"})
    assert languages(settings.load(), f"{EMBEDDED_LLM}.Q8_0") == frozenset({"en"})
    assert languages(settings.load(), "llama") is None
    assert languages(settings.load(llm_languages="any"), EMBEDDED_LLM) is None
    assert languages(settings.load(llm_languages="en, ES"), "llama") == frozenset({"en", "es"})
    with pytest.raises(AgentError, match="MEDRAFT_LLM_LANGUAGES"):
        settings.load(llm_languages="english")


def test_what_is_said_of_the_language_is_in_it() -> None:
    said = {
        code: unwritten(code, {"en"}, 1)
        for code in (
            "es",
            "fr",
            "de",
            "it",
            "pt",
            "nl",
            "sv",
            "da",
            "no",
            "tr",
            "ru",
            "ar",
            "hi",
            "zh",
            "ja",
            "ko",
        )
    }
    assert len(set(said.values())) == len(said)
    for code, words in said.items():
        assert "[1]" in words and "{" not in words and language_of(words) == code
    assert unwritten("el", {"en"}, 0) == unwritten("en", {"en"}, 0)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("I have had a sore throat for three days", "en"),
        ("My head hurts", "en"),
        ("can I take paracetamol and ibuprofen together for toothache", "en"),
        ("Can I eat tacos al pastor while I am on metformin?", "en"),
        ("no nausea", "en"),
        ("I want to die", "en"),
        ("WANT TO DIE", "en"),
        ("My mom Maria de la Cruz has a fever", "en"),
        ("What does 'dolor de garganta' mean?", "en"),
        ("Mi bebé no despierta", "es"),
        ("No respira", "es"),
        ("me voy a tomar todas las pastillas", "es"),
        (THROAT, "es"),
        ("Me duele la cabeza", "es"),
        ("Tengo fiebre", "es"),
        ("dolor de garganta", "es"),
        ("Ich habe seit drei Tagen Halsschmerzen", "de"),
        ("J'ai mal à la tête depuis ce matin", "fr"),
        ("Mi fa male la gola da tre giorni", "it"),
        ("Há três dias que não consigo dormir, estou com febre", "pt"),
        ("Сильно болит голова", "ru"),
        ("أعاني من صداع", "ar"),
        ("मुझे बुखार है", "hi"),
        ("我头疼", "zh"),
        ("頭が痛いです", "ja"),
        ("migraine", None),
        ("38.5", None),
        ("", None),
    ],
)
def test_the_language_of_a_message(text: str, language: str | None) -> None:
    assert language_of(text) == language
