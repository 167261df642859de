"""llama.cpp's server inside this process: its size, its start, and its restart when it has died.

Owns the native server (xllamacpp, a free loopback port, a key drawn at random) and how one talks
to it. Knows nothing of prompts or answers.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import joblib
import psutil
from openai import AsyncOpenAI

from agent.errors import AgentError
from agent.llms import gpu
from agent.llms import window as context
from agent.llms.llama_cpp.gguf_file import header
from agent.llms.llama_cpp.slots import Slots
from agent.llms.sizes import gib
from agent.settings import Settings

# A batch of the prompt cannot be interrupted: smaller ones hear Stop sooner, larger ones read
# faster (`python -m benchmarks.turn` shows both).
BATCH = 64
BATCH_ON_GPU = 512  # which a GPU reads in a few hundredths of a second
HOST_CACHE_MIB = 1024
AUTO_LAYERS = -1  # llama.cpp measures and leaves 1 GiB of the GPU free; a build for CPUs has none
# Seconds of silence. Where others keep the cores busy, one batch has taken two minutes.
PATIENCE = 600.0
SMALL = 2**30  # bytes of a model that a CPU answers with as fast as people read
SPARE = 512 * 2**20  # bytes of memory that are left to everything else

log = logging.getLogger("medraft")


@dataclass(frozen=True)
class Running:
    """A native server, which runs for as long as this object lives, and the way to it."""

    native: Any
    http: httpx.AsyncClient
    client: AsyncOpenAI
    slots: Slots


class Server:
    """A server of one model that is there whenever one asks: `running` may change at any time."""

    def __init__(self, model: Path, adapter: Path | None, settings: Settings) -> None:
        """Raises AgentError if a file cannot be loaded or there is no memory for a single chat."""
        self.name = model.stem
        self.window, self.slots = fit(model, settings)
        self._model, self._adapter = model, adapter
        self._threads = threads(settings)
        self._gpu_layers = AUTO_LAYERS if settings.gpu_layers == "auto" else settings.gpu_layers
        self._batch = BATCH_ON_GPU if _on_gpu(settings) else BATCH
        if model.stat().st_size > SMALL and gpu.card() and not gpu.free_to_llama_cpp():
            log.warning(
                "This machine has a GPU, and the llama.cpp that is installed is built for CPUs: "
                "docs/engines.md says how to get the one for CUDA."
            )
        self._one_restart_at_a_time = threading.Lock()
        self.running = self._start()

    async def mend(self, lost: Running) -> None:
        """Start the server anew if `lost`, which broke a connection, is dead and still in place."""
        await asyncio.to_thread(self._mend, lost)

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON answer of one of the server's own endpoints. Raises AgentError."""
        try:
            response = await self._post(path, body)
        except httpx.TransportError:
            raise AgentError(
                "The llama.cpp server inside this process does not answer: start medraft again."
            ) from None
        if response.is_error:
            raise AgentError(
                f"llama.cpp refused a prompt ({response.text}): begin a new chat, and if that is "
                "refused as well name another MEDRAFT_MODEL."
            )
        return response.json()

    async def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        running = self.running
        try:
            return await running.http.post(path, json=body)
        except httpx.TransportError:
            await self.mend(running)
            return await self.running.http.post(path, json=body)

    def _mend(self, lost: Running) -> None:
        with self._one_restart_at_a_time:
            if self.running is lost and not _answers(lost):
                self.running = self._start()
                log.warning("The llama.cpp server inside this process died: it was started again.")

    def _start(self) -> Running:
        import xllamacpp

        key = secrets.token_urlsafe(32)
        params = xllamacpp.CommonParams()
        params.model.path = str(self._model)
        if self._adapter is not None:
            params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(self._adapter), 1.0)]
        params.hostnames = ["127.0.0.1"]
        params.port = 0
        params.api_keys = [key]
        params.ui = False
        params.endpoint_metrics = True  # how much of its prompts it had to read
        params.n_ctx = self.window * self.slots
        params.n_parallel = self.slots
        params.n_batch = params.n_ubatch = self._batch
        # The server restores what it kept here without asking which adapter computed it.
        params.cache_ram_mib = HOST_CACHE_MIB if self._adapter is None else 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self._threads
        params.n_gpu_layers = self._gpu_layers
        params.verbosity = 0  # its log holds prompts
        try:
            native = xllamacpp.Server(params)
        except RuntimeError:
            adapted = f" with the adapter {self._adapter}" if self._adapter else ""
            raise AgentError(
                f"llama.cpp cannot load {self._model}{adapted}: a file is damaged, or not a "
                "model of its kind."
            ) from None
        # No connection is kept: a pooled one would be bound to the event loop that opened it,
        # and on loopback a new one costs a fraction of a millisecond.
        http = httpx.AsyncClient(
            base_url=native.listening_address,
            headers={"Authorization": f"Bearer {key}"},
            limits=httpx.Limits(max_keepalive_connections=0),
            timeout=PATIENCE,
            trust_env=False,
        )
        client = AsyncOpenAI(
            base_url=f"{native.listening_address}/v1",
            api_key=key,
            http_client=http,
            max_retries=0,
            timeout=PATIENCE,
        )
        return Running(native, http, client, Slots(self.slots))


def threads(settings: Settings) -> int:
    """MEDRAFT_THREADS, or a thread for each physical core that this process may use."""
    return settings.threads or joblib.cpu_count(only_physical_cores=True)


def fit(model: Path, settings: Settings) -> tuple[int, int]:
    """Context window and number of slots, no more than the model was trained for and than memory
    holds. Says so where it is less than was set. Raises AgentError if not one chat fits."""
    about = header(model)
    window = context.of(settings, model.stem, about.context)
    chat = about.bytes_per_token * window
    if not chat:
        return window, settings.slots
    free = _memory(settings) - model.stat().st_size - SPARE
    slots = min(settings.slots, free // chat)
    if slots < 1:
        raise AgentError(
            f"There is no memory for a chat with {model.stem}: its file takes "
            f"{gib(model.stat().st_size)}, {window} tokens of context {gib(chat)}, and "
            f"{gib(_memory(settings))} are free. Lower MEDRAFT_CONTEXT_WINDOW "
            "or choose a smaller MEDRAFT_MODEL."
        )
    if slots < settings.slots:
        log.warning(
            "MEDRAFT_SLOTS is %d, and there is memory for %d with %d tokens of context each: "
            "it gets these.",
            settings.slots,
            slots,
            window,
        )
    return window, slots


def _memory(settings: Settings) -> int:
    """Bytes that are free to weights and chats: of the machine and, if it is used, of its GPUs."""
    return int(psutil.virtual_memory().available) + _on_gpu(settings)


def _on_gpu(settings: Settings) -> int:
    """Bytes that are free on the GPUs that llama.cpp is to use; 0 if it is to use none."""
    return 0 if settings.gpu_layers == 0 else gpu.free_to_llama_cpp()


def _answers(running: Running) -> bool:
    try:
        with httpx.Client(trust_env=False, timeout=5) as http:
            return http.get(f"{running.native.listening_address}/health").is_success
    except httpx.TransportError:
        return False
