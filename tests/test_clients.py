"""Others' clients against `medraft serve` on the embedded model: two turns with sources, a Stop."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from agent import settings
from agent.chat.loading import Agent

from browsing import Server, free_port, refused
from outside import AI_SDK, CURL, NODE, needs_ai_sdk, needs_curl
from serving import Heard, loaded, serving

FIRST, SECOND = "What helps against migraine?", "And for my daughter, who is ten?"
SERVE = [sys.executable, "-c", "from agent.cli import main; main()", "serve"]
# An answer that a client stops must be longer than the client takes; others need not be.
LONG, SHORT = {"MEDRAFT_MAX_TOKENS": "240", "MEDRAFT_SOURCES": "1"}, 40
WHOLE = [{"role": "user", "content": "Tell me everything about the flu, please."}]


@pytest.fixture(scope="module")
def endpoint(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server of the endpoint alone, which is ready."""
    folder = tmp_path_factory.mktemp("endpoint")
    port, log = free_port(), folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*SERVE, "--port", str(port)],
            cwd=folder,
            env=environment | LONG,
            stdout=output,
            stderr=output,
        )
    server = Server(f"http://127.0.0.1:{port}", log, process)
    try:
        until(lambda: ready(server))
        yield server
    finally:
        process.terminate()
        process.wait(120)


def until(condition: Callable[[], object]) -> None:
    """Return when it holds; the test's own timeout is the only one."""
    for _ in itertools.count():
        if condition():
            return
        time.sleep(0.05)


def ready(server: Server) -> bool:
    assert server.process.poll() is None, server.log.read_text(encoding="utf-8")
    try:
        return httpx.get(f"{server.url}/ready", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def figure(server: Server, name: str) -> float:
    """The sum of a figure over its labels."""
    text = httpx.get(f"{server.url}/metrics", trust_env=False, timeout=60).text
    return sum(float(value) for value in re.findall(rf"^{name}.* (\S+)$", text, re.MULTILINE))


STOPPED = r'medraft_turns_total\{[^}]*outcome="stopped"'


def stops(server: Server, stop: Callable[[], None]) -> None:
    """Assert that `stop`, which begins an answer and leaves it, ends the turn."""
    before = figure(server, STOPPED)
    stop()
    until(lambda: figure(server, STOPPED) == before + 1)
    assert figure(server, "medraft_turns_running") == 0


def check_sources(server: Server, content: str) -> None:
    """Assert that it has a list of sources whose links open."""
    answer, _, listed = content.partition("\n\nSources:\n")
    assert answer.strip() and listed
    for link in re.findall(r"http\S+", listed):
        assert httpx.get(link, trust_env=False, timeout=60).json()["doctor"]


def test_openais_own_client(endpoint: Server) -> None:
    client = openai.OpenAI(base_url=f"{endpoint.url}/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()][:2] == ["base", "RAG"]
    messages: list[Any] = [{"role": "user", "content": FIRST}]
    whole = client.chat.completions.create(model="RAG", messages=messages, max_tokens=SHORT)
    answer = whole.choices[0].message
    check_sources(endpoint, answer.content or "")
    for mark in answer.annotations or []:
        about = mark.url_citation
        assert (answer.content or "")[about.start_index : about.end_index].startswith("[")
    assert whole.usage is not None and whole.usage.completion_tokens > 0
    assert whole.model_extra is not None and whole.model_extra["medraft"]["behaviour"] == "RAG"
    messages += [answer, {"role": "user", "content": SECOND}]
    chunks = list(
        client.chat.completions.create(
            model="RAG",
            messages=messages,
            stream=True,
            stream_options={"include_usage": True},
            max_completion_tokens=SHORT,
        )
    )
    content = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    check_sources(endpoint, content)
    usage = chunks[-1].usage
    # It read the first turn, too.
    assert usage is not None and usage.prompt_tokens > whole.usage.prompt_tokens

    def stop() -> None:
        told: Any = WHOLE
        with client.chat.completions.create(model="base", messages=told, stream=True) as said:
            for chunk in said:
                if chunk.choices[0].delta.content:
                    return

    stops(endpoint, stop)
    with pytest.raises(openai.NotFoundError, match="no model"):
        client.chat.completions.create(model="gpt-4o", messages=messages)
    with pytest.raises(openai.BadRequestError, match="n asks for"):
        client.chat.completions.create(model="base", messages=messages, n=2)


@needs_curl
def test_curl(endpoint: Server, tmp_path: Path) -> None:
    address = f"{endpoint.url}/v1/chat/completions"

    def curl(body: dict[str, Any]) -> subprocess.Popen[str]:
        given = ["-d", json.dumps(body), "-H", "Content-Type: application/json"]
        return subprocess.Popen(
            [str(CURL), "-sN", address, *given], stdout=subprocess.PIPE, text=True
        )

    messages = [{"role": "user", "content": FIRST}]
    for question in (SECOND, None):
        asked = {"model": "RAG", "stream": True, "messages": messages, "max_tokens": SHORT}
        out, _ = curl(asked).communicate()
        *lines, done = [line.removeprefix("data: ") for line in out.splitlines() if line]
        assert done == "[DONE]"
        choices = [json.loads(line)["choices"][0] for line in lines if line[0] == "{"]
        content = "".join(choice["delta"].get("content", "") for choice in choices)
        check_sources(endpoint, content)
        messages += [{"role": "assistant", "content": content}]
        messages += [{"role": "user", "content": question or FIRST}]

    def stop() -> None:
        running = curl({"model": "base", "stream": True, "messages": WHOLE})
        assert running.stdout is not None
        assert running.stdout.readline().startswith("data: ")
        running.terminate()
        running.communicate()

    stops(endpoint, stop)


def test_llama_indexs_openai_like(endpoint: Server) -> None:
    from llama_index.core.base.llms.types import ChatMessage
    from llama_index.llms.openai_like import OpenAILike

    http = httpx.Client(trust_env=False, timeout=600)

    def like(model: str, **more: Any) -> OpenAILike:
        return OpenAILike(
            model=model,
            api_base=f"{endpoint.url}/v1",
            api_key="none",
            is_chat_model=True,
            max_retries=0,
            http_client=http,
            **more,
        )

    llm = like("RAG", max_tokens=SHORT)
    said = [ChatMessage(role="user", content=FIRST)]
    answer = llm.chat(said).message
    check_sources(endpoint, answer.content or "")
    said += [answer, ChatMessage(role="user", content=SECOND)]
    pieces = list(llm.stream_chat(said))
    check_sources(endpoint, pieces[-1].message.content or "")

    def stop() -> None:
        stream = like("base").stream_chat([ChatMessage(**WHOLE[0])])
        next(piece for piece in stream if piece.delta)
        http.close()  # closing the generator alone leaves the connection to the garbage collector

    stops(endpoint, stop)


def test_langchains_chat_openai(endpoint: Server) -> None:
    from langchain_core.messages import BaseMessage, HumanMessage
    from langchain_openai import ChatOpenAI

    given: dict[str, Any] = {"base_url": f"{endpoint.url}/v1", "api_key": "none"}
    given |= {"max_retries": 0, "timeout": 600}
    chat: Any = ChatOpenAI(model="RAG", max_completion_tokens=SHORT, **given)
    said: list[BaseMessage] = [HumanMessage(FIRST)]
    answer = chat.invoke(said)
    check_sources(endpoint, answer.content)
    assert answer.usage_metadata["output_tokens"] > 0
    said += [answer, HumanMessage(SECOND)]
    check_sources(endpoint, "".join(piece.content for piece in chat.stream(said)))

    def stop() -> None:
        long: Any = ChatOpenAI(model="base", **given)
        stream = long.stream([HumanMessage(WHOLE[0]["content"])])
        next(piece for piece in stream if piece.content)
        stream.close()

    stops(endpoint, stop)


@needs_ai_sdk
def test_vercels_ai_sdk(endpoint: Server) -> None:
    script = AI_SDK.parent.parent / "conversation.mjs"
    arguments = [f"{endpoint.url}/v1", "none", FIRST, SECOND, WHOLE[0]["content"]]
    told: dict[str, Any] = {}

    def converse() -> None:
        run = subprocess.run(
            [str(NODE), str(script), *arguments], capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        told.update(json.loads(run.stdout))

    stops(endpoint, converse)
    for answer in told["answers"]:
        check_sources(endpoint, answer["text"])
        assert answer["pieces"] > 5
    first, second = (answer["usage"]["inputTokens"] for answer in told["answers"])
    assert second > first > 0 and told["heard"]


def sampled(
    client: openai.OpenAI, model: str, said: list[Any], failed: Callable[[Exception], None]
) -> Any:
    """As HealthBench's sampler asks (`ChatCompletionSampler` of simple-evals), and asks again."""
    while True:
        try:
            return client.chat.completions.create(
                model=model,
                messages=[{"role": "system", "content": "You are a helpful assistant."}, *said],
                temperature=0.5,
                max_tokens=1024,
            )
        except openai.BadRequestError:
            raise
        except Exception as error:
            failed(error)


def test_healthbenchs_sampler_and_what_judges_of_sources_read(endpoint: Server) -> None:
    def failed(error: Exception) -> None:
        raise error

    client = openai.OpenAI(base_url=f"{endpoint.url}/v1", api_key="none", max_retries=0)
    said = [{"role": "user", "content": FIRST}, {"role": "assistant", "content": "Rest."}]
    whole = sampled(client, "RAFT", [*said, {"role": "user", "content": FIRST}], failed)
    check_sources(endpoint, whole.choices[0].message.content)
    assert whole.usage.completion_tokens > 0
    # As docs/evaluation.md has it for ragas and DeepEval.
    assert whole.choices[0].message.content.startswith(whole.medraft["answer"].split()[0])
    assert all(source["doctor"] for source in whole.medraft["sources"])
    picture = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]
    with pytest.raises(openai.BadRequestError, match="text only"):
        sampled(client, "RAFT", [{"role": "user", "content": picture}], failed)


async def test_healthbenchs_sampler_asks_again_while_the_models_load(tmp_path: Path) -> None:
    gate, failures = threading.Event(), list[Exception]()

    def load() -> Agent:
        gate.wait()
        return loaded(Heard())

    def failed(error: Exception) -> None:
        failures.append(error)
        gate.set()
        time.sleep(0.05)

    async with serving(load, settings.load(home=tmp_path, llm="base")) as served:
        client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
        whole = await asyncio.to_thread(sampled, client, "base", WHOLE, failed)
    assert whole.choices[0].message.content == "Rest in the dark."
    assert {type(error) for error in failures} == {openai.InternalServerError}


def test_eight_clients_at_once_one_of_which_hangs_up(endpoint: Server) -> None:
    client = openai.OpenAI(base_url=f"{endpoint.url}/v1", api_key="none", max_retries=0)

    def ask(number: int) -> str:
        leaves, said = number == 3, ""
        content = WHOLE[0]["content"] if leaves else f"I am {20 + number}. My knee hurts."
        with client.chat.completions.create(
            model="base",
            messages=[{"role": "user", "content": content}],
            stream=True,
            max_tokens=240 if leaves else SHORT,
        ) as stream:
            for chunk in stream:
                said += chunk.choices[0].delta.content or ""
                if leaves and said:
                    break
        return said

    def together() -> None:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(8)))
        assert all(answers)

    stops(endpoint, together)


def test_a_seed_repeats_an_answer(endpoint: Server) -> None:
    client = openai.OpenAI(base_url=f"{endpoint.url}/v1", api_key="none", max_retries=0)

    def ask(seed: int) -> str:
        whole = client.chat.completions.create(
            model="base",
            messages=[{"role": "user", "content": "Hello there"}],
            temperature=1.5,
            seed=seed,
            max_tokens=12,
        )
        return whole.choices[0].message.content or ""

    ask(1)  # so that the prompt is in the engine's cache each time
    assert ask(1) == ask(1)
    assert len({ask(seed) for seed in range(2, 6)}) > 1


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--host", "0.0.0.0"], "medraft keys add"),
        (["--port", "{taken}"], "cannot be served at 127.0.0.1"),
    ],
)
def test_a_server_that_cannot_be_is_refused_in_one_sentence(
    endpoint: Server,
    environment: dict[str, str],
    tmp_path: Path,
    arguments: list[str],
    said: str,
) -> None:
    taken = endpoint.url.rpartition(":")[2]
    given = [argument.format(taken=taken) for argument in arguments]
    refused([*SERVE, *given], tmp_path, environment, said)
