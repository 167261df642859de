"""The transformers engine: Llama 3 8B on CUDA, the embedded model on a CPU, in this process.

Owns the loaded model, the one thread that runs it, and the two LLMs that share it: PEFT's
`adapter_names` chooses the adapter per call, because `disable_adapter` and `set_adapter` would
change the model under another conversation. Knows nothing of retrieval or conversations.

Only `astream_chat` and `count_tokens` are ours; what else HuggingFaceLLM offers is as it was.
Never run on a GPU so far: CUDA differs from what the tests run in dtype and device_map alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.llms.huggingface import HuggingFaceLLM
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LogitsProcessor,
    LogitsProcessorList,
    TextStreamer,
)

from agent.errors import AgentError
from agent.llms import END_TOKENS, PENALTY_WINDOW, Engine, Sampling, as_dicts, lora, weights
from agent.settings import Settings

ADAPTER = "doctor"


class _Stopped(Exception):
    """Raised inside a forward pass whose answer nobody waits for any more."""


@dataclass
class _Model:
    """Weights, and the thread that is alone in running them."""

    model: Any
    tokenizer: Any
    worker: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "generate"))
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        # Checked in every layer, so that even a long prompt stops within a layer's time.
        for layer in self.model.get_decoder().layers:
            layer.register_forward_pre_hook(self._raise_if_stopped)

    def _raise_if_stopped(self, module: Any, arguments: Any) -> None:
        if self.stop.is_set():
            raise _Stopped

    def end_ids(self) -> list[int]:
        vocabulary = self.tokenizer.get_vocab()
        ids = {vocabulary[token] for token in END_TOKENS if token in vocabulary}
        return sorted(ids | {self.tokenizer.eos_token_id})

    def prompt_ids(self, messages: Sequence[ChatMessage]) -> Any:
        """The prompt, shape (1, tokens); tokenized with the template, so there is one BOS."""
        begun = messages[-1].role == MessageRole.ASSISTANT
        encoded = self.tokenizer.apply_chat_template(
            as_dicts(messages),
            add_generation_prompt=not begun,
            continue_final_message=begun,
            return_tensors="pt",
            return_dict=True,
        )
        return encoded["input_ids"]


class _RepetitionPenalty(LogitsProcessor):
    """The penalty of Keskar et al. 2019 over the last tokens only, as llama.cpp has it."""

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        recent = input_ids[:, -PENALTY_WINDOW:]
        score = scores.gather(1, recent)
        score = torch.where(score < 0, score * self.penalty, score / self.penalty)
        return scores.scatter(1, recent, score)


class _Words(TextStreamer):
    """Hands decoded text on as it grows, with the number of tokens so far."""

    def __init__(self, tokenizer: Any, say: Callable[[tuple[str, int]], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.say = say
        self.tokens = -1  # the prompt is put first

    def put(self, value: Any) -> None:
        self.tokens += 1
        super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self.say((text, self.tokens))


class HuggingFaceChatLLM(HuggingFaceLLM):
    """One LLM of the engine: the weights with an adapter (None: there is none loaded)."""

    _shared: _Model = PrivateAttr()
    _adapter: str | None = PrivateAttr()

    def __init__(self, shared: _Model, name: str, window: int, adapter: str | None) -> None:
        super().__init__(
            model=shared.model,
            tokenizer=shared.tokenizer,
            model_name=name,
            tokenizer_name=name,
            context_window=window,
            is_chat_model=True,
        )
        self._shared = shared
        self._adapter = adapter

    async def astream_chat(
        self, messages: Sequence[ChatMessage], **sampling: Any
    ) -> ChatResponseAsyncGen:
        return self._stream(messages, Sampling(**sampling))

    async def _stream(
        self, messages: Sequence[ChatMessage], sampling: Sampling
    ) -> ChatResponseAsyncGen:
        loop = asyncio.get_running_loop()
        said: asyncio.Queue[tuple[str, int] | Exception | None] = asyncio.Queue()
        stop = threading.Event()

        def say(item: tuple[str, int] | Exception | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
                loop.call_soon_threadsafe(said.put_nowait, item)

        job = self._shared.worker.submit(self._generate, messages, sampling, stop, say)
        text = ""
        try:
            while (item := await said.get()) is not None:
                if isinstance(item, Exception):
                    raise _explain(item) from None
                delta, tokens = item
                text += delta
                message = ChatMessage(role=MessageRole.ASSISTANT, content=text)
                yield ChatResponse(message=message, delta=delta, raw={"tokens": tokens})
        finally:
            stop.set()
            job.cancel()

    def _generate(
        self,
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        stop: threading.Event,
        say: Callable[[tuple[str, int] | Exception | None], None],
    ) -> None:
        """Runs in the worker thread; everything it has to tell, errors too, goes through `say`."""
        shared = self._shared
        shared.stop = stop
        adapter = {} if self._adapter is None else {"adapter_names": [self._adapter]}
        penalty = sampling.repetition_penalty
        drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p}
        drawn |= {"top_k": sampling.top_k, "min_p": sampling.min_p}
        try:
            ids = shared.prompt_ids(messages).to(shared.model.device)
            shared.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                streamer=_Words(shared.tokenizer, say),
                max_new_tokens=sampling.max_tokens,
                do_sample=sampling.temperature > 0,
                eos_token_id=shared.end_ids(),
                logits_processor=LogitsProcessorList([_RepetitionPenalty(penalty)]),
                **(drawn if sampling.temperature > 0 else {}),
                **adapter,
            )
        except _Stopped:
            pass
        except Exception as error:
            say(error)
        finally:
            say(None)

    async def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        ids = await asyncio.to_thread(self._shared.prompt_ids, messages)
        return int(ids.shape[1])


class FullCheckpointLLM:
    """A fine-tuned LLM with weights of its own, loaded when it is first asked."""

    def __init__(self, name: str, source: str, window: int) -> None:
        self._name, self._source, self._window = name, source, window
        self._llm: HuggingFaceChatLLM | None = None
        self._loading = threading.Lock()

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(context_window=self._window, is_chat_model=True, model_name=self._name)

    async def astream_chat(
        self, messages: Sequence[ChatMessage], **sampling: Any
    ) -> ChatResponseAsyncGen:
        """As `HuggingFaceChatLLM`'s. Raises AgentError if the checkpoint does not load."""
        llm = await asyncio.to_thread(self._loaded)
        return await llm.astream_chat(messages, **sampling)

    async def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        llm = await asyncio.to_thread(self._loaded)
        return await llm.count_tokens(messages)

    def _loaded(self) -> HuggingFaceChatLLM:
        with self._loading:
            if self._llm is None:
                shared = _Model(*_from_checkpoint(self._name, self._source))
                self._llm = HuggingFaceChatLLM(shared, self._name, self._window, None)
            return self._llm


def load(settings: Settings) -> Engine:
    """Load checkpoint and adapter. Raises AgentError if either is missing or does not fit."""
    name, source = weights.checkpoint(settings)
    adapter = weights.adapter(settings, name)
    if adapter is not None:
        if adapter.is_file():
            raise AgentError(
                f"The huggingface engine reads a PEFT directory, and MEDRAFT_ADAPTER is {adapter}: "
                "give the folder with adapter_config.json."
            )
        lora.read(adapter).check(name, lora.linear_modules(source))
    full = weights.fine_tuned_checkpoint(settings)

    model, tokenizer = _from_checkpoint(name, source)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter), adapter_name=ADAPTER).eval()
    shared = _Model(model, tokenizer)

    def llm(adapter_name: str | None) -> HuggingFaceChatLLM:
        return HuggingFaceChatLLM(shared, name, settings.context_window, adapter_name)

    if adapter is not None:
        return Engine("huggingface", name, base=llm("__base__"), fine_tuned=llm(ADAPTER))
    tuned = FullCheckpointLLM(*full, settings.context_window) if full else None
    return Engine("huggingface", name, base=llm(None), fine_tuned=tuned)


def _from_checkpoint(name: str, source: str) -> tuple[Any, Any]:
    """Model and tokenizer, in the precision that the machine likes best."""
    placement: dict[str, Any] = {"dtype": torch.float32}
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        placement = {"dtype": torch.bfloat16 if native else torch.float16, "device_map": "auto"}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        return AutoModelForCausalLM.from_pretrained(source, **placement).eval(), tokenizer
    except torch.cuda.OutOfMemoryError as error:
        raise _explain(error) from None
    except (OSError, ValueError) as error:
        raise AgentError(
            f"transformers cannot load {name}: {_first_sentence(error)} Correct the setting that "
            "names it, or accept the model's terms on the Hub and log in with `hf auth login`."
        ) from None


def _explain(error: Exception) -> AgentError:
    if isinstance(error, torch.cuda.OutOfMemoryError):
        torch.cuda.empty_cache()
        return AgentError(
            "The GPU's memory is full: close other programs on it, lower "
            "MEDRAFT_CONTEXT_WINDOW, or choose a smaller MEDRAFT_MODEL."
        )
    return AgentError(
        f"transformers failed while answering: {type(error).__name__}: {_first_sentence(error)}"
    )


def _first_sentence(error: Exception) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if line.endswith(".") else f"{line}."
