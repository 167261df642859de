"""The huggingface engine beyond the contract: prefix cache, queue, memory, and what it says."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from transformers import GPT2Config, GPT2LMHeadModel

from agent import settings
from agent.errors import AgentError
from agent.llms import engines, gpu, sizes
from agent.llms.huggingface import checkpoint, failures, generation
from agent.llms.huggingface.checkpoint import Checkpoint
from agent.llms.huggingface.generation import Model
from agent.llms.interface import ChatLLM, Engine, Sampling
from agent.llms.skeleton import skeleton
from agent.settings import ROOT

from serving import until

COMPLAINTS = [f"I am {20 + n} and my head hurts in the morning, what helps?" for n in range(10)]
FULL = torch.cuda.OutOfMemoryError


def said(*texts: str) -> list[ChatMessage]:
    """A system prompt, then user and assistant in turn."""
    roles = [MessageRole.SYSTEM] + [MessageRole.USER, MessageRole.ASSISTANT] * len(texts)
    return [ChatMessage(role=role, content=text) for role, text in zip(roles, texts, strict=False)]


async def responses(
    llm: ChatLLM, messages: Sequence[ChatMessage], tokens: int = 12
) -> tuple[str, list[dict[str, Any]]]:
    """The greedy answer, and the `raw` of all that came before it."""
    text, before = "", []
    stream = await llm.astream_chat(messages, max_tokens=tokens)
    async with aclosing(stream):
        async for response in stream:
            text += response.delta or ""
            if not response.delta:
                before.append(response.raw or {})
    return text, before


async def answer(llm: ChatLLM, messages: Sequence[ChatMessage], tokens: int = 12) -> str:
    return (await responses(llm, messages, tokens))[0]


async def converse(llm: ChatLLM, turns: int, about: str = "") -> list[list[ChatMessage]]:
    """The prompts of a conversation, as the agent makes them: sources in the last message only."""
    history, prompts = said("You are a doctor."), []
    for complaint in COMPLAINTS[:turns]:
        sources = f"{complaint}{about}\n\nA doctor wrote: rest, drink water, and see your doctor."
        prompts.append([*history, ChatMessage(role=MessageRole.USER, content=sources)])
        reply = await answer(llm, prompts[-1])
        history.append(ChatMessage(role=MessageRole.USER, content=complaint + about))
        history.append(ChatMessage(role=MessageRole.ASSISTANT, content=reply))
    return prompts


def model_of(engine: Engine) -> Model:
    llm: Any = engine.base
    return llm._shared


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint: Path, tiny_adapter: Path) -> Engine:
    wanted = {"model": str(tiny_checkpoint), "adapter": str(tiny_adapter)}
    return engines.load(settings.load(engine="huggingface", **wanted))


@pytest.fixture
def engine(loaded: Engine) -> Engine:
    """A tiny model with an adapter, and nothing in its prefix cache."""
    model_of(loaded).prefixes.clear()
    return loaded


@pytest.fixture
def read(engine: Engine) -> Iterator[list[int]]:
    """The tokens that each forward pass read, in order."""
    lengths: list[int] = []
    embeddings = model_of(engine).model.get_input_embeddings()
    hook = embeddings.register_forward_pre_hook(lambda _, ids: lengths.append(ids[0].shape[1]))
    yield lengths
    hook.remove()


@pytest.mark.parametrize("choice", ["base", "fine-tuned"])
async def test_a_turn_reads_only_what_is_new_and_answers_the_same(
    engine: Engine, read: list[int], choice: Any
) -> None:
    llm = engine.llm(choice)
    last = (await converse(llm, 10))[-1]
    prompts = [tokens for tokens in read if tokens > 1]
    assert len(prompts) == 10
    # Turn 10's time to the first token is turn 2's, up to the attention to what is cached.
    assert prompts[9] <= 1.2 * prompts[1]
    cached = await answer(llm, last)
    model_of(engine).prefixes.clear()
    read.clear()
    assert await answer(llm, last) == cached
    assert read[0] == await llm.count_tokens(last)


async def test_a_trained_model_answers_the_same_from_its_cache(models_home: Path) -> None:
    trained = engines.load(settings.load(engine="huggingface", model="embedded", home=models_home))
    last = (await converse(trained.base, 2))[-1]
    cached = await answer(trained.base, last)
    model_of(trained).prefixes.clear()
    assert len(cached) > 20
    assert await answer(trained.base, last) == cached


async def test_another_conversation_does_not_take_the_cache_of_this_one(
    engine: Engine, read: list[int]
) -> None:
    mine = (await converse(engine.base, 3))[-1]
    await converse(engine.base, 1, about=" I am pregnant.")
    read.clear()
    await answer(engine.base, mine)
    assert read[0] == 1  # all but the last token, which has to be computed


async def test_an_adapter_does_not_read_the_cache_of_another(
    engine: Engine, read: list[int]
) -> None:
    prompt = said("You are a doctor.", COMPLAINTS[0])
    for llm in (engine.base, engine.llm("fine-tuned")):
        read.clear()
        await answer(llm, prompt)
        assert read[0] == await llm.count_tokens(prompt)


async def test_the_prefix_cache_is_bounded_and_the_oldest_goes_first(
    engine: Engine, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [said(f"You are doctor {n}.", "It hurts here. " * 30) for n in range(4)]
    await answer(engine.base, prompts[0])
    kept = model_of(engine).prefixes
    monkeypatch.setattr(kept, "limit", int(3.5 * kept.size()))
    for prompt in (prompts[1], prompts[2], prompts[0], prompts[3]):
        await answer(engine.base, prompt)
    assert 0 < kept.size() <= kept.limit
    read.clear()
    await answer(engine.base, prompts[0])
    assert read[0] == 1, "the one that was used again is kept"
    read.clear()
    await answer(engine.base, prompts[1])
    assert read[0] > 100, "the one that was used least recently is gone"


async def test_a_stop_in_mid_forward_leaves_a_cache_that_answers_the_same(engine: Engine) -> None:
    model, last = model_of(engine), (await converse(engine.base, 2))[-1]
    more = f"{last[-1].content}{' It hurts.' * 300}"
    longer = [*last[:-1], ChatMessage(role=MessageRole.USER, content=more)]
    first_layer = model.model.get_decoder().layers[0]
    hooks = sum(len(module._forward_pre_hooks) for module in model.model.modules())
    for _ in range(3):
        reached, stopped = threading.Event(), threading.Event()

        def wait(*_: Any, reached: Any = reached, stopped: Any = stopped) -> None:
            reached.set()
            stopped.wait(30)

        gate = first_layer.register_forward_pre_hook(wait)
        stream = await engine.base.astream_chat(longer, max_tokens=20)
        first = asyncio.ensure_future(anext(stream))
        assert await asyncio.to_thread(reached.wait, 30)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await stream.aclose()
        gate.remove()
        stopped.set()
    after = await answer(engine.base, last)
    assert sum(len(module._forward_pre_hooks) for module in model.model.modules()) == hooks
    model.prefixes.clear()
    assert await answer(engine.base, last) == after


async def test_everyone_is_told_the_place_in_the_queue(engine: Engine) -> None:
    prompt = said("You are a doctor.", COMPLAINTS[0])
    begun: list[int] = []
    told: set[int] = set()

    async def ask(number: int, llm: ChatLLM) -> list[int]:
        stream, places = await llm.astream_chat(prompt, max_tokens=12), []
        async with aclosing(stream):
            async for response in stream:
                assert response.raw is not None
                if "waiting" in response.raw:
                    assert (response.delta, response.raw["tokens"]) == ("", 0)
                    places.append(response.raw["waiting"])
                    told.add(number)
                elif number not in begun:
                    begun.append(number)
        return places

    both = (engine.base, engine.llm("fine-tuned"))
    gate = threading.Event()
    first_layer = model_of(engine).model.get_decoder().layers[0]
    held = first_layer.register_forward_pre_hook(lambda *_: gate.wait() and None)
    try:
        asked = [asyncio.create_task(ask(number, both[number % 2])) for number in range(5)]
        await until(lambda: told == {1, 2, 3, 4})
        left = asked.pop(2)
        left.cancel()  # who leaves the queue makes room
        await asyncio.gather(left, return_exceptions=True)
    finally:
        gate.set()
        held.remove()
    places = await asyncio.gather(*asked)
    assert begun == [0, 1, 3, 4]
    assert places == [[], [1], [3, 2, 1], [4, 3, 2, 1]]
    assert await ask(5, engine.base) == [], "the line is empty"


async def test_out_of_memory_once_is_not_noticed(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = said("You are a doctor.", COMPLAINTS[0])
    whole = await answer(engine.base, prompt)
    await answer(engine.llm("fine-tuned"), prompt)
    model = model_of(engine)
    generate, calls = model.model.generate, []

    def full_after_five_tokens(**wanted: Any) -> None:
        calls.append(model.prefixes.size())
        if len(calls) == 1:
            generate(**wanted | {"max_new_tokens": 5})
            raise FULL
        generate(**wanted)

    monkeypatch.setattr(model.model, "generate", full_after_five_tokens)
    assert await answer(engine.base, prompt) == whole
    assert calls[0] > 0 and calls[1:] == [0], "the prefix cache goes first"


async def test_out_of_memory_twice_is_one_sentence_and_the_engine_lives_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = said("You are a doctor.", COMPLAINTS[0])

    def full(**_: Any) -> None:
        raise FULL

    with monkeypatch.context() as patch:
        patch.setattr(model_of(engine).model, "generate", full)
        with pytest.raises(AgentError, match="memory is full"):
            await answer(engine.base, prompt)
    assert await answer(engine.base, prompt)


@pytest.mark.parametrize(
    "sign",
    ["CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory", "cudaErrorMemoryAllocation"],
)
async def test_cublas_without_memory_is_a_full_memory(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, sign: str
) -> None:
    prompt = said("You are a doctor.", COMPLAINTS[0])
    whole = await answer(engine.base, prompt)
    model = model_of(engine)
    generate, calls = model.model.generate, []

    def full_once(**wanted: Any) -> None:
        calls.append(model.prefixes.size())
        if len(calls) == 1:
            raise RuntimeError(f"CUDA error: {sign} when calling `cublasCreate(handle)`")
        generate(**wanted)

    with monkeypatch.context() as patch:
        patch.setattr(model.model, "generate", full_once)
        assert await answer(engine.base, prompt) == whole
    assert calls[1:] == [0]
    assert "memory is full" in str(failures.answer_error(RuntimeError(sign)))


@pytest.mark.parametrize(
    ("places", "value"),
    [(7, "nan"), (7, "inf"), (slice(None), "-inf")],
    ids=["NaN", "infinity", "nothing to draw from"],
)
async def test_numbers_that_run_over_are_one_sentence_and_the_engine_lives_on(
    engine: Engine, places: Any, value: str
) -> None:
    prompt = said("You are a doctor.", COMPLAINTS[0])
    whole = await answer(engine.base, prompt)

    def run_over(_: Any, __: Any, logits: torch.Tensor) -> torch.Tensor:
        logits[..., places] = float(value)
        return logits

    hook = model_of(engine).model.lm_head.register_forward_hook(run_over)
    # Drawn from, these would trip an assertion of the GPU's, after which CUDA answers nobody.
    stream = await engine.base.astream_chat(prompt, max_tokens=12, temperature=1.0)
    with pytest.raises(AgentError, match=r"ran over in 16 bits.*MEDRAFT_QUANTIZE"):
        async for _ in stream:
            pass
    hook.remove()
    assert await answer(engine.base, prompt) == whole


def test_a_gpu_that_is_lost_says_that_medraft_must_be_started_again() -> None:
    error = RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be")
    told = str(failures.answer_error(error))
    assert told.endswith("start medraft again.") and "\n" not in told


def test_the_prefix_cache_takes_no_more_than_its_share_of_the_card(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for free, limit in ((80, 1.0), (2, 0.5), (0.25, 0.0625)):
        monkeypatch.setattr(
            torch.cuda, "mem_get_info", lambda device, free=free: (int(free * 2**30), 80 * 2**30)
        )
        card: Any = SimpleNamespace(device=torch.device("cuda"))
        assert generation._room_for_prefixes(card) == int(limit * 2**30)


async def test_the_checkpoints_own_generation_config_changes_no_answer(
    tiny_checkpoint: Path, tiny_adapter: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = Path(shutil.copytree(tiny_checkpoint, tmp_path / "own"))
    theirs = {"repetition_penalty": 1.8, "max_length": 40, "no_repeat_ngram_size": 2, "top_k": 3}
    (own / "generation_config.json").write_text(json.dumps(theirs))
    library = logging.getLogger("transformers")
    library.addHandler(caplog.handler)
    answers = []
    for folder in (tiny_checkpoint, own):
        wanted = {"model": str(folder), "adapter": str(tiny_adapter)}
        loaded = engines.load(settings.load(engine="huggingface", **wanted))
        for llm in (loaded.base, loaded.llm("fine-tuned")):
            answers.append(await answer(llm, said("You are a doctor.", COMPLAINTS[0]), 40))
    library.removeHandler(caplog.handler)
    assert answers[:2] == answers[2:]
    assert "max_length" not in caplog.text


def test_a_checkpoint_says_what_ends_an_answer_and_how_much_it_reads(
    tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = Path(shutil.copytree(tiny_checkpoint, tmp_path / "own"))
    (own / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    wanted = {"model": str(own), "adapter": "none", "context_window": 4096}
    loaded = engines.load(settings.load(engine="huggingface", **wanted))
    assert {7, 9} < {*model_of(loaded)._ends}
    assert loaded.base.metadata.context_window == 2048
    assert "own was trained for 2048 tokens" in caplog.text


def test_what_is_built_otherwise_is_one_sentence(tiny_checkpoint: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(tiny_checkpoint, tmp_path / "own"))
    small = GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=64)
    GPT2LMHeadModel(small).save_pretrained(own)
    with pytest.raises(AgentError, match="GPT2LMHeadModel has no layers as Llama"):
        engines.load(settings.load(engine="huggingface", model=str(own), adapter="none"))
    (own / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(AgentError, match="transformers cannot load"):
        skeleton(str(own))


async def test_no_answer_takes_pefts_way_for_rows_of_several_adapters(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mixed(*_: Any, **__: Any) -> None:
        raise AssertionError("it picks rows by lists, three in each layer")

    monkeypatch.setattr("peft.tuners.lora.layer.LoraLayer._mixed_batch_forward", mixed)
    prompts = [said("You are a doctor.", complaint) for complaint in COMPLAINTS[:4]]
    llms = (engine.base, engine.llm("fine-tuned"))
    alone = [await answer(llm, prompt) for llm in llms for prompt in prompts]
    assert all(base != tuned for base, tuned in zip(alone[:4], alone[4:], strict=True))
    model_of(engine).prefixes.clear()
    jobs = [(llm, prompt) for llm in llms for prompt in prompts]
    order = [0, 4, 1, 5, 6, 2, 3, 7] * 3
    together = await asyncio.gather(*(answer(*jobs[n]) for n in order))
    assert together == [alone[n] for n in order], "whoever asks, the weights are the right ones"


async def test_a_long_prompt_is_read_in_chunks_and_stop_is_heard_between_them(
    engine: Engine, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = said("You are a doctor.", "It hurts here. " * 60)
    whole = await engine.base.count_tokens(prompt)
    at_once = await answer(engine.base, prompt)
    model_of(engine).prefixes.clear()
    monkeypatch.setattr(generation, "CHUNK", 50)
    read.clear()
    assert await answer(engine.base, prompt) == at_once
    chunks = [tokens for tokens in read if tokens > 1]
    assert max(chunks) <= 50 and sum(chunks) == whole > 150

    model = model_of(engine)
    model.prefixes.clear()
    read.clear()
    stop = threading.Event()
    # As on a GPU: Stop comes when all layers of a chunk have been handed over.
    head = model.model.model.norm.register_forward_hook(lambda *_: stop.set())
    model.answer(prompt, Sampling(12), False, lambda delta, **raw: None, stop)
    head.remove()
    assert read == [50]


Room = Callable[[int], None]


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    """Give the machine room for so many models at a time."""
    alive: list[weakref.ref[Any]] = []
    from_pretrained = transformers.AutoModelForCausalLM.from_pretrained

    def limit(models: int) -> None:
        def load(*args: Any, **kwargs: Any) -> Any:
            alive[:] = [ref for ref in alive if ref() is not None]
            if len(alive) >= models:
                raise FULL
            model = from_pretrained(*args, **kwargs)
            alive.append(weakref.ref(model))
            return model

        monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", load)

    return limit


@pytest.mark.parametrize("models", [1, 2])
async def test_two_checkpoints_take_turns_if_both_do_not_fit(
    models_home: Path, tiny_checkpoint: Path, room: Room, models: int
) -> None:
    room(models)
    wanted = {"engine": "huggingface", "model": "embedded", "home": models_home, "llm": "base"}
    both = engines.load(settings.load(**wanted, fine_tuned_model=str(tiny_checkpoint)))
    prompt = said("You are a doctor.", COMPLAINTS[0])
    # What fits is counted by what is alive: a model that was let go but is held on to is no room.
    answers = [
        await responses(both.llm(choice), prompt)
        for choice in ("base", "fine-tuned", "base", "base", "fine-tuned")
    ]
    texts = [text for text, _ in answers]
    assert texts[0] == texts[2] == texts[3] != texts[1] == texts[4]
    notices = [bool(before) for _, before in answers]
    assert notices == [False, models == 1, models == 1, False, models == 1]
    if models == 1:
        (told,) = answers[1][1]
        assert told["tokens"] == 0
        assert both.base.metadata.model_name in told["notice"]


async def test_a_checkpoint_that_does_not_fit_alone_is_one_sentence(
    models_home: Path, tiny_checkpoint: Path, room: Room
) -> None:
    wanted = {"engine": "huggingface", "model": "embedded", "home": models_home, "llm": "base"}
    room(1)
    both = engines.load(settings.load(**wanted, fine_tuned_model=str(tiny_checkpoint)))
    prompt = said("You are a doctor.", COMPLAINTS[0])
    room(0)
    with pytest.raises(AgentError, match="memory is full"):
        await answer(both.llm("fine-tuned"), prompt)
    with pytest.raises(AgentError, match="memory is full"):
        engines.load(settings.load(**wanted))
    room(1)
    assert await answer(both.base, prompt)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the checkpoints whose weights were loaded, in order."""
    load, names = Checkpoint.load, []

    def told(self: Checkpoint) -> Any:
        names.append(self.name)
        return load(self)

    monkeypatch.setattr(Checkpoint, "load", told)
    return names


async def test_the_start_loads_what_answers_first_and_a_switch_loads_once(
    tiny_checkpoint: Path, tmp_path: Path, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = Path(shutil.copytree(tiny_checkpoint, tmp_path / "tuned"))
    wanted = {"model": str(tiny_checkpoint), "fine_tuned_model": str(tuned)}
    both = engines.load(settings.load(engine="huggingface", **wanted))
    base = tiny_checkpoint.name
    assert loads == ["tuned"]
    # A load that is bound to fail fills the machine's own memory first.
    monkeypatch.setattr(Checkpoint, "has_room", lambda self: False)
    prompt = said("You are a doctor.", COMPLAINTS[0])
    for choice in ("base", "fine-tuned", "fine-tuned", "base"):
        await answer(both.llm(choice), prompt)
    assert loads == ["tuned", base, "tuned", base]
    loads.clear()
    engines.load(settings.load(engine="huggingface", llm="base", **wanted))
    assert loads == [base]


def test_the_gpu_is_asked_for_room_before_weights_load(
    tiny_checkpoint: Path, cuda: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = Checkpoint("tiny", str(tiny_checkpoint), "MEDRAFT_MODEL", "none")
    whole = sizes.shape_of(str(tiny_checkpoint)).weights("none") + sizes.BESIDE
    monkeypatch.setattr(checkpoint, "usable", lambda: [0, 1])
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda n: 100)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda n: 0)
    for free, there in ((whole // 2, True), (whole // 2 - 150, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda n, free=free: (free, 0))
        assert tiny.has_room() == there


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a card without bfloat16."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)


def test_weights_that_spill_over_to_the_cpu_do_not_fit(
    tiny_checkpoint: Path, cuda: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_pretrained = transformers.AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        transformers.AutoModelForCausalLM,
        "from_pretrained",
        lambda source, **_: from_pretrained(source),
    )
    with pytest.raises(FULL):
        Checkpoint("tiny", str(tiny_checkpoint), "MEDRAFT_MODEL", "none").load()


@pytest.mark.parametrize("quantize", ["none", "8bit", "4bit"])
def test_all_that_a_card_has_free_is_for_the_model_and_nothing_goes_to_the_cpu(
    cuda: None, monkeypatch: pytest.MonkeyPatch, quantize: Any
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda n: (100 + n, 0))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda n: 20)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda n: 5)
    for cards, placed in (
        ([0], {"device_map": {"": 0}}),  # an old one beside it is not asked for room
        ([0, 2], {"device_map": "auto", "max_memory": {0: 115, 2: 117}}),
    ):
        monkeypatch.setattr(checkpoint, "usable", lambda cards=cards: cards)
        placement = checkpoint._placement(quantize, torch.float16)
        del placement["dtype"]
        placement.pop("quantization_config", None)
        assert placement == placed


@pytest.mark.parametrize("quantize", ["8bit", "4bit"])
def test_quantization_is_for_cuda_with_bitsandbytes(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, quantize: Any
) -> None:
    wanted = settings.load(engine="huggingface", model="embedded", quantize=quantize)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(AgentError, match=f"MEDRAFT_QUANTIZE={quantize} needs a CUDA GPU"):
        engines.load(wanted)
    request.getfixturevalue("cuda")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(AgentError, match=r"\[gpu\]"):
        engines.load(wanted)
    placement = checkpoint._placement(quantize, checkpoint._dtype())
    assert placement["dtype"] == torch.float16
    assert getattr(placement["quantization_config"], f"load_in_{quantize}")


def test_a_torch_for_cpus_on_a_cuda_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(gpu, "card", lambda: gpu.Card("Tesla T4", "535.54.03"))
    with pytest.raises(AgentError, match="pip install torch"):
        engines.load(settings.load(engine="huggingface"))


class Hub(BaseHTTPRequestHandler):
    """Refuses each model for a reason of its own, as the real one does."""

    def do_GET(self) -> None:
        if "someone/gone-away" in self.path:
            self.close_connection = True
            return
        status, headers = 404, {"X-Error-Code": "RepoNotFound"}
        if "someone/gated" in self.path:
            status, headers = 403, {"X-Error-Code": "GatedRepo"}
        elif "someone/wrong-token" in self.path:
            message = "Invalid credentials in Authorization header"
            status, headers = 401, {"X-Error-Message": message}
        self.send_response(status)
        for name, value in (headers | {"Content-Length": "0"}).items():
            self.send_header(name, value)
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


LOAD_ALL = """
import json, sys
from agent import settings
from agent.errors import AgentError
from agent.llms import engines, gpu, sizes
for name in sys.argv[1:]:
    try:
        engines.load(settings.load(engine="huggingface", model=name))
    except AgentError as error:
        print(json.dumps([name, str(error)]), flush=True)
"""


@pytest.mark.slow
def test_what_the_hub_refuses_is_one_sentence_each(tmp_path: Path) -> None:
    reasons = {
        "someone/gated": "https://huggingface.co/someone/gated",
        "someone/wrong-token": "does not take the token",
        "someone/no-such-model": "The Hub has no model someone/no-such-model",
        "someone/gone-away": "cannot be reached",
    }
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        environment = os.environ | {
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
            "HF_HOME": str(tmp_path),
            "HF_TOKEN": "hf_wrong",
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
        }
        command = [sys.executable, "-c", LOAD_ALL, *reasons]
        ran = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
        )
        hub.shutdown()
    told = dict(json.loads(line) for line in ran.stdout.splitlines())
    assert told.keys() == reasons.keys(), ran.stderr
    for name, reason in reasons.items():
        assert reason in told[name]
        assert "MEDRAFT_MODEL" in told[name] or "hf auth login" in told[name]
