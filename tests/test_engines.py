"""One contract, the same cases on every inference engine, on real weights."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from llama_index.core.base.llms.types import ChatMessage, MessageRole

from agent import llms, settings
from agent.errors import AgentError
from agent.llms import ChatLLM, Engine
from agent.llms.weights import embedded_gguf
from agent.prompting import prompt

if TYPE_CHECKING:
    from agent.llms.huggingface import HuggingFaceChatLLM

ENGINES = ("llama_cpp", "huggingface")
QUESTION = "What is a fever?"


def said(*texts: str) -> list[ChatMessage]:
    """A system prompt, then user and assistant in turn."""
    roles = [MessageRole.SYSTEM] + [MessageRole.USER, MessageRole.ASSISTANT] * len(texts)
    return [ChatMessage(role=role, content=text) for role, text in zip(roles, texts, strict=False)]


PROMPT = said("You are a doctor.", QUESTION)


async def answer(llm: ChatLLM, messages: Sequence[ChatMessage] = PROMPT, tokens: int = 24) -> str:
    """The greedy answer, plainly."""
    text = ""
    stream = await llm.astream_chat(messages, max_tokens=tokens, repetition_penalty=1.0)
    async with aclosing(stream):
        async for response in stream:
            text = response.message.content or ""
    return text


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, models_home: Path, adapter: Path) -> Iterator[Engine]:
    """An engine with the embedded model and an adapter that has not learned anything useful."""
    yield llms.load(
        settings.load(
            engine=request.param, model="embedded", home=models_home, adapter=str(adapter)
        )
    )


async def test_streams_in_order_and_counts_tokens(engine: Engine) -> None:
    deltas, counts = [], []
    stream = await engine.base.astream_chat(PROMPT, max_tokens=24)
    async for response in stream:
        deltas.append(response.delta)
        counts.append(response.raw["tokens"])
    assert "".join(deltas) == response.message.content
    assert len(deltas) > 5
    assert counts == sorted(counts)
    assert counts[-1] == 24


async def test_both_engines_render_the_same_prompt(models_home: Path, adapter: Path) -> None:
    messages = said("You are a doctor.", "I have a cough.", "For how long?", "Since May, señor 🤒")
    counted = set()
    for name in ENGINES:
        loaded = llms.load(settings.load(engine=name, model="embedded", home=models_home))
        counted.add(await loaded.base.count_tokens(messages))
    assert len(counted) == 1


async def test_both_engines_answer_alike(models_home: Path) -> None:
    # 8-bit and 32-bit weights part in the end; the first words of a plain answer they share.
    starts = set()
    for name in ENGINES:
        loaded = llms.load(settings.load(engine=name, model="embedded", home=models_home))
        starts.add(await answer(loaded.base, tokens=8))
    assert len(starts) == 1


async def test_goes_on_from_an_answer_that_has_begun(engine: Engine) -> None:
    begun = [*PROMPT, ChatMessage(role=MessageRole.ASSISTANT, content="A fever is a high body")]
    assert (await answer(engine.base, begun, tokens=3)).split()[0] == "temperature"


async def test_fine_tuned_is_another_llm_on_the_same_weights(engine: Engine) -> None:
    before = await answer(engine.base)
    tuned = await answer(engine.llm("fine-tuned"))
    assert tuned != before
    assert await answer(engine.base) == before
    assert await answer(engine.llm("fine-tuned")) == tuned


async def test_base_and_fine_tuned_at_once_keep_to_their_weights(engine: Engine) -> None:
    alone = [await answer(engine.base), await answer(engine.llm("fine-tuned"))]
    both = await asyncio.gather(answer(engine.base), answer(engine.llm("fine-tuned")))
    # Side by side in one batch the last bits differ, and a near tie may fall the other way.
    assert [text[:20] for text in both] == [text[:20] for text in alone]


async def test_sampling_is_per_call(engine: Engine) -> None:
    assert await answer(engine.base) == await answer(engine.base)
    drawn = set()
    for _ in range(4):
        stream = await engine.base.astream_chat(
            PROMPT, max_tokens=12, temperature=1.5, top_p=1.0, min_p=0.0, top_k=1000
        )
        drawn.add("".join([response.delta or "" async for response in stream]))
    assert len(drawn) > 1


async def test_an_answer_ends_at_the_stop_token(engine: Engine) -> None:
    text = await answer(engine.base, said("Answer with one word.", "Say yes."), tokens=200)
    assert len(text.split()) < 100
    assert "<|" not in text


@pytest.mark.parametrize("reading", [True, False], ids=["while reading", "while writing"])
async def test_stop_frees_the_engine(engine: Engine, reading: bool) -> None:
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
    stopped = time.perf_counter()
    await stream.aclose()
    await answer(engine.base, said("Hi.", "Hi."), tokens=1)
    # Free for the next one, whose own token is in the time (benchmarks/turn.py measures it). A
    # server that looks once a second whether anyone listens would take 0.9 s here.
    assert time.perf_counter() - stopped < 0.7


async def test_the_loop_stays_free(engine: Engine) -> None:
    gaps = []

    async def tick() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.005)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    ticking = asyncio.create_task(tick())
    await answer(engine.base, tokens=40)
    ticking.cancel()
    # benchmarks/event_loop.py measures it; a blocked loop would be one gap as long as the answer.
    assert max(gaps) < 0.5


async def test_a_prompt_beyond_the_window_loses_its_oldest_turns(engine: Engine) -> None:
    history = said("", *(f"Turn {n}. {'It hurts here and there. ' * 60}" for n in range(40)))[1:]
    made = await prompt(engine.base, "base", history, "And now?", ["Rest."], 100)
    messages = made.messages
    assert made.used == 1
    assert "And now?" in (messages[-2].content or "")
    kept = messages[1:-2]
    assert 0 < len(kept) < len(history)
    assert kept == history[-len(kept) :]
    window = engine.base.metadata.context_window
    assert await engine.base.count_tokens(messages) <= window - 100
    assert await answer(engine.base, messages, tokens=2)


async def test_a_message_beyond_the_window_is_refused(engine: Engine) -> None:
    with pytest.raises(AgentError, match="shorter"):
        await prompt(engine.base, "base", [], "It hurts. " * 5000, ["Rest."], 100)


async def test_without_an_adapter_fine_tuned_says_how_to_get_one(models_home: Path) -> None:
    loaded = llms.load(settings.load(engine="llama_cpp", home=models_home, adapter="none"))
    with pytest.raises(AgentError, match="MEDRAFT_ADAPTER"):
        loaded.llm("fine-tuned")


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "/no/such/model"),
        ("model", "/no/such/model.gguf"),
        ("adapter", "/no/adapter"),
        ("fine_tuned_model", "/no/such/model"),
    ],
)
def test_a_missing_file_is_named(models_home: Path, name: str, field: str, value: str) -> None:
    values = {"model": "embedded"} | {field: value}
    with pytest.raises(AgentError, match=value):
        llms.load(settings.load(engine=name, home=models_home, **values))


@pytest.mark.parametrize("name", ENGINES)
def test_a_folder_without_an_adapter_is_named(models_home: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(AgentError, match=str(tmp_path)):
        llms.load(
            settings.load(engine=name, model="embedded", home=models_home, adapter=str(tmp_path))
        )


@pytest.mark.parametrize("name", ENGINES)
def test_an_adapter_of_another_architecture_is_named(
    models_home: Path, tiny_adapter: Path, name: str
) -> None:
    wanted = {"engine": name, "model": "embedded", "home": models_home}
    with pytest.raises(AgentError, match="was not made for"):
        llms.load(settings.load(**wanted, adapter=str(tiny_adapter)))


def test_an_adapter_and_a_full_model_are_one_too_many(models_home: Path, adapter: Path) -> None:
    with pytest.raises(AgentError, match="unset one"):
        llms.load(
            settings.load(home=models_home, adapter=str(adapter), fine_tuned_model="embedded")
        )


async def test_a_full_checkpoint_is_the_fine_tuned_llm(
    models_home: Path, tiny_checkpoint: Path
) -> None:
    wanted = {"engine": "huggingface", "model": "embedded", "home": models_home}
    loaded = llms.load(settings.load(**wanted, fine_tuned_model=str(tiny_checkpoint)))
    base = await answer(loaded.base)
    tuned = await answer(loaded.llm("fine-tuned"))
    assert tuned and tuned != base
    alone = llms.load(settings.load(**wanted | {"model": str(tiny_checkpoint)}, adapter="none"))
    assert tuned == await answer(alone.base)
    assert await answer(loaded.base) == base


async def test_a_full_gguf_is_the_fine_tuned_llm(models_home: Path) -> None:
    wanted = {"engine": "llama_cpp", "model": "embedded", "home": models_home}
    loaded = llms.load(settings.load(**wanted, fine_tuned_model=str(embedded_gguf())))
    assert loaded.llm("fine-tuned").metadata.model_name.endswith("Q4_1")
    assert await answer(loaded.llm("fine-tuned")) and await answer(loaded.base)


def test_a_damaged_model_is_one_sentence(models_home: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "model.gguf"
    damaged.write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(AgentError, match="cannot load"):
        llms.load(settings.load(engine="llama_cpp", model=str(damaged), home=models_home))


async def test_an_engine_that_fails_says_so_and_lives_on(
    models_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = llms.load(settings.load(engine="huggingface", model="embedded", home=models_home))
    llm: HuggingFaceChatLLM = loaded.base  # type: ignore[assignment]
    with monkeypatch.context() as patch:
        patch.setattr(llm._shared.model, "generate", lambda **_: 1 / 0)
        with pytest.raises(AgentError, match="division"):
            await answer(llm)
    assert await answer(llm, tokens=2)


async def test_a_prompt_that_the_server_refuses_is_one_sentence(models_home: Path) -> None:
    loaded = llms.load(settings.load(engine="llama_cpp", home=models_home))
    with pytest.raises(AgentError, match="context size"):
        await answer(loaded.base, said("", "It hurts. " * 5000))
