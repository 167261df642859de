"""How a loaded transformers model answers: the run of `generate`, and what is read before it.

Owns the run with its stop, its adapter and its prefix cache, and the second try when memory is
full. Knows nothing of checkpoints or LLM choices, nor of who is answered when (queue.py).

The adapter is switched on and off in PEFT's layers between two answers. That changes the model for
every thread, and is right because one thread alone runs it: PEFT's way for many, `adapter_names`
per row, picks the rows by lists, each of which a GPU has to wait for.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from typing import Any

import torch
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, TextStreamer

from agent.errors import AgentError
from agent.llms.huggingface.failures import NotANumber, free_memory
from agent.llms.huggingface.prefix_cache import MOST_KEPT, PrefixCache
from agent.llms.huggingface.queue import Say
from agent.llms.interface import END_TOKENS, PENALTY_WINDOW, Loss, Sampling, as_dicts, prompt_ids
from index_store.device import is_full

# Tokens of a prompt that are read at once. A GPU computes what it was handed to its end, and so
# hears Stop between two of these; more of them are read hardly faster, and take more memory.
CHUNK = 512


class Model:
    """Loaded weights. All but the queue's thread leave `answer` alone."""

    def __init__(self, model: Any, tokenizer: Any, adapted: Sequence[Any] = ()) -> None:
        """`adapted` are the layers of `model` that hold an adapter, PEFT's."""
        self.model = model
        self.tokenizer = tokenizer
        self.prefixes = PrefixCache(model.config, _room_for_prefixes(model))
        self._stop = threading.Event()
        self._adapted = adapted
        self._with_adapter: bool | None = None  # unknown
        self._ends = _end_ids(model, tokenizer)
        # The checkpoint's own, a penalty or a greatest length, would hold beside what is asked for.
        model.generation_config = GenerationConfig()
        # On a CPU, which computes what it is handed at once, Stop is heard in every layer.
        for layer in _layers(model):
            layer.register_forward_pre_hook(self._raise_if_stopped)

    def answer(
        self,
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        with_adapter: bool,
        say: Say,
        stop: threading.Event,
    ) -> None:
        """Say an answer, until `stop` is set.

        Raises what `is_full` knows if there is no room for it, with nothing else kept.
        """
        stream = _AnswerStream(self.tokenizer, prompt_ids(self.tokenizer, messages), say)
        self._stop = stop
        self._switch(with_adapter)
        try:
            with contextlib.suppress(_Stopped):
                try:
                    return self._generate(stream, sampling)
                except RuntimeError as error:
                    if not is_full(error):
                        raise
                # Out of there: its traceback holds the tensors.
                self.prefixes.clear()
                free_memory()
                self._generate(stream, sampling)
        except NotANumber:
            self.prefixes.clear()  # whoever went on from there would have none, either
            raise
        finally:
            self._stop = threading.Event()

    def loss(self, messages: Sequence[ChatMessage], answer: str, with_adapter: bool) -> Loss:
        """Of reading `answer`, end of turn included, after `messages`."""
        self._switch(with_adapter)
        said = ChatMessage(role=MessageRole.ASSISTANT, content=answer)
        whole = self.tokenizer.apply_chat_template(as_dicts([*messages, said]), return_dict=True)
        ids = torch.tensor([whole["input_ids"]], device=self.model.device)
        tokens = ids.shape[1] - len(prompt_ids(self.tokenizer, messages))
        with torch.no_grad():
            logits = self.model(input_ids=ids, logits_to_keep=tokens + 1).logits[0, :-1]
        nats = torch.nn.functional.cross_entropy(logits.float(), ids[0, -tokens:], reduction="sum")
        return Loss(float(nats), tokens)

    def _generate(self, stream: _AnswerStream, sampling: Sampling) -> None:
        """Go on from what has been said already."""
        cache = self.prefixes.take(self._with_adapter, stream.ids)
        ids = torch.tensor([stream.ids], device=self.model.device)
        drawn: dict[str, Any] = {}
        if sampling.temperature > 0:
            drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p}
            drawn |= {"top_k": sampling.top_k, "min_p": sampling.min_p}
            if sampling.seed is not None:
                torch.manual_seed(sampling.seed)
        penalty = _RepetitionPenalty(sampling.repetition_penalty)
        stream.next_tokens_are_prompt = True
        try:
            self._read(ids, cache)
            self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                past_key_values=cache,
                streamer=stream,
                max_new_tokens=sampling.max_tokens - stream.tokens,
                do_sample=sampling.temperature > 0,
                eos_token_id=self._ends,
                logits_processor=LogitsProcessorList([penalty]),
                **drawn,
            )
        finally:
            self.prefixes.keep(self._with_adapter, stream.ids, cache)

    def _read(self, ids: torch.Tensor, cache: Any) -> None:
        """Read all but the last CHUNK tokens that `cache` does not hold, and look for Stop."""
        with torch.no_grad():
            for start in range(cache.get_seq_length(), ids.shape[1] - CHUNK, CHUNK):
                part = ids[:, start : start + CHUNK]
                self.model(input_ids=part, past_key_values=cache, use_cache=True, logits_to_keep=1)
                if ids.is_cuda:
                    torch.cuda.synchronize()
                self._raise_if_stopped()

    def _raise_if_stopped(self, *_: Any) -> None:
        if self._stop.is_set():
            raise _Stopped

    def _switch(self, with_adapter: bool) -> None:
        """The next forward passes are the fine-tuned LLM's or the base LLM's."""
        if with_adapter != self._with_adapter:
            self._with_adapter = None  # should this fail on the way
            for layer in self._adapted:
                layer.enable_adapters(with_adapter)
            self._with_adapter = with_adapter


def _end_ids(model: Any, tokenizer: Any) -> list[int]:
    """What ends an answer: for its tokenizer, for its checkpoint (Gemma's end of turn stands there
    alone), and for ours."""
    vocabulary = tokenizer.get_vocab()
    ids = {vocabulary[token] for token in END_TOKENS if token in vocabulary}
    own = model.generation_config.eos_token_id
    ids |= {own} if isinstance(own, int) else {*(own or ())}
    return sorted(ids | {tokenizer.eos_token_id} - {None})


def _layers(model: Any) -> Any:
    try:
        return model.get_decoder().layers
    except AttributeError:
        raise AgentError(
            f"{type(model).__name__} has no layers as Llama, Qwen, Mistral, Gemma and Phi have "
            "them, and the huggingface engine needs those: name another MEDRAFT_MODEL."
        ) from None


def _room_for_prefixes(model: Any) -> int:
    """Bytes for the prefix cache: MOST_KEPT, or a quarter of what the GPU has free beside it."""
    if model.device.type != "cuda":
        return MOST_KEPT
    return min(MOST_KEPT, torch.cuda.mem_get_info(model.device)[0] // 4)


class _Stopped(Exception):
    """Raised inside a forward pass whose answer nobody waits for any more."""


class _RepetitionPenalty(LogitsProcessor):
    """The penalty of Keskar et al. 2019 over the last tokens only, as llama.cpp has it."""

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        # Drawing from NaN, infinity, or nothing but minus infinity would trip an assertion of the
        # GPU's, which ends CUDA for this process. The greatest score is one of these then.
        if not scores.amax(-1).isfinite().all():
            raise NotANumber
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
