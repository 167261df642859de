"""What only the embedded engine does: GGUF files, sizes, slots, and a server that dies."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import re
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import xllamacpp
from huggingface_hub import constants
from llama_index.core.base.llms.types import ChatMessage, MessageRole

from agent import settings
from agent.errors import AgentError
from agent.llms import engines, gpu
from agent.llms.embedded import embedded_gguf
from agent.llms.interface import ChatLLM, Engine
from agent.llms.llama_cpp import gguf_file, server
from agent.llms.llama_cpp.server import BATCH, Server, fit, threads
from agent.llms.llama_cpp.slots import Slots
from agent.settings import Settings

from asking import kill
from outside import needs


def said(*texts: str) -> list[ChatMessage]:
    """A system prompt, then user and assistant in turn."""
    roles = [MessageRole.SYSTEM] + [MessageRole.USER, MessageRole.ASSISTANT] * len(texts)
    return [ChatMessage(role=role, content=text) for role, text in zip(roles, texts, strict=False)]


FEVER = said("You are a doctor.", "What is a fever?")
KNEES = said("You are a poet.", "Why do my knees creak on the stairs?")


async def answer(llm: ChatLLM, messages: Sequence[ChatMessage] = FEVER, tokens: int = 24) -> str:
    """The greedy answer, plainly."""
    stream = await llm.astream_chat(messages, max_tokens=tokens, repetition_penalty=1.0)
    return "".join([response.delta or "" async for response in stream])


@pytest.fixture(scope="module")
def wanted(models_home: Path, adapter: Path) -> dict[str, str | Path]:
    return {"engine": "llama_cpp", "home": models_home, "adapter": str(adapter)}


@pytest.fixture(scope="module")
def engine(wanted: dict) -> Engine:
    return engines.load(settings.load(**wanted))


def server_of(engine: Engine) -> Server:
    llm: Any = engine.base
    server: Server = llm._server
    return server


# Files


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hub cache with one snapshot of owner/repo, and no network."""
    snapshot = tmp_path / "models--owner--repo" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    main = tmp_path / "models--owner--repo" / "refs" / "main"
    main.parent.mkdir()
    main.write_text(snapshot.name)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return snapshot


@pytest.mark.parametrize(
    ("held", "named", "found"),
    [
        (["a.gguf"], "owner/repo/a.gguf", "a.gguf"),
        (["sub/a.gguf", "b.gguf"], "owner/repo/sub/a.gguf", "sub/a.gguf"),
        (["a.gguf"], "owner/repo", "a.gguf"),
        (["a.Q4_K_M.gguf", "a.q8_0.gguf"], "owner/repo", "a.q8_0.gguf"),
        (["a.Q4_K_M.gguf", "a.F16.gguf"], "owner/repo", "a.Q4_K_M.gguf"),
    ],
)
def test_a_hub_name_is_found_in_its_cache(
    cache: Path, held: list[str], named: str, found: str
) -> None:
    for name in held:
        (cache / name).parent.mkdir(exist_ok=True)
        (cache / name).write_bytes(b"GGUF")
    assert gguf_file.find(named, "MEDRAFT_MODEL") == cache / found


@pytest.mark.parametrize("named", ["owner/repo/b.gguf", "owner/repo", "owner/other"])
def test_what_is_neither_here_nor_cached_needs_the_hub(cache: Path, named: str) -> None:
    for name in ("a.Q5_0.gguf", "a.Q6_K.gguf"):
        (cache / name).write_bytes(b"GGUF")
    with pytest.raises(AgentError, match=r"the Hub cannot be\s+reached.*MEDRAFT_MODEL"):
        gguf_file.find(named, "MEDRAFT_MODEL")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Hub with two repositories of two files each; it gives neither file, and says so."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            listed = self.path.startswith("/api/") and "/missing/" not in self.path
            files = [{"type": "file", "oid": "0", "size": 4, "path": f"{n}.gguf"} for n in "ab"]
            self.send_response(200 if listed else 404 if "/missing/" in self.path else 403)
            if not listed:
                code = "RepoNotFound" if "/missing/" in self.path else "GatedRepo"
                self.send_header("X-Error-Code", code)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            if listed:
                self.wfile.write(json.dumps(files).encode())

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        template.replace(template.partition("/{")[0], address),
    )
    yield
    server.shutdown()


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ("owner/gated/a.gguf", "accepted its terms.*hf auth login"),
        ("owner/missing", "no repository owner/missing on the Hub"),
        ("owner/missing/a.gguf", "no repository owner/missing on the Hub"),
        ("owner/gated/c.gguf", "a.gguf, b.gguf"),
        ("owner/gated", "a.gguf, b.gguf"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(hub: None, named: str, sentence: str) -> None:
    with pytest.raises(AgentError, match=sentence) as error:
        gguf_file.find(named, "MEDRAFT_MODEL")
    assert "\n" not in str(error.value)


async def test_a_model_in_the_hubs_cache_answers(cache: Path, wanted: dict) -> None:
    (cache / "model.gguf").symlink_to(embedded_gguf())
    loaded = engines.load(settings.load(**wanted | {"model": "owner/repo", "adapter": "none"}))
    assert loaded.model == "model"
    assert await answer(loaded.base)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"GGUF", b"no model at all, but long enough for a header"),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**60),  # a name of so many bytes
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**64 - 1),
    ],
)
def test_a_file_that_is_no_gguf_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(AgentError, match="cannot load"):
        gguf_file.header(path)


def test_a_model_without_attention_has_a_header(tmp_path: Path) -> None:
    def text(said: bytes) -> bytes:
        return struct.pack("<Q", len(said)) + said

    fields = text(b"general.architecture") + struct.pack("<I", 8) + text(b"mamba")
    fields += text(b"mamba.attention.head_count") + struct.pack("<II", 4, 0)
    (tmp_path / "mamba.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + fields)
    assert gguf_file.header(tmp_path / "mamba.gguf") == gguf_file.Header(0, 0)


# Sizes


def with_memory(monkeypatch: pytest.MonkeyPatch, gib: float) -> None:
    free = SimpleNamespace(available=int(gib * 2**30))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)


def test_the_header_tells_what_a_chat_takes() -> None:
    # 30 layers of 3 key-value heads of 64 keys and 64 values, 2 bytes each
    assert gguf_file.header(embedded_gguf()) == gguf_file.Header(8192, 30 * 3 * 128 * 2)


def test_a_window_beyond_the_models_own_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    assert fit(embedded_gguf(), Settings(context_window=4096))[0] == 4096
    assert not caplog.records
    assert fit(embedded_gguf(), Settings(context_window=100_000))[0] == 8192
    assert "trained for 8192" in caplog.text


def test_slots_are_no_more_than_memory_holds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = Settings(context_window=8192, slots=4)  # 180 MiB each
    with_memory(monkeypatch, 4)
    assert fit(embedded_gguf(), wanted) == (8192, 4)
    assert not caplog.records
    with_memory(monkeypatch, 1)
    assert fit(embedded_gguf(), wanted) == (8192, 2)
    assert "memory for 2" in caplog.text
    with_memory(monkeypatch, 0.5)
    with pytest.raises(AgentError, match="MEDRAFT_CONTEXT_WINDOW"):
        fit(embedded_gguf(), wanted)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Callable[[Settings], Any]:
    """The parameters that a server would be started with."""

    def with_settings(wanted: Settings) -> Any:
        given = []

        def native(params: Any) -> None:
            given.append(params)
            raise RuntimeError

        with monkeypatch.context() as patch:
            patch.setattr("xllamacpp.Server", native)
            with pytest.raises(AgentError):
                Server(embedded_gguf(), None, wanted)
        return given[0]

    return with_settings


def with_gpu(monkeypatch: pytest.MonkeyPatch, gib: float) -> None:
    """As a build for CUDA tells of a card."""
    kinds = xllamacpp.ggml_backend_dev_type
    cpu = {"type": kinds.GGML_BACKEND_DEVICE_TYPE_CPU, "memory_free": 2**34}
    card = {"type": kinds.GGML_BACKEND_DEVICE_TYPE_GPU, "memory_free": int(gib * 2**30)}
    monkeypatch.setattr(xllamacpp, "get_device_info", lambda: [card, cpu])


def test_layers_go_to_the_gpu_as_many_as_fit_or_as_are_set(
    started: Callable[[Settings], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert started(Settings()).n_batch == BATCH  # the wheel of PyPI has no GPU
    with_gpu(monkeypatch, 8)
    params = started(Settings())
    assert (params.n_gpu_layers, params.fit_params) == (-1, True)  # llama.cpp measures what fits
    assert (params.n_batch, params.n_ubatch) == (512, 512)
    assert started(Settings(gpu_layers=20)).n_gpu_layers == 20
    params = started(Settings(gpu_layers=0))
    assert (params.n_gpu_layers, params.n_batch) == (0, BATCH)


def test_the_gpus_memory_holds_chats_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: dict[str, Any] = {"context_window": 8192, "slots": 4}
    with_memory(monkeypatch, 0.5)
    with_gpu(monkeypatch, 4)
    assert fit(embedded_gguf(), Settings(**wanted)) == (8192, 4)
    with pytest.raises(AgentError, match="no memory"):
        fit(embedded_gguf(), Settings(**wanted, gpu_layers=0))


def test_a_llama_cpp_for_cpus_beside_a_gpu_is_told_with_a_large_model(
    started: Callable[[Settings], Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(gpu, "card", lambda: gpu.Card("NVIDIA L4", "580.1"))
    started(Settings())
    assert not caplog.records
    monkeypatch.setattr(server, "SMALL", 0)
    started(Settings())
    assert "docs/engines.md" in caplog.text


@needs("os.sched_setaffinity", hasattr(os, "sched_setaffinity"))
def test_threads_are_the_cores_that_the_process_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert threads(Settings()) == 1
        assert threads(Settings(threads=3)) == 3
    finally:
        os.sched_setaffinity(0, allowed)


# Slots


async def test_a_conversation_finds_its_slot_again_for_each_llm() -> None:
    slots = Slots(4)

    async def turn(scale: float, *texts: str) -> int:
        with slots.take(scale, said("You are a doctor.", *texts)) as line:
            assert [before async for before in line] == []
            assert line.slot is not None
            return line.slot.id

    history = ["It hurts."]
    mine = {scale: await turn(scale, *history) for scale in (0.0, 1.0)}
    other = {scale: await turn(scale, "I cough.") for scale in (0.0, 1.0)}
    assert len({*mine.values(), *other.values()}) == 4
    for scale in (0.0, 1.0, 1.0, 0.0):
        history += ["Where?", "Here."]
        assert await turn(scale, *history) == mine[scale]
    assert await turn(1.0, "My ear rings.") in other.values()  # idle longer than mine


async def test_the_llms_take_turns_first_come_first_served() -> None:
    slots = Slots(2)
    order: list[str] = []
    places: dict[str, list[int]] = {}

    async def request(name: str, scale: float) -> None:
        with slots.take(scale, FEVER) as line:
            places[name] = []
            async for before in line:
                places[name].append(before)
            order.append(name)
            await asyncio.sleep(0.01)

    with slots.take(0.0, FEVER) as first:
        assert [before async for before in first] == []
        requests = [
            asyncio.create_task(request(name, scale))
            for name, scale in [("tuned", 1.0), ("stopped", 1.0), ("base", 0.0)]
        ]
        await asyncio.sleep(0.01)
        assert order == []  # the other slot is free, and yet base does not overtake
        requests[1].cancel()
        await asyncio.sleep(0.01)
    await asyncio.gather(*requests, return_exceptions=True)
    assert order == ["tuned", "base"]
    assert places == {"tuned": [1], "stopped": [2], "base": [3, 2, 1]}
    assert not any(slot.busy for slot in slots._slots)


async def test_the_place_in_the_line_is_told_and_then_the_answer(wanted: dict) -> None:
    loaded = engines.load(settings.load(**wanted, slots=1))

    async def places(llm: ChatLLM) -> tuple[list[int], str]:
        stream, told, text = await llm.astream_chat(FEVER, max_tokens=8), [], ""
        async with aclosing(stream):
            async for response in stream:
                assert response.raw is not None
                if "waiting" in response.raw:
                    assert (response.delta, response.raw["tokens"]) == ("", 0)
                    told.append(response.raw["waiting"])
                text += response.delta or ""
        return told, text

    both = (loaded.base, loaded.llm("fine-tuned"))
    told = await asyncio.gather(*(places(both[number % 2]) for number in range(3)))
    assert [place for place, _ in told] == [[], [1], [2, 1]]
    assert all(text for _, text in told)


async def test_both_llms_at_once_answer_as_they_do_alone(engine: Engine) -> None:
    llms = [engine.base, engine.llm("fine-tuned")] * 2
    alone = [await answer(llm, messages) for llm in llms[:2] for messages in (FEVER, KNEES)]
    assert len(set(alone)) == 4
    at_once = await asyncio.gather(
        *(answer(llm, messages) for llm in llms[:2] for messages in (FEVER, KNEES))
    )
    # Side by side in one batch the last bits differ, and a near tie may fall the other way.
    assert [text[:20] for text in at_once] == [text[:20] for text in alone]


async def test_what_the_adapter_computed_never_reaches_the_base_llm(wanted: dict) -> None:
    loaded = engines.load(settings.load(**wanted, slots=1))
    alone = await answer(loaded.base)
    await answer(loaded.base, KNEES)
    await answer(loaded.llm("fine-tuned"))
    await answer(loaded.base, KNEES)
    # The slot is the base LLM's, and the server had kept this prompt as the adapter read it.
    assert await answer(loaded.base) == alone


async def test_a_turn_reads_what_is_new_whichever_llm_answers(engine: Engine) -> None:
    running = server_of(engine).running

    async def tokens_read() -> int:
        metrics = (await running.http.get("/metrics")).text
        (line,) = re.findall(r"^llamacpp:prompt_tokens_total (\d+)", metrics, re.MULTILINE)
        return int(line)

    async def turn(llm: ChatLLM, said: list[ChatMessage], number: int) -> int:
        question = f"Question {number}. My head hurts since Monday, and light makes it worse."
        said.append(ChatMessage(role=MessageRole.USER, content=question))
        before = await tokens_read()
        reply = await answer(llm, said, tokens=4)
        said.append(ChatMessage(role=MessageRole.ASSISTANT, content=reply))
        return await tokens_read() - before

    llms = [engine.base, engine.llm("fine-tuned")]
    conversations = [said("You are a doctor."), said("You are a nurse.")]
    read = [
        [await turn(llms[(number + who) % 2], conversations[who], number) for who in (0, 1)]
        for number in range(10)
    ]
    for who in (0, 1):
        assert 0 < read[9][who] <= 1.5 * read[1][who]


# Stop


async def test_ten_stops_leave_nothing_behind(engine: Engine) -> None:
    running = server_of(engine).running
    process, number = psutil.Process(), itertools.count()

    async def stop(llm: ChatLLM, pieces: int) -> None:
        """Stop an answer after so many pieces; with none, while the prompt is read."""
        # Another one each time: what a stopped one has read is not read again.
        long = said("You are a doctor.", f"{next(number)} " + "My head hurts since Monday. " * 250)
        stream = await llm.astream_chat(FEVER if pieces else long, max_tokens=500)
        async with aclosing(stream):
            if not pieces:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(stream), 0.1)
            for _ in range(pieces):
                await anext(stream)

    async def is_idle() -> bool:
        slots = (await running.http.get("/slots")).json()
        return not any(slot["is_processing"] for slot in slots)

    async def held() -> tuple[int, int, int]:
        while not await is_idle():
            pass
        metrics = (await running.http.get("/metrics")).text
        (passes,) = re.findall(r"^llamacpp:n_decode_total (\d+)", metrics, re.MULTILINE)
        return process.num_threads(), process.memory_info().rss, int(passes)

    for pieces in (0, 3):  # what is made once and kept
        await stop(engine.base, pieces)
    await answer(engine.base)
    gc.collect()  # servers of earlier tests, whose threads would end meanwhile
    before = await held()
    for pieces in (0, 1, 2, 0, 3) * 2:
        await stop(engine.base, pieces)
    after = await held()
    assert after[0] <= before[0]
    assert after[1] - before[1] < 16 * 2**20
    # Twelve pieces, and what was computed until each Stop was heard; whole, they were thousands.
    assert after[2] - before[2] < 200
    for slot in running.slots._slots:
        assert not slot.busy


# Death and restart


@pytest.fixture
def mortal(wanted: dict) -> Engine:
    """An engine of a test's own."""
    return engines.load(settings.load(**wanted))


async def test_a_server_that_died_is_started_again_once(
    mortal: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    llms = [mortal.base, mortal.llm("fine-tuned")]
    before = [await answer(llm) for llm in llms]
    died = server_of(mortal).running
    kill(server_of(mortal))
    # Each in an event loop of its own, as LlamaIndex's synchronous methods have it.
    again: list[Any] = await asyncio.gather(
        *(asyncio.to_thread(asyncio.run, answer(llm)) for llm in llms * 2),
        asyncio.to_thread(asyncio.run, mortal.base.count_tokens(FEVER)),
    )
    assert [text[:20] for text in again[:4]] == [text[:20] for text in before * 2]
    assert again[4] > 10
    assert server_of(mortal).running is not died
    assert caplog.text.count("it was started again") == 1


async def test_an_answer_that_loses_its_server_ends_with_a_sentence(mortal: Engine) -> None:
    heard = []
    stream = await mortal.base.astream_chat(FEVER, max_tokens=500)
    with pytest.raises(AgentError, match="ask again"):
        async for response in stream:
            heard.append(response.delta)
            if len(heard) == 3:
                kill(server_of(mortal))
    assert len(heard) >= 3
    assert await answer(mortal.base)


async def test_a_server_that_cannot_start_again_says_why(
    mortal: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(server_of(mortal), "_model", tmp_path / "gone.gguf")
    kill(server_of(mortal))
    with pytest.raises(AgentError, match=r"gone\.gguf"):
        await answer(mortal.base)
