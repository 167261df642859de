"""The transformers engine: Llama 3 8B on CUDA, the embedded model on a CPU, in this process.

Owns the LLMs of the engine: two on one checkpoint that differ in the adapter, or two checkpoints,
and which of those are in memory. Knows nothing of retrieval or conversations; checkpoint.py loads,
generation.py answers.

Only `astream_chat`, `count_tokens` and `loss` are ours; what else HuggingFaceLLM offers is as it
was. Never run on a GPU so far: CUDA differs from what the tests run in dtype, device_map,
quantization and what is asked of the card's memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponseAsyncGen, LLMMetadata
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.llms.huggingface import HuggingFaceLLM

from agent.behaviour import LLMChoice
from agent.errors import AgentError
from agent.llms import peft_adapter, window
from agent.llms.choice import Choice
from agent.llms.huggingface import checkpoint
from agent.llms.huggingface.checkpoint import Checkpoint
from agent.llms.huggingface.failures import answer_error, free_memory
from agent.llms.huggingface.generation import Model
from agent.llms.huggingface.queue import Queue, Say
from agent.llms.interface import Engine, Loss, Sampling, prompt_ids
from agent.settings import Settings
from index_store.device import is_full


class HuggingFaceChatLLM(HuggingFaceLLM):
    """One LLM on weights that stay: with their adapter or without."""

    _shared: Model = PrivateAttr()
    _queue: Queue = PrivateAttr()
    _with_adapter: bool = PrivateAttr()

    def __init__(
        self, shared: Model, queue: Queue, name: str, window: int, with_adapter: bool
    ) -> None:
        super().__init__(
            model=shared.model,
            tokenizer=shared.tokenizer,
            model_name=name,
            tokenizer_name=name,
            context_window=window,
            is_chat_model=True,
        )
        self._shared = shared
        self._queue = queue
        self._with_adapter = with_adapter

    async def astream_chat(
        self, messages: Sequence[ChatMessage], **sampling: Any
    ) -> ChatResponseAsyncGen:
        wanted = Sampling(**sampling)
        return self._queue.stream(
            lambda say, stop: self._shared.answer(messages, wanted, self._with_adapter, say, stop)
        )

    async def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        return len(await asyncio.to_thread(prompt_ids, self._shared.tokenizer, messages))

    async def loss(self, messages: Sequence[ChatMessage], answer: str) -> Loss | None:
        return await self._queue.run(
            lambda: self._shared.loss(messages, answer, self._with_adapter)
        )


class Residents:
    """The full checkpoints that are in memory: both if they fit, else the one asked last.

    Only the queue's thread comes here, so that whichever was not asked is idle.
    """

    def __init__(self) -> None:
        self._loaded: dict[Checkpoint, Model] = {}

    def model(self, wanted: Checkpoint, say: Say) -> Model:
        """Load `wanted` unless it is there; if another one must go, `raw["notice"]` says so.

        Raises AgentError, and what `is_full` knows if it does not fit alone.
        """
        if wanted not in self._loaded and (not self._loaded or wanted.has_room()):
            try:
                self._load(wanted)
            except RuntimeError as error:
                if not is_full(error) or not self._loaded:
                    raise
        if wanted not in self._loaded:  # out of reach of the traceback, which holds tensors
            idle = next(iter(self._loaded)).name
            say(
                "",
                tokens=0,
                notice=f"The GPU has no room for two models: {idle} is unloaded, and "
                f"{wanted.name} is loaded now. This answer takes longer.",
            )
            self._loaded.clear()
            free_memory()
            self._load(wanted)
        return self._loaded[wanted]

    def _load(self, wanted: Checkpoint) -> None:
        self._loaded[wanted] = Model(wanted.load(), wanted.tokenizer)


class FullCheckpointLLM:
    """One LLM on weights of its own, loaded when it is first asked, and again if they had to go."""

    def __init__(self, wanted: Checkpoint, residents: Residents, queue: Queue, window: int) -> None:
        self._checkpoint, self._residents = wanted, residents
        self._queue, self._window = queue, window

    @property
    def metadata(self) -> LLMMetadata:
        name = self._checkpoint.name
        return LLMMetadata(context_window=self._window, is_chat_model=True, model_name=name)

    async def astream_chat(
        self, messages: Sequence[ChatMessage], **sampling: Any
    ) -> ChatResponseAsyncGen:
        """As `ChatLLM`'s. Raises AgentError if the checkpoint does not load."""
        wanted = Sampling(**sampling)
        return self._queue.stream(
            lambda say, stop: self._residents.model(self._checkpoint, say).answer(
                messages, wanted, False, say, stop
            )
        )

    async def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        """Loads the tokenizer alone."""
        return len(await asyncio.to_thread(self._prompt_ids, messages))

    async def loss(self, messages: Sequence[ChatMessage], answer: str) -> Loss | None:
        """As `ChatLLM`'s. Raises AgentError if the checkpoint does not load."""
        return await self._queue.run(
            lambda: self._residents.model(self._checkpoint, lambda delta, **raw: None).loss(
                messages, answer, False
            )
        )

    def _prompt_ids(self, messages: Sequence[ChatMessage]) -> list[int]:
        return prompt_ids(self._checkpoint.tokenizer, messages)


def load(settings: Settings, choice: Choice) -> Engine:
    """Load checkpoint and adapter. Raises AgentError if either is missing or does not fit."""
    checkpoint.check(choice.base, choice.quantize)
    weights = [choice.base] if choice.fine_tuned is None else [choice.base, choice.fine_tuned]
    named = [(*each.checkpoint(settings.home / "models"), each.setting) for each in weights]
    quantize = checkpoint.precision([source for _, source, _ in named], choice, settings)
    base, *full = [Checkpoint(*each, quantize) for each in named]
    try:
        if not full:
            return _with_adapter(settings, base, choice.adapter)
        return _two_checkpoints(settings, base, full[0], choice.first)
    except RuntimeError as error:
        if not is_full(error):
            raise
        raise answer_error(error) from None


def _with_adapter(settings: Settings, base: Checkpoint, folder: Path | None) -> Engine:
    tokenizer = base.tokenizer  # what the Hub refuses, it refuses here
    if folder is not None:
        if folder.is_file():
            raise AgentError(
                f"The huggingface engine reads a PEFT directory, and MEDRAFT_ADAPTER is {folder}: "
                "give the folder with adapter_config.json."
            )
        peft_adapter.read(folder).check(base.name, peft_adapter.linear_modules(base.source))
    model, adapted = base.load(), []
    if folder is not None:
        from peft import PeftModel
        from peft.tuners.lora import LoraLayer

        # In the weights' own precision: in 32 bits, as to train, each layer would convert twice.
        tuned = PeftModel.from_pretrained(model, str(folder), autocast_adapter_dtype=False)
        model = tuned.eval().get_base_model()
        adapted = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
        own: Any = model.dtype
        for name, parameter in model.named_parameters():
            if ".lora_" in name:  # beside quantized weights PEFT leaves it in 32 bits
                parameter.data = parameter.data.to(own)
    shared, queue = Model(model, tokenizer, adapted), Queue()
    read = window.of_checkpoint(settings, base.name, base.source)

    def llm(with_adapter: bool) -> HuggingFaceChatLLM:
        return HuggingFaceChatLLM(shared, queue, base.name, read, with_adapter)

    tuned_llm = None if folder is None else llm(with_adapter=True)
    return Engine("huggingface", base.name, base=llm(with_adapter=False), fine_tuned=tuned_llm)


def _two_checkpoints(
    settings: Settings, base: Checkpoint, tuned: Checkpoint, first: LLMChoice
) -> Engine:
    residents, queue = Residents(), Queue()
    residents.model(tuned if first == "fine-tuned" else base, say=lambda delta, **raw: None)

    def llm(wanted: Checkpoint) -> FullCheckpointLLM:
        read = window.of_checkpoint(settings, wanted.name, wanted.source)
        return FullCheckpointLLM(wanted, residents, queue, read)

    return Engine("huggingface", base.name, base=llm(base), fine_tuned=llm(tuned))
