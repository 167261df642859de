"""Which slot of llama.cpp's server a request gets, and when: first come, first served.

Owns the choice that the server would make without regard to the adapter. It would hand keys and
values that one LLM has computed to the other (github.com/ggml-org/llama.cpp/issues/26207), and
drop the cache of a conversation at every switch. And since one batch holds one adapter, it would
let the LLM that began go on for as long as new requests for it come in. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field

from llama_index.core.base.llms.types import ChatMessage, MessageRole


@dataclass(eq=False)
class Slot:
    """A slot, and whose keys and values lie in it."""

    id: int
    busy: bool = False
    taken: int = 0  # the number of the request that took it last
    scale: float | None = None
    messages: Sequence[ChatMessage] = ()

    def shared(self, scale: float | None, messages: Sequence[ChatMessage]) -> int:
        """Messages of a request that need not be read again; the system prompt counts nothing,
        since every conversation has it."""
        count = 0
        if self.scale == scale:
            for held, asked in zip(self.messages, messages, strict=False):
                if (held.role, held.content) != (asked.role, asked.content):
                    break
                count += asked.role != MessageRole.SYSTEM
        return count


@dataclass(eq=False)
class Request:
    """A request in the line. Iterate: how many are before it, until it has its `slot`."""

    scale: float | None
    messages: Sequence[ChatMessage]
    slot: Slot | None = None
    _told: asyncio.Queue[int] = field(default_factory=asyncio.Queue)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    async def __aiter__(self) -> AsyncIterator[int]:
        while before := await self._told.get():
            yield before

    def tell(self, before: int) -> None:
        """In any thread; nobody is before a request that has its slot."""
        with contextlib.suppress(RuntimeError):  # its loop is closed: nobody listens
            self._loop.call_soon_threadsafe(self._told.put_nowait, before)


class Slots:
    """The slots of one server, shared by the LLMs that it serves, in any thread and event loop."""

    def __init__(self, count: int) -> None:
        self._slots = [Slot(number) for number in range(count)]
        self._line: list[Request] = []
        self._requests = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def take(self, scale: float | None, messages: Sequence[ChatMessage]) -> Iterator[Request]:
        """Stand in the line until the block ends; a slot that was got is free again then."""
        request = Request(scale, messages)
        with self._lock:
            self._line.append(request)
            if not self._serve():
                request.tell(len(self._line))
        try:
            yield request
        finally:
            with self._lock:
                if request.slot is not None:
                    request.slot.busy = False
                    self._serve()
                else:
                    place = self._line.index(request)
                    del self._line[place]
                    if not self._serve():
                        self._tell(place)

    def _serve(self) -> bool:
        """Whether anybody got a slot; all behind them are told, then."""
        served = 0
        while self._line and (slot := self._best(self._line[0])):
            request = self._line.pop(0)
            self._requests += 1
            slot.busy, slot.taken = True, self._requests
            slot.scale, slot.messages = request.scale, request.messages
            request.slot = slot
            request.tell(0)
            served += 1
        if served:
            self._tell(0)
        return served > 0

    def _tell(self, start: int) -> None:
        for before, request in enumerate(self._line[start:], start=start + 1):
            request.tell(before)

    def _best(self, request: Request) -> Slot | None:
        """The free slot that holds most of it, or else the one that was idle the longest."""
        if any(slot.busy and slot.scale != request.scale for slot in self._slots):
            return None
        free = [slot for slot in self._slots if not slot.busy]
        return max(
            free,
            key=lambda slot: (slot.shared(request.scale, request.messages), -slot.taken),
            default=None,
        )
