"""What our way to an engine costs, against the engine called directly, in one run.

    python -m benchmarks.engines                          # both local engines, side by side
    python -m benchmarks.engines --engine llama_cpp

For each engine: time to the first token and tokens/s of a turn without retrieval against the bare
engine with the same prompt; the same of the endpoint (agent/serving) against a turn, with its
client's clock, and how long after a client hangs up the turn has ended; eight clients of the
endpoint at once, one of which hangs up, with the same for its turn; the first token of turn 10
against that of turn 2; eight conversations at once against the same eight in a row, with the event
loop's longest gap. Read the ratios: the absolute times are of one machine. Run it on an idle one.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

import httpx
import uvicorn

from agent import settings
from agent.chat import loading, metrics
from agent.chat.engine import PatientChatEngine
from agent.chat.events import Finished, Timing
from agent.chat.loading import Agent
from agent.chat.models import Models
from agent.chat.prompting import prompt
from agent.llms.choice import decide
from agent.llms.interface import Sampling, as_dicts
from agent.serving.app import app
from benchmarks.speed import Speed, bare_huggingface, median, speed
from benchmarks.turn import longest_gap

COMPLAINTS = (
    "I have a headache since yesterday evening, what helps?",
    "My stomach burns after every meal, what should I do?",
    "I have been coughing at night for three weeks now.",
    "My left knee hurts when I climb the stairs at work.",
    "I sleep badly and wake at four every single morning.",
    "My skin itches on both arms and the creams do nothing.",
    "My throat is sore and it hurts to swallow since Monday.",
    "I feel dizzy when I get up quickly from my chair.",
)
Bare = Callable[[Sequence[Any], Sampling], Awaitable["Speed"]]
TOKENS = 64
REPEATS = 8


async def turn(engine: PatientChatEngine, message: str) -> Timing:
    async with aclosing(engine.turn(message)) as events:
        async for event in events:
            if isinstance(event, Finished):
                return event.timing
    raise AssertionError("the turn did not finish")


async def bare_llama_cpp(agent: Agent, messages: Sequence[Any], sampling: Sampling) -> Speed:
    """The server's own protocol, with nothing of ours between."""
    import openai

    llm: Any = agent.engine.base
    client: Any = openai.AsyncOpenAI(base_url=llm.api_base, api_key=llm.api_key, max_retries=0)
    body = {
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repetition_penalty,
        "repeat_last_n": 64,
        "lora": [{"id": 0, "scale": 0.0}],
    }
    start, first, tokens = time.perf_counter(), 0.0, 0
    async with await client.chat.completions.create(
        model=llm.model,
        messages=as_dicts(messages),
        stream=True,
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        extra_body=body,
    ) as stream:
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                tokens += 1
                first = first or (time.perf_counter() - start) * 1000
    return speed(first, (time.perf_counter() - start) * 1000, tokens)


def bare(agent: Agent) -> Bare:
    """The engine without anything of ours: without adapter, hooks and prefix cache."""
    if agent.engine.name == "llama_cpp":
        return partial(bare_llama_cpp, agent)
    from agent.llms.huggingface.checkpoint import Checkpoint

    weights = decide(agent.settings).base
    name, source = weights.checkpoint(agent.settings.home / "models")
    plain = Checkpoint(name, source, weights.setting, quantize="none")
    return partial(bare_huggingface, plain.load(), plain.tokenizer)


async def against_bare(agent: Agent) -> None:
    unadorned = bare(agent)
    chosen = agent.settings
    sampling = Sampling(chosen.max_tokens, chosen.temperature, chosen.top_p)
    ours, theirs = [], []
    for n, complaint in enumerate(COMPLAINTS[:REPEATS]):
        # Another age each time: the same number of tokens, and no prompt that was seen before.
        timing = await turn(agent.conversation(), f"I am {20 + n}. {complaint}")
        assert timing.first_token_ms is not None
        ours.append(speed(timing.first_token_ms, timing.total_ms, timing.tokens))
        message = f"I am {50 + n}. {complaint}"
        made = await prompt(agent.engine.base, "base", [], message, [], chosen.max_tokens)
        theirs.append(await unadorned(made.messages, sampling))
    us, them = median(ours), median(theirs)
    print(
        f"  first token {us.first:.0f} ms, bare {them.first:.0f} ms "
        f"({us.first / them.first:.2f} x, {us.first - them.first:+.0f} ms); "
        f"{us.rate:.1f} tokens/s, bare {them.rate:.1f} ({us.rate / them.rate:.2f} x)"
    )


class Given(Models):
    """Models that are loaded."""

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent.settings)
        self._loading = asyncio.create_task(asyncio.sleep(0, agent))


@asynccontextmanager
async def endpoint(agent: Agent) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the endpoint, which is served in this event loop."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        served = app(agent.settings, Given(agent), "127.0.0.1", history=False)
        server = uvicorn.Server(uvicorn.Config(served, log_level="warning", lifespan="off"))
        running = asyncio.create_task(server.serve([listening]))
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=address, timeout=600, trust_env=False) as client:
            yield client
        server.should_exit = True
        await running


async def client_of(http: httpx.AsyncClient, message: str, hang_up: bool = False) -> Speed:
    """What a client of the endpoint sees of an answer; `hang_up`: at its first word."""
    body = {"model": "base", "messages": [{"role": "user", "content": message}], "stream": True}
    start, first, tokens = time.perf_counter(), 0.0, 0
    async with http.stream("POST", "/v1/chat/completions", json=body) as response:
        async for line in response.aiter_lines():
            if '"delta": {"content"' in line:
                tokens += 1
                first = first or (time.perf_counter() - start) * 1000
                if hang_up:
                    break
    return speed(first, (time.perf_counter() - start) * 1000, tokens)


def figure(name: str, **labels: str) -> float:
    """A figure of this process's turns."""
    return metrics.registry.get_sample_value(f"medraft_turns_{name}", labels) or 0


async def hang_up(http: httpx.AsyncClient, message: str) -> tuple[Speed, float]:
    """What a client that hangs up at the first word saw, and the milliseconds from then until its
    turn has ended; no other one hangs up meanwhile."""
    gone = partial(figure, "total", behaviour="base", outcome="stopped")
    before = gone()
    seen = await client_of(http, message, hang_up=True)
    start = time.perf_counter()
    while gone() == before and figure("running"):  # noqa: ASYNC110
        await asyncio.sleep(0.002)
    return seen, (time.perf_counter() - start) * 1000


async def through_the_endpoint(agent: Agent) -> None:
    ours, below, ends = [], [], []
    async with endpoint(agent) as http:
        await client_of(http, "Hello.")
        for n, complaint in enumerate(COMPLAINTS[:REPEATS]):
            ours.append(await client_of(http, f"I am {30 + n}. {complaint}"))
            timing = await turn(agent.conversation(), f"I am {40 + n}. {complaint}")
            assert timing.first_token_ms is not None
            below.append(speed(timing.first_token_ms, timing.total_ms, timing.tokens))
            ends.append((await hang_up(http, f"I am {70 + n}. {complaint}"))[1])
        us, them = median(ours), median(below)
        print(
            f"  the endpoint: first token {us.first:.0f} ms, a turn {them.first:.0f} ms "
            f"({us.first / them.first:.2f} x, {us.first - them.first:+.0f} ms); {us.rate:.1f} "
            f"tokens/s, a turn {them.rate:.1f} ({us.rate / them.rate:.2f} x); after a client has "
            f"hung up the turn ends in {statistics.median(ends):.0f} ms, at most {max(ends):.0f}"
        )
        leaving = asyncio.create_task(hang_up(http, f"I am 80. {COMPLAINTS[0]}"))
        others = (client_of(http, f"I am {80 + n}. {COMPLAINTS[n]}") for n in range(1, 8))
        first = [each.first for each in await asyncio.gather(*others)]
        seen, end = await leaving
        first.append(seen.first)
        print(
            f"  eight clients of it, one of which hangs up: first token median "
            f"{statistics.median(first):.0f} ms, slowest {max(first):.0f} ms; that one's turn ends "
            f"in {end:.0f} ms"
        )


async def ten_turns(agent: Agent) -> None:
    engine = agent.conversation()
    first = []
    for n in range(10):
        timing = await turn(engine, f"I am {20 + n}. {COMPLAINTS[n % 2]}")
        assert timing.first_token_ms is not None
        first.append(timing.first_token_ms)
    print(
        f"  first token of turn 2 {first[1]:.0f} ms, of turn 10 {first[9]:.0f} ms "
        f"({first[9] / first[1]:.2f} x)"
    )


async def eight(agent: Agent) -> None:
    async def one(n: int) -> Timing:
        return await turn(agent.conversation(), f"I am {60 + n}. {COMPLAINTS[n]}")

    start = time.perf_counter()
    row = [await one(n) for n in range(8)]
    in_a_row = sum(t.tokens for t in row) / (time.perf_counter() - start)
    stop = asyncio.Event()
    gap = asyncio.create_task(longest_gap(stop))
    start = time.perf_counter()
    together = await asyncio.gather(*(one(n) for n in range(8)))
    at_once = sum(t.tokens for t in together) / (time.perf_counter() - start)
    stop.set()
    first = [t.first_token_ms or 0 for t in together]
    print(
        f"  eight conversations: {at_once:.1f} tokens/s at once, {in_a_row:.1f} in a row "
        f"({at_once / in_a_row:.2f} x); first token median {statistics.median(first):.0f} ms, "
        f"slowest {max(first):.0f} ms ({max(first) / statistics.median(first):.2f} x); "
        f"longest gap of the event loop {await gap * 1000:.1f} ms"
    )


async def measure(name: str) -> None:
    agent = loading.load(
        settings.load(engine=name, model="embedded", retrieval="never", max_tokens=TOKENS)
    )
    await turn(agent.conversation(), "Hello.")
    print(f"{name}, {agent.engine.model}, answers of {TOKENS} tokens at most")
    await against_bare(agent)
    await through_the_endpoint(agent)
    await ten_turns(agent)
    await eight(agent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=("llama_cpp", "huggingface"))
    chosen = parser.parse_args().engine
    for name in (chosen,) if chosen else ("llama_cpp", "huggingface"):
        asyncio.run(measure(name))


if __name__ == "__main__":
    main()
