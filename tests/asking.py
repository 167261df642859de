"""What tests ask a real LLM, and how."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

from llama_index.core.base.llms.types import ChatMessage, MessageRole

from agent.llms.interface import ChatLLM

QUESTION = "What is a fever?"


def said(*texts: str) -> list[ChatMessage]:
    """A system prompt, then user and assistant in turn."""
    roles = [MessageRole.SYSTEM] + [MessageRole.USER, MessageRole.ASSISTANT] * len(texts)
    return [ChatMessage(role=role, content=text) for role, text in zip(roles, texts, strict=False)]


PROMPT = said("You are a doctor.", QUESTION)


async def answer(llm: ChatLLM, messages: Sequence[ChatMessage] = PROMPT, tokens: int = 12) -> str:
    """The greedy answer, plainly."""
    text = ""
    stream = await llm.astream_chat(messages, max_tokens=tokens, repetition_penalty=1.0)
    async with aclosing(stream):
        async for response in stream:
            text = response.message.content or ""
    return text
