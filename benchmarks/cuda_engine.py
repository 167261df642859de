"""The random Llama of benchmarks/cuda.py, loaded and asked.

Owns where its files lie, the one engine that is loaded at a time, how a question is timed, and
whether what was found is as it must be. Knows no stage.
"""

from __future__ import annotations

import os
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import torch
from llama_index.core.base.llms.types import ChatMessage, MessageRole

from agent import settings
from agent.llms import engines
from agent.llms.huggingface import generation
from agent.llms.huggingface.failures import free_memory
from agent.llms.interface import ChatLLM, Engine
from benchmarks import random_llama
from benchmarks.speed import Speed

TINY = os.environ.get("SHAPE") == "tiny"
BIG = "tiny" if TINY else "8b"
WORK = Path(os.environ.get("WORK", "/tmp/medraft-cuda"))
TOKENS = 16 if TINY else 128
REPEATS = 1 if TINY else 3
LONG = 300 if TINY else 1500  # words of a long message
Found = dict[str, Any]


def on_cuda() -> bool:
    return torch.cuda.is_available()


def made(shape: str) -> Path:
    base = random_llama.checkpoint(WORK / shape, random_llama.SHAPES[shape])
    random_llama.adapter(WORK / f"{shape}-lora", base, random_llama.SHAPES[shape])
    return base


def engine(shape: str, **wanted: Any) -> Engine:
    chosen = {"adapter": str(WORK / f"{shape}-lora"), "quantize": "none", "home": WORK} | wanted
    return engines.load(settings.load(engine="huggingface", model=str(made(shape)), **chosen))


def said(words: int, about: str = "") -> list[ChatMessage]:
    text = " ".join(f"word{n % 97} {about}" for n in range(words))
    return [
        ChatMessage(role=MessageRole.SYSTEM, content="You are a doctor."),
        ChatMessage(role=MessageRole.USER, content=text),
    ]


async def ask(
    llm: ChatLLM, messages: list[ChatMessage], tokens: int, **sampling: Any
) -> tuple[Speed, str]:
    begun, first, count, text = time.perf_counter(), 0.0, 0, ""
    async with aclosing(await llm.astream_chat(messages, max_tokens=tokens, **sampling)) as stream:
        async for response in stream:
            if response.delta and response.raw:
                first = first or time.perf_counter()
                text, count = text + response.delta, response.raw["tokens"]
    end = time.perf_counter()
    first = first or end
    return Speed((first - begun) * 1000, (count - 1) / max(1e-6, end - first)), text


def told(speed: Speed) -> Found:
    return {"first_ms": round(speed.first, 1), "tokens_s": round(speed.rate, 1)}


def model_of(loaded: Engine) -> generation.Model:
    llm: Any = loaded.base
    model: generation.Model = llm._shared
    return model


def failed(found: Any) -> bool:
    """Whether something in what stages found failed, or is not as it must be: False."""
    if not isinstance(found, dict):
        return found is False
    return "failed" in found or any(failed(each) for each in found.values())


def gib() -> float:
    return round(torch.cuda.memory_allocated() / 2**30, 2) if on_cuda() else 0


_loaded: list[Engine] = []


def big() -> Engine:
    if not _loaded:
        _loaded.append(engine(BIG))
    return _loaded[0]


def let_go() -> None:
    _loaded.clear()
    free_memory()
