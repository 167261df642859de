"""Who is answered when: one thread runs the models, one answer at a time, in the order asked.

Owns the thread, the line before it, each answer's place in that line, and the way of what is said
from the thread to the event loop. Knows nothing of models.

Why a queue and no batches: `generate` runs a batch to its end, so that nobody could join an answer
under way, a short answer would wait for the longest, and one temperature would hold for all; and
the continuous batching of transformers knows no adapter per row, and finds a prefix whichever LLM
read it (docs/engines.md). Where many chat at once, vLLM does all of it: MEDRAFT_ENGINE=openai_like.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    MessageRole,
)

from agent.errors import AgentError
from agent.llms.huggingface.failures import answer_error

Result = TypeVar("Result")


class Say(Protocol):
    """Hands on a piece of an answer, with what belongs into the response's `raw`."""

    def __call__(self, delta: str, **raw: Any) -> None: ...


class Queue:
    """The thread that is alone in running models, and the line before it."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, "generate")
        self._line: list[Say] = []  # the first one is being answered
        self._lock = threading.Lock()

    async def stream(self, answer: Callable[[Say, threading.Event], None]) -> ChatResponseAsyncGen:
        """What `answer` says, in its turn; `raw["waiting"]` tells how many are before it.

        Closing the generator sets the event that `answer` was handed. Raises AgentError.
        """
        loop = asyncio.get_running_loop()
        said: asyncio.Queue[tuple[str, dict[str, Any]] | AgentError | None] = asyncio.Queue()
        stop = threading.Event()

        def put(item: tuple[str, dict[str, Any]] | AgentError | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
                loop.call_soon_threadsafe(said.put_nowait, item)

        def say(delta: str, **raw: Any) -> None:
            put((delta, raw))

        def run() -> None:
            try:
                answer(say, stop)
            except Exception as error:
                put(answer_error(error))
            finally:
                self._leave(say)
                put(None)

        job = self._enter(run, say)
        text = ""
        try:
            while (item := await said.get()) is not None:
                if isinstance(item, AgentError):
                    raise item
                delta, raw = item
                text += delta
                message = ChatMessage(role=MessageRole.ASSISTANT, content=text)
                yield ChatResponse(message=message, delta=delta, raw=raw)
        finally:
            stop.set()
            if job.cancel():  # it had not begun
                self._leave(say)

    async def run(self, work: Callable[[], Result]) -> Result:
        """What `work` returns, in its turn. Raises AgentError."""
        try:
            return await asyncio.wrap_future(self._worker.submit(work))
        except Exception as error:
            raise answer_error(error) from None

    def _enter(self, run: Callable[[], None], say: Say) -> Future[None]:
        with self._lock:
            self._line.append(say)
            self._tell(len(self._line) - 1)
            return self._worker.submit(run)

    def _leave(self, say: Say) -> None:
        with self._lock:
            place = self._line.index(say)
            del self._line[place]
            self._tell(place)

    def _tell(self, start: int) -> None:
        for before, say in enumerate(self._line[start:], start=start):
            if before:
                say("", tokens=0, waiting=before)
