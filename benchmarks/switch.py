"""What the switch between base and fine-tuned costs, in time and in memory.

    python -m benchmarks.switch                      # llama_cpp
    python -m benchmarks.switch --engine huggingface

Answers of one token to the same short prompt, its prefix cached for both LLMs: the same LLM twice
in a row against the two in turn, and against loading the model anew. Memory is the process's
resident set with the adapter and without, each in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import time
from contextlib import aclosing
from pathlib import Path

from agent import settings
from agent.chat.prompting import prompt
from agent.llms import choice, engines
from agent.llms.interface import ChatLLM, Engine

QUESTION, ROUNDS = "What is a fever?", 30


async def one_token(llm: ChatLLM) -> float:
    """Milliseconds from the request to the end of an answer of one token."""
    messages = (await prompt(llm, "fine-tuned", [], QUESTION, [], 8)).messages
    start = time.perf_counter()
    stream = await llm.astream_chat(messages, max_tokens=1)
    async with aclosing(stream):
        async for _ in stream:
            pass
    return (time.perf_counter() - start) * 1000


async def times(engine: Engine) -> tuple[float, float]:
    base, tuned = engine.llm("base"), engine.llm("fine-tuned")
    for llm in (base, tuned, base, tuned):
        await one_token(llm)
    same = [await one_token(llm) for llm in [base] * ROUNDS + [tuned] * ROUNDS]
    turn = [await one_token(llm) for llm in [base, tuned] * ROUNDS]
    return statistics.median(same), statistics.median(turn)


def resident(engine: str, adapter: str, told: multiprocessing.Queue[float]) -> None:
    """MiB of a process that has loaded the engine and answered with each LLM once."""
    loaded = engines.load(settings.load(engine=engine, model="embedded", adapter=adapter))

    async def answer() -> None:
        for llm in (loaded.base, loaded.fine_tuned):
            if llm is not None:
                await one_token(llm)

    asyncio.run(answer())
    status = Path("/proc/self/status").read_text()
    told.put(int(status.partition("VmRSS:")[2].split()[0]) / 1024)


def memory(engine: str, adapter: str) -> float:
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    process = context.Process(target=resident, args=(engine, adapter, told))
    process.start()
    value = told.get(timeout=300)
    process.join()
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=("llama_cpp", "huggingface"), default="llama_cpp")
    engine = parser.parse_args().engine
    start = time.perf_counter()
    loaded = engines.load(settings.load(engine=engine, model="embedded"))
    reload = (time.perf_counter() - start) * 1000
    same, turn = asyncio.run(times(loaded))
    print(f"{engine}: one token, the same LLM again {same:.1f} ms, the two in turn {turn:.1f} ms")
    print(f"  the switch costs {turn - same:+.1f} ms; loading the model {reload:.0f} ms")
    without, with_adapter = (memory(engine, adapter) for adapter in ("none", "auto"))
    size = (choice.SHIPPED_ADAPTER / "adapter_model.safetensors").stat().st_size / 2**20
    print(
        f"  memory {without:.0f} MiB without the adapter, {with_adapter:.0f} MiB with it "
        f"({with_adapter - without:+.0f}; its file has {size:.1f} MiB)"
    )


if __name__ == "__main__":
    main()
