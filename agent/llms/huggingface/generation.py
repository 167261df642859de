"""How a loaded transformers model answers: one thread, one answer at a time, in the order asked.

Owns the queue and each answer's place in it, the run of `generate` with its stop, its adapter and
its prefix cache, and what is said when that fails. Knows nothing of checkpoints or LLM choices.

Why a queue and no batches: `generate` runs a batch to its end, so that nobody could join an answer
under way, a short answer would wait for the longest, and one temperature would hold for all; and
the continuous batching of transformers knows no adapter per row. Where many chat at once, vLLM
does both: MEDRAFT_ENGINE=openai_like.

The adapter is handed to PEFT's layers per call, as PEFT's own `adapter_names` does, and for its
reasons: `disable_adapter` and `set_adapter` change the model for every thread. But PEFT leaves its
hooks behind, one a layer, whenever an answer is broken off; these are put in once.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import torch
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    MessageRole,
)
from transformers import LogitsProcessor, LogitsProcessorList, TextStreamer

from agent.errors import AgentError
from agent.llms.huggingface.prefix_cache import PrefixCache
from agent.llms.interface import END_TOKENS, PENALTY_WINDOW, Loss, Sampling, as_dicts
from index_store.errors import first_sentence

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


class Model:
    """Loaded weights. All but the queue's thread leave `answer` alone."""

    def __init__(self, model: Any, tokenizer: Any, has_adapter: bool = False) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.prefixes = PrefixCache(model.config)
        self._stop = threading.Event()
        self._adapter: str | None = None
        # Checked in every layer, so that even a long prompt stops within a layer's time.
        for layer in model.get_decoder().layers:
            layer.register_forward_pre_hook(self._raise_if_stopped)
        if has_adapter:
            from peft.tuners.lora import LoraLayer

            layers: list[Any] = [each for each in model.modules() if isinstance(each, LoraLayer)]
            for layer in layers:
                layer.register_forward_pre_hook(self._name_adapter, with_kwargs=True)

    def answer(
        self,
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        adapter: str | None,
        say: Say,
        stop: threading.Event,
    ) -> None:
        """Say an answer, until `stop` is set. `adapter` is "__base__" for none of those loaded.

        Raises torch.cuda.OutOfMemoryError if there is no room for it, with nothing else kept.
        """
        stream = _AnswerStream(self.tokenizer, prompt_ids(self.tokenizer, messages), say)
        self._stop, self._adapter = stop, adapter
        try:
            with contextlib.suppress(_Stopped):
                try:
                    return self._generate(stream, sampling)
                except torch.cuda.OutOfMemoryError:
                    pass  # and out of here: its traceback holds the tensors
                self.prefixes.clear()
                free_memory()
                self._generate(stream, sampling)
        finally:
            self._stop, self._adapter = threading.Event(), None

    def loss(self, messages: Sequence[ChatMessage], answer: str, adapter: str | None) -> Loss:
        """Of reading `answer`, end of turn included, after `messages`."""
        said = ChatMessage(role=MessageRole.ASSISTANT, content=answer)
        whole = self.tokenizer.apply_chat_template(as_dicts([*messages, said]), return_dict=True)
        ids = torch.tensor([whole["input_ids"]], device=self.model.device)
        tokens = ids.shape[1] - len(prompt_ids(self.tokenizer, messages))
        self._adapter = adapter
        try:
            with torch.no_grad():
                logits = self.model(input_ids=ids, logits_to_keep=tokens + 1).logits[0, :-1]
        finally:
            self._adapter = None
        nats = torch.nn.functional.cross_entropy(logits.float(), ids[0, -tokens:], reduction="sum")
        return Loss(float(nats), tokens)

    def _generate(self, stream: _AnswerStream, sampling: Sampling) -> None:
        """Go on from what has been said already."""
        cache = self.prefixes.take(self._adapter, stream.ids)
        ids = torch.tensor([stream.ids], device=self.model.device)
        drawn: dict[str, Any] = {}
        if sampling.temperature > 0:
            drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p}
            drawn |= {"top_k": sampling.top_k, "min_p": sampling.min_p}
        penalty = _RepetitionPenalty(sampling.repetition_penalty)
        stream.next_tokens_are_prompt = True
        try:
            self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                past_key_values=cache,
                streamer=stream,
                max_new_tokens=sampling.max_tokens - stream.tokens,
                do_sample=sampling.temperature > 0,
                eos_token_id=self._end_ids(),
                logits_processor=LogitsProcessorList([penalty]),
                **drawn,
            )
        finally:
            self.prefixes.keep(self._adapter, stream.ids, cache)

    def _end_ids(self) -> list[int]:
        vocabulary = self.tokenizer.get_vocab()
        ids = {vocabulary[token] for token in END_TOKENS if token in vocabulary}
        return sorted(ids | {self.tokenizer.eos_token_id})

    def _raise_if_stopped(self, module: Any, arguments: Any) -> None:
        if self._stop.is_set():
            raise _Stopped

    def _name_adapter(self, module: Any, arguments: Any, named: dict[str, Any]) -> Any:
        if self._adapter is None:
            return None
        return arguments, named | {"adapter_names": [self._adapter]}


def prompt_ids(tokenizer: Any, messages: Sequence[ChatMessage]) -> list[int]:
    """The prompt's tokens; tokenized with the template, so there is one BOS."""
    begun = messages[-1].role == MessageRole.ASSISTANT
    encoded = tokenizer.apply_chat_template(
        as_dicts(messages),
        add_generation_prompt=not begun,
        continue_final_message=begun,
        return_dict=True,
    )
    return list(encoded["input_ids"])


def answer_error(error: Exception) -> AgentError:
    """One sentence for the patient."""
    if isinstance(error, AgentError):
        return error
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return AgentError(
            "The GPU's memory is full: close other programs on it, set MEDRAFT_QUANTIZE=4bit, "
            "lower MEDRAFT_CONTEXT_WINDOW, or choose a smaller MEDRAFT_MODEL."
        )
    return AgentError(
        f"transformers failed while answering: {type(error).__name__}: {first_sentence(error)}"
    )


def free_memory() -> None:
    """Give back to the GPU what nothing refers to any more."""
    gc.collect()
    torch.cuda.empty_cache()


class _Stopped(Exception):
    """Raised inside a forward pass whose answer nobody waits for any more."""


class _RepetitionPenalty(LogitsProcessor):
    """The penalty of Keskar et al. 2019 over the last tokens only, as llama.cpp has it."""

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        recent = input_ids[:, -PENALTY_WINDOW:]
        score = scores.gather(1, recent)
        score = torch.where(score < 0, score * self.penalty, score / self.penalty)
        return scores.scatter(1, recent, score)


class _AnswerStream(TextStreamer):
    """Hands decoded text on as it grows; `ids` are the prompt's tokens and those said so far."""

    def __init__(self, tokenizer: Any, prompt: Sequence[int], say: Say) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.ids = list(prompt)
        self.tokens = 0
        self.say = say

    def put(self, value: Any) -> None:
        if not self.next_tokens_are_prompt:
            self.ids += value.tolist()
            self.tokens += 1
        super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self.say(text, tokens=self.tokens)
