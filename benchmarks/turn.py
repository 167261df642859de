"""What a patient waits for, on the real index and the real model.

    python -m benchmarks.turn                     # llama_cpp
    python -m benchmarks.turn --engine huggingface

Prints for each retrieval choice the time to the first token and tokens/s after it, the event
loop's longest gap while answers streamed, and how long after Stop the engine answers again,
stopped while it reads a long prompt and while it writes. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from contextlib import aclosing

from llama_index.core.base.llms.types import ChatMessage, MessageRole

from agent import settings
from agent.behaviour import Retrieval
from agent.chat import loading
from agent.chat.events import Delta, Finished
from agent.chat.loading import Agent

QUESTIONS = (
    "Hi Doctor, I have a headache, help me.",
    "Hello doctor, I have bad acne. How do I get rid of it?",
    "My stomach burns after every meal.",
    "I have been coughing at night for three weeks.",
    "Can I take ibuprofen with my blood pressure tablets?",
)
TICK = 0.002


async def longest_gap(stop: asyncio.Event) -> float:
    """Seconds, at the most, that the loop kept a task waiting beyond what it asked for."""
    longest = 0.0
    while not stop.is_set():
        start = time.perf_counter()
        await asyncio.sleep(TICK)
        longest = max(longest, time.perf_counter() - start - TICK)
    return longest


async def answers(agent: Agent, retrieval: Retrieval) -> None:
    first, speed = [], []
    stop = asyncio.Event()
    gap = asyncio.create_task(longest_gap(stop))
    for question in QUESTIONS:
        conversation = agent.conversation()
        conversation.retrieval = retrieval
        async with aclosing(conversation.turn(question)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    timing = event.timing
        assert timing.first_token_ms is not None, "an emergency, or no answer"
        first.append(timing.first_token_ms)
        writing = (timing.total_ms - timing.first_token_ms) / 1000
        speed.append((timing.tokens - 1) / writing)
    stop.set()
    print(
        f"retrieval {retrieval:6}  first token: median {statistics.median(first):5.0f} ms, "
        f"worst {max(first):5.0f} ms   then {statistics.median(speed):5.1f} tokens/s   "
        f"longest gap of the event loop {await gap * 1000:5.1f} ms"
    )


async def stops(agent: Agent, reading: bool) -> None:
    """Time from Stop to the end of a one-token answer asked at once, less that answer alone."""
    llm = agent.engine.base
    short = [ChatMessage(role=MessageRole.USER, content="Hi.")]
    late = []
    for attempt in range(8):
        await one_token(llm, short)
        start = time.perf_counter()
        await one_token(llm, short)
        alone = time.perf_counter() - start
        text = f"{attempt} " + "My head hurts since Monday and I sleep badly. " * 340
        stream = await llm.astream_chat(
            [ChatMessage(role=MessageRole.USER, content=text if reading else f"Hi {attempt}.")],
            max_tokens=500,
        )
        waiting = asyncio.ensure_future(anext(stream))
        if reading:
            await asyncio.sleep(0.1 + attempt * 0.15)
            assert not waiting.done(), "the prompt was read before Stop"
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        else:
            await waiting
        start = time.perf_counter()
        await stream.aclose()
        await one_token(llm, short)
        late.append(max(0.0, time.perf_counter() - start - alone))
    when = "reading" if reading else "writing"
    print(
        f"Stop while {when}: the engine is free after {statistics.median(late) * 1000:4.0f} ms, "
        f"worst {max(late) * 1000:4.0f} ms"
    )


async def one_token(llm: object, messages: list[ChatMessage]) -> None:
    async for _ in await llm.astream_chat(messages, max_tokens=1):  # type: ignore[attr-defined]
        pass


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", default="llama_cpp", choices=["llama_cpp", "huggingface"])
    name = parser.parse_args().engine
    agent = loading.load(settings.load(engine=name))
    warm = agent.conversation()
    async with aclosing(warm.turn("Hello.")) as events:
        async for event in events:
            if isinstance(event, Delta):
                break
    print(f"{name}, {agent.engine.model}, {len(QUESTIONS)} questions")
    for retrieval in ("always", "never"):
        await answers(agent, retrieval)
    for reading in (True, False):
        await stops(agent, reading)


if __name__ == "__main__":
    asyncio.run(main())
