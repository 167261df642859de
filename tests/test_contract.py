"""One contract: the same cases on every inference engine, on real weights.

The first line of each test is its row in the README's table, which `make contract` fills.
"""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, MessageRole

from agent import settings
from agent.behaviour import LLMChoice, Retrieval
from agent.chat.engine import PatientChatEngine
from agent.chat.events import Delta, Finished, Retrieved, Routed
from agent.chat.loading import Agent
from agent.chat.prompting import prompt
from agent.errors import AgentError
from agent.llms import engines
from agent.llms.interface import Engine
from agent.routing.embedding import TurnEmbedding
from agent.settings import ROOT
from index_store.embedding import EMBEDDED, Embed
from index_store.retriever import DoctorReplyRetriever
from index_store.store import IndexStore

from asking import PROMPT, QUESTION, answer, kill, said
from serving import until

ENGINES = ("huggingface", "llama_cpp", "openai_like")
COMPLAINT = "What helps against my migraine?"


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, models_home: Path, adapter: Path) -> Engine:
    """An engine with the embedded model and an adapter that has not learned anything useful."""
    if request.param == "openai_like":
        return request.getfixturevalue("named").engine()
    wanted = {"engine": request.param, "model": "embedded", "adapter": str(adapter)}
    return engines.load(settings.load(**wanted, home=models_home))


@pytest.fixture
def talk(
    engine: Engine, embed_questions: Embed, sample_index: Path
) -> Callable[..., PatientChatEngine]:
    """Begins a conversation over the small index."""
    store = IndexStore.open(sample_index, EMBEDDED)
    chosen = settings.load(max_tokens=24, temperature=0, min_relevance=0.01)
    retriever = DoctorReplyRetriever(store, embed_questions, chosen.sources, chosen.min_relevance)
    agent = Agent(chosen, engine, TurnEmbedding(embed_questions), retriever)

    def begin(llm: LLMChoice = "base", retrieval: Retrieval = "never") -> PatientChatEngine:
        conversation = agent.conversation()
        conversation.llm, conversation.retrieval = llm, retrieval
        return conversation

    return begin


async def turn(conversation: PatientChatEngine, message: str) -> list[Any]:
    async with aclosing(conversation.turn(message)) as events:
        return [event async for event in events]


class Failure:
    """Makes an engine fail from `now` until `mend`."""

    def __init__(self, engine: Engine, names: threading.Event) -> None:
        self._engine, self._names = engine, names
        self.on = False
        if engine.name == "huggingface":
            llm: Any = engine.base
            layer = llm._shared.model.get_decoder().layers[0]
            self._hook = layer.register_forward_pre_hook(self._raise)

    def now(self) -> None:
        self.on = True
        if self._engine.name == "openai_like":
            self._names.set()
        if self._engine.name == "llama_cpp":
            llm: Any = self._engine.base
            kill(llm._server)

    def mend(self) -> None:
        self.on = False
        self._names.clear()

    def _raise(self, module: Any, arguments: Any) -> None:
        if self.on:
            raise RuntimeError("it failed on purpose")

    def remove(self) -> None:
        self.mend()
        if self._engine.name == "huggingface":
            self._hook.remove()


@pytest.fixture
def failure(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Failure]:
    broken = (
        request.getfixturevalue("named").broken
        if engine.name == "openai_like"
        else threading.Event()
    )
    failure = Failure(engine, broken)
    yield failure
    failure.remove()


READ_AT_ONCE = 64  # tokens of a prompt that llama.cpp reads in one pass


@pytest.fixture
def passes(
    engine: Engine, request: pytest.FixtureRequest
) -> Iterator[Callable[[], Awaitable[int]]]:
    """Tells how many passes the engine has computed: of a token it says, or 64 that it reads."""
    of: Any = engine
    if engine.name == "huggingface":
        through = 0

        def count(module: Any, arguments: Any, output: Any) -> None:
            nonlocal through
            through += -(-arguments[0].shape[1] // READ_AT_ONCE)

        async def computed() -> int:
            return through

        last = of.base._shared.model.get_decoder().layers[-1]
        hook = last.register_forward_hook(count)
        yield computed
        hook.remove()
    else:
        if engine.name == "openai_like":
            of = request.getfixturevalue("named").embedded

        async def decoded() -> int:
            metrics = (await of.base._server.running.http.get("/metrics")).text
            (number,) = re.findall(r"^llamacpp:n_decode_total (\d+)", metrics, re.MULTILINE)
            return int(number)

        yield decoded


@pytest.mark.parametrize(
    ("llm", "retrieval", "expected"),
    [
        ("base", "never", "base"),
        ("base", "always", "RAG"),
        ("fine-tuned", "never", "fine-tuned"),
        ("fine-tuned", "always", "RAFT"),
    ],
)
async def test_four_behaviours(
    talk: Callable[..., PatientChatEngine], llm: str, retrieval: str, expected: str
) -> None:
    """base, RAG, fine-tuned and RAFT"""
    events = await turn(talk(llm, retrieval), COMPLAINT)
    assert next(e for e in events if isinstance(e, Routed)).behaviour == expected
    found = [e.sources for e in events if isinstance(e, Retrieved)]
    assert bool(found) == (retrieval == "always")
    if found:
        assert "migraine" in found[0][0].get_content()
    assert isinstance(events[-1], Finished) and events[-1].answer


async def test_several_turns(talk: Callable[..., PatientChatEngine], engine: Engine) -> None:
    """a conversation of several turns, each of which the LLM reads"""
    conversation = talk()
    for message in (COMPLAINT, "For two days.", "What did I ask you first?"):
        await turn(conversation, message)
    history = conversation.chat_history
    assert [m.role.value for m in history] == ["user", "assistant"] * 3
    made = await prompt(engine.base, "base", history[:4], history[4].content or "", [], 24)
    assert [m.content for m in made.messages[1:]] == [m.content for m in history[:5]]
    assert (await answer(engine.base, made.messages))[:12]


async def test_streams_in_order_and_counts_tokens(engine: Engine) -> None:
    """streams in order, and counts its tokens"""
    deltas, counts = [], []
    stream = await engine.base.astream_chat(PROMPT, max_tokens=24)
    async for response in stream:
        deltas.append(response.delta or "")
        counts.append((response.raw or {})["tokens"])
    assert "".join(deltas) == response.message.content
    assert len(deltas) > 5
    assert counts == sorted(counts)
    assert counts[-1] == 24


async def test_an_answer_ends_at_the_stop_token(engine: Engine) -> None:
    """ends at the stop token, which is not shown"""
    text = await answer(engine.base, said("Answer with one word.", "Say yes."), tokens=200)
    assert len(text.split()) < 100
    assert "<|" not in text


async def test_goes_on_from_an_answer_that_has_begun(engine: Engine) -> None:
    """goes on from an answer that has begun"""
    begun = [*PROMPT, ChatMessage(role=MessageRole.ASSISTANT, content="A fever is a high body")]
    assert (await answer(engine.base, begun, tokens=3)).split()[0] == "temperature"


async def test_fine_tuned_is_another_llm_on_the_same_weights(engine: Engine) -> None:
    """base and fine-tuned in turn, each with its own weights"""
    before = await answer(engine.base)
    tuned = await answer(engine.llm("fine-tuned"))
    assert tuned != before
    assert await answer(engine.base) == before
    assert await answer(engine.llm("fine-tuned")) == tuned


async def test_two_conversations_at_once_with_different_llms(
    talk: Callable[..., PatientChatEngine],
) -> None:
    """two conversations at once, with different LLMs"""

    async def converse(llm: str) -> list[str]:
        conversation = talk(llm)
        events = [await turn(conversation, message) for message in (QUESTION, "And a cold?")]
        return [each[-1].answer for each in events]

    alone = [await converse(llm) for llm in ("base", "fine-tuned")]
    both = await asyncio.gather(converse("base"), converse("fine-tuned"))
    assert alone[0][0][:20] != alone[1][0][:20]
    # Side by side in one batch the last bits differ, and a near tie may fall the other way.
    assert [answers[0][:20] for answers in both] == [answers[0][:20] for answers in alone]
    assert all(answers[1] for answers in both)


async def test_sampling_is_per_call(engine: Engine) -> None:
    """sampling per call: greedy repeats itself, a high temperature does not"""
    assert await answer(engine.base) == await answer(engine.base)
    drawn = set()
    for _ in range(4):
        stream = await engine.base.astream_chat(
            PROMPT, max_tokens=12, temperature=1.5, top_p=1.0, min_p=0.0, top_k=1000
        )
        drawn.add("".join([response.delta or "" async for response in stream]))
    assert len(drawn) > 1


@pytest.mark.parametrize("reading", [True, False], ids=["while reading", "while writing"])
async def test_stop_frees_the_engine(
    engine: Engine, passes: Callable[[], Awaitable[int]], reading: bool
) -> None:
    """Stop while it reads and while it writes"""
    before = await passes()
    long = said("You are a doctor.", "My head hurts since Monday and I sleep badly. " * 250)
    stream = await engine.base.astream_chat(long if reading else PROMPT, max_tokens=500)
    if reading:
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.1)
        assert not waiting.done(), "the prompt was read too fast to stop it on the way"
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    else:
        await anext(stream)
    await stream.aclose()
    await answer(engine.base, said("Hi.", "Hi."), tokens=1)
    # Free for the next one, with the rest neither read nor written. How soon, benchmarks/turn.py
    # measures. A server that looks once a second whether anyone listens writes on meanwhile.
    whole = await engine.base.count_tokens(long) // READ_AT_ONCE
    assert await passes() - before < (whole if reading else 40)


async def test_ten_stops_leave_nothing_behind(engine: Engine) -> None:
    """ten stops in a row leave no thread behind, and the same answer"""
    before = await answer(engine.base)
    threads = threading.active_count()
    for _ in range(10):
        stream = await engine.base.astream_chat(PROMPT, max_tokens=500)
        await anext(stream)
        await stream.aclose()
    # A prefix from the cache may let a near tie fall the other way, far into the answer.
    assert (await answer(engine.base))[:40] == before[:40]
    # A pool of the event loop's may have grown.
    await until(lambda: threading.active_count() <= threads + 1)


async def test_the_loop_stays_free(engine: Engine) -> None:
    """the event loop stays free"""
    ticks = [0]  # before each word

    async def tick() -> None:
        while True:
            await asyncio.sleep(0.001)
            ticks[-1] += 1

    ticking = asyncio.create_task(tick())
    async for _ in await engine.base.astream_chat(PROMPT, max_tokens=40):
        ticks.append(0)
    ticking.cancel()
    # A loop that computes the answer itself ticks once a word at the most. How long it is kept
    # waiting, benchmarks/engines.py measures.
    assert ticks[0] > 1, "while it reads"
    assert sum(ticks[1:]) > 2 * len(ticks), "while it writes"


async def test_a_prompt_beyond_the_window_loses_its_oldest_turns(engine: Engine) -> None:
    """a conversation beyond the window loses its oldest turns"""
    window = engine.base.metadata.context_window
    longest = window - 1600  # of the answer: to read a whole window takes long
    history = said("", *(f"Turn {n}. {'It hurts here and there. ' * 20}" for n in range(40)))[1:]
    made = await prompt(engine.base, "base", history, "And now?", ["Rest."], longest)
    messages = made.messages
    assert made.used == 1
    asked = max(n for n, message in enumerate(messages) if message.role == MessageRole.USER)
    assert "And now?" in (messages[asked].content or "")
    kept = messages[1:asked]
    assert 0 < len(kept) < len(history)
    assert kept == history[-len(kept) :]
    assert await engine.base.count_tokens(messages) <= window - longest
    assert await answer(engine.base, messages, tokens=2)


async def test_a_message_beyond_the_window_is_refused(engine: Engine) -> None:
    """a message beyond the window is refused in one sentence"""
    with pytest.raises(AgentError, match="shorter"):
        await prompt(engine.base, "base", [], "It hurts. " * 5000, ["Rest."], 100)


async def test_an_engine_that_fails_before_an_answer(
    talk: Callable[..., PatientChatEngine], failure: Failure
) -> None:
    """fails before an answer: one sentence (or a restart and an answer), and it lives on"""
    conversation = talk()
    failure.now()
    try:
        assert (await turn(conversation, QUESTION))[-1].answer  # it was started anew
    except AgentError as told:
        assert str(told).endswith(".") and "\n" not in str(told)
    failure.mend()
    assert (await turn(conversation, "And a cold?"))[-1].answer


async def test_an_engine_that_fails_in_the_middle_of_an_answer(
    talk: Callable[..., PatientChatEngine], failure: Failure
) -> None:
    """fails in the middle of an answer: one sentence, what was said is kept, and it lives on"""
    conversation = talk()
    heard = ""
    with pytest.raises(AgentError) as told:
        async with aclosing(conversation.turn(QUESTION)) as events:
            async for event in events:
                if isinstance(event, Delta):
                    heard += event.text
                    if len(heard) > 8 and not failure.on:
                        failure.now()
    assert str(told.value).count("\n") == 0 and str(told.value).endswith(".")
    assert conversation.chat_history[-1].content == heard.strip() != ""
    failure.mend()
    assert (await turn(conversation, "And a cold?"))[-1].answer


async def test_all_engines_render_the_same_prompt(
    models_home: Path, adapter: Path, named: Any
) -> None:
    messages = said("You are a doctor.", "I have a cough.", "For how long?", "Since May, señor 🤒")
    local = {"model": "embedded", "home": models_home, "adapter": "none"}
    loaded = [engines.load(settings.load(engine=name, **local)) for name in ENGINES[:2]]
    counted = {await e.base.count_tokens(messages) for e in (*loaded, named.engine())}
    assert len(counted) == 1
    # 8-bit and 32-bit weights part in the end; the first words of a plain answer they share.
    assert len({await answer(e.base, tokens=8) for e in loaded}) == 1


def test_the_readme_shows_these_cases_on_these_engines() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("<!-- contract -->")[2].partition("<!-- /contract -->")[0]
    shown = re.findall(r"^\| (.+?) \|.*\|$", table, re.MULTILINE)[1:]
    module = sys.modules[__name__]
    cases = [
        (function.__doc__ or "").partition("\n")[0]
        for name, function in vars(module).items()
        if name.startswith("test_") and function.__doc__
    ]
    assert shown == cases
    assert all(f"`{name}`" in table for name in ENGINES)
