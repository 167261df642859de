"""Which slot of llama.cpp's server a request gets, and when: first come, first served.

Owns the choice that the server would make without regard to the adapter. It would hand keys and
values that one LLM has computed to the other (github.com/ggml-org/llama.cpp/issues/26207), and
drop the cache of a conversation at every switch. And since one batch holds one adapter, it would
let the LLM that began go on for as long as new requests for it come in. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
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
class _Request:
    scale: float | None
    messages: Sequence[ChatMessage]
    slot: Future[Slot] = field(default_factory=Future)


class Slots:
    """The slots of one server, shared by the LLMs that it serves, in any thread and event loop."""

    def __init__(self, count: int) -> None:
        self._slots = [Slot(number) for number in range(count)]
        self._queue: deque[_Request] = deque()
        self._requests = 0
        self._lock = threading.Lock()

    async def take(self, scale: float | None, messages: Sequence[ChatMessage]) -> Slot:
        """Wait for a slot; whoever gets one must give it back."""
        request = _Request(scale, messages)
        with self._lock:
            self._queue.append(request)
            self._serve()
        try:
            return await asyncio.wrap_future(request.slot)
        except asyncio.CancelledError:
            if not request.slot.cancel():
                self.give_back(request.slot.result())
            with self._lock:
                self._queue = deque(other for other in self._queue if other is not request)
                self._serve()
            raise

    def give_back(self, slot: Slot) -> None:
        with self._lock:
            slot.busy = False
            self._serve()

    def _serve(self) -> None:
        while self._queue and (slot := self._best(self._queue[0])):
            request = self._queue.popleft()
            if request.slot.set_running_or_notify_cancel():
                self._requests += 1
                slot.busy, slot.taken = True, self._requests
                slot.scale, slot.messages = request.scale, request.messages
                request.slot.set_result(slot)

    def _best(self, request: _Request) -> Slot | None:
        """The free slot that holds most of it, or else the one that was idle the longest."""
        if any(slot.busy and slot.scale != request.scale for slot in self._slots):
            return None
        free = [slot for slot in self._slots if not slot.busy]
        return max(
            free,
            key=lambda slot: (slot.shared(request.scale, request.messages), -slot.taken),
            default=None,
        )
