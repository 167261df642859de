"""The CUDA path on one bare GPU: does it run, and how fast. One stage a function, each on its own.

    python -m benchmarks.cuda STAGE ...         # no STAGE: all, in the order of their worth
    SHAPE=tiny python -m benchmarks.cuda        # the same code on small weights, also on a CPU

Weights are random and of Llama 3 8B's shape, so that no network is needed: what is said means
nothing, what it costs does. Prints a line for each stage, and writes cuda.json to $OUT after each.
A stage that would begin after $DEADLINE seconds is left out. Weights and trained adapters go to
$WORK, 17 GB. The exit status is 1 if anything in a stage failed, 2 for a stage that there is not.
**So far it has run on CPUs alone.**

Owns the stages of the chat and their order. Knows nothing of how the weights come to be
(random_llama.py), how they are loaded and asked (cuda_engine.py), nor of training, embedding and
search (cuda_parts.py).
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any of these is imported

import torch

from agent.errors import AgentError
from agent.llms.huggingface.failures import free_memory
from agent.llms.interface import Engine, Sampling
from benchmarks import cuda_parts as parts
from benchmarks.cuda_engine import (
    BIG,
    LONG,
    REPEATS,
    TOKENS,
    WORK,
    Found,
    ask,
    big,
    engine,
    failed,
    gib,
    let_go,
    made,
    model_of,
    on_cuda,
    said,
    told,
)
from benchmarks.speed import bare_huggingface, median


def facts() -> Found:
    got: Found = {"torch": torch.__version__, "device": "cuda" if on_cuda() else "cpu"}
    if on_cuda():
        source = torch.empty(2 << 30, dtype=torch.uint8, device="cuda")
        target = torch.empty_like(source)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        target.copy_(source)
        start.record()
        for _ in range(10):
            target.copy_(source)
        end.record()
        torch.cuda.synchronize()
        got["gpu"] = torch.cuda.get_device_name()
        got["copy_TB_s"] = round(20 * source.numel() / start.elapsed_time(end) / 1e9, 2)
    return got


async def behaves(loaded: Engine) -> Found:
    """The contract's substance: each its own weights, from the cache or not, stopped or not."""
    base, tuned = loaded.base, loaded.llm("fine-tuned")
    one, two, cached = [(await ask(llm, said(40), 24))[1] for llm in (base, tuned, base)]
    model_of(loaded).prefixes.clear()
    both = await asyncio.gather(ask(base, said(40), 24), ask(tuned, said(40), 24))
    for _ in range(10):
        async with aclosing(await base.astream_chat(said(LONG), max_tokens=200)) as stream:
            await anext(stream)
    again = (await ask(base, said(40), 24))[1]
    hot = {(await ask(base, said(40), 24, temperature=1.5))[1] for _ in range(3)}
    loss = await tuned.loss(said(40), "Rest and drink water.")
    return {
        "differ": one != two,
        "from the cache": cached == one,
        "both at once": [text for _, text in both] == [one, two],
        "after ten stops": again == one,
        "sampled": len(hot) > 1,
        "nats": loss is not None and round(loss.nats, 2),
        "dtype": str(model_of(loaded).model.dtype),
    }


def correct() -> Found:
    """Small weights in every precision."""
    kinds = ["bf16", "fp16", "8bit", "4bit"] if on_cuda() else ["fp32"]
    got, real = {}, torch.cuda.is_bf16_supported
    for kind in kinds:
        try:
            if kind == "fp16":
                torch.cuda.is_bf16_supported = lambda *_, **__: False
            bits = kind if kind.endswith("bit") else "none"
            got[kind] = asyncio.run(behaves(engine("tiny", quantize=bits)))
        except Exception as error:
            got[kind] = {"failed": repr(error)[:300]}
        finally:
            torch.cuda.is_bf16_supported = real
        free_memory()
    return got


def create() -> Found:
    folder = made(BIG)
    return {"GB": round(sum(file.stat().st_size for file in folder.iterdir()) / 1e9, 2)}


async def speeds(loaded: Engine, tokens: int = TOKENS) -> Found:
    got: Found = {}
    for name in ("base", "fine-tuned"):
        llm = loaded.llm(name)
        await ask(llm, said(20, "warm"), 8)
        runs = [await ask(llm, said(LONG // 3, f"{name}{n}"), tokens) for n in range(REPEATS)]
        got[name] = told(median([speed for speed, _ in runs]))
    return got


def ours() -> Found:
    """Load, first token, tokens/s of each LLM, the switch, a long prompt, and the same again."""
    begun = time.perf_counter()
    loaded = big()
    got: Found = {"load_s": round(time.perf_counter() - begun, 1), "GiB": gib()}

    async def run() -> None:
        got.update(await speeds(loaded))
        pair = [loaded.base, loaded.llm("fine-tuned")]
        turns = [(await ask(llm, said(60), 1))[0].first for llm in pair * 8]
        got["switch_ms"] = round(statistics.median(turns[4:]), 1)
        for name in ("long_prompt_ms", "same_prompt_again_ms"):
            got[name] = round((await ask(loaded.base, said(LONG, "long"), 2))[0].first, 1)

    asyncio.run(run())
    if on_cuda():
        got["peak_GiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return got


def stop() -> Found:
    """Milliseconds from Stop to a free engine, while it reads and while it writes."""
    llm: Any = big().base

    async def once(words: int, wait: float, about: str) -> float:
        stream = await llm.astream_chat(said(words, about), max_tokens=200)
        reading = asyncio.ensure_future(anext(stream, None))
        await asyncio.sleep(wait)
        reading.cancel()
        begun = time.perf_counter()
        await asyncio.gather(reading, return_exceptions=True)
        await stream.aclose()
        await llm._queue.run(lambda: None)
        return round((time.perf_counter() - begun) * 1000, 1)

    async def run() -> Found:
        waits = (0.01, 0.05, 0.15)
        got: Found = {f"reading, after {w} s": [await once(LONG, w, f"r{w}")] for w in waits}
        return got | {"writing": [await once(20, 0.5, f"w{n}") for n in range(3)]}

    return asyncio.run(run())


def eight() -> Found:
    """Eight chats at once, half of them with each LLM, and as many in a row."""
    pair = [big().base, big().llm("fine-tuned")]

    async def run() -> Found:
        begun = time.perf_counter()
        chats = (ask(pair[n % 2], said(LONG // 8, f"e{n}"), TOKENS) for n in range(8))
        runs = await asyncio.gather(*chats)
        took = time.perf_counter() - begun
        firsts = sorted(round(speed.first) for speed, _ in runs)
        got: Found = {"tokens_s": round(8 * TOKENS / took, 1), "first_ms": firsts}
        begun = time.perf_counter()
        for n in range(8):
            await ask(pair[n % 2], said(LONG // 8, f"r{n}"), TOKENS)
        in_a_row = time.perf_counter() - begun
        return got | {
            "in_a_row_tokens_s": round(8 * TOKENS / in_a_row, 1),
            "at_once_x": round(in_a_row / took, 2),
        }

    return asyncio.run(run())


def bare(**extra: Any) -> Found:
    """transformers' own `generate`, without adapter, hooks and prefix cache."""
    let_go()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    placed: Any = {"dtype": "bfloat16", "device_map": "auto"} if on_cuda() else {}
    model = AutoModelForCausalLM.from_pretrained(made(BIG), **placed).eval()
    words = AutoTokenizer.from_pretrained(made(BIG))
    for name, value in extra.items():
        setattr(model.generation_config, name, value)
    runs = [
        asyncio.run(bare_huggingface(model, words, said(LONG // 3, f"b{n}"), Sampling(TOKENS)))
        for n in range(1 + REPEATS)
    ]
    return told(median(runs[1:])) | {"GiB": gib()}


def static() -> Found:
    """The same with a static cache, which transformers compiles: what one stream could have."""
    return bare(cache_implementation="static")


def full() -> Found:
    """Memory runs out while it answers: one sentence; then there is an answer again."""
    llm = big().base
    model_of(big()).prefixes.clear()
    free_memory()

    async def run() -> str:
        try:
            return f"{len((await ask(llm, said(LONG, 'full'), 4))[1])} characters"
        except AgentError as error:
            return str(error)

    room = torch.cuda.mem_get_info()[0] - (150 << 20)
    ballast = torch.empty(max(0, room), dtype=torch.uint8, device="cuda")
    one = asyncio.run(run())
    del ballast
    free_memory()
    after = asyncio.run(run())
    return {"full": one, "after": after, "answers after": after.endswith("characters")}


def quantized() -> Found:
    let_go()
    got: Found = {}
    for bits in ("4bit", "8bit"):
        begun = time.perf_counter()
        loaded = engine(BIG, quantize=bits)
        got[bits] = {"load_s": round(time.perf_counter() - begun, 1), "GiB": gib()}
        got[bits] |= asyncio.run(speeds(loaded, TOKENS // 2))
        del loaded
        free_memory()
    return got


def stages() -> dict[str, Callable[[], Found]]:
    """All of them, in the order of their worth; those that need CUDA only where it is."""
    apart: dict[str, Callable[[], Found]] = {"batched": parts.batched, "lora": parts.lora}
    apart |= {"embed": parts.embed, "search": parts.search}
    named: dict[str, Callable[[], Found]] = {"facts": facts, "correct": correct}
    if on_cuda():
        named["t4"] = parts.t4
    named |= {"create": create, "ours": ours, "stop": stop, "eight": eight}
    if on_cuda():
        named["full"] = full
    named["bare"] = bare
    if on_cuda():
        named |= {"qlora": parts.qlora, "quantized": quantized}
    return named | apart | {"static": static}


def main(wanted: list[str]) -> int:
    """Run the stages; 1 if anything failed in them, 2 if one is not there."""
    there = stages()
    if unknown := [name for name in wanted if name not in there]:
        print(f"no such stage here: {', '.join(unknown)}; {', '.join(there)}", file=sys.stderr)
        return 2
    begun, deadline = time.monotonic(), float(os.environ.get("DEADLINE", "inf"))
    out = Path(os.environ.get("OUT", ".")) / "cuda.json"
    found: Found = {}
    for name, stage in there.items():
        if (wanted and name not in wanted) or time.monotonic() - begun > deadline:
            continue
        start = time.monotonic()
        try:
            found[name] = stage()
        except Exception as error:
            found[name] = {"failed": repr(error)[:300]}
            traceback.print_exc(limit=-6)
            let_go()
        print(f"{name} ({time.monotonic() - start:.0f} s): {json.dumps(found[name])}", flush=True)
        out.write_text(json.dumps(found, indent=1))
    let_go()
    shutil.rmtree(WORK / "trained", ignore_errors=True)
    return int(failed(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
