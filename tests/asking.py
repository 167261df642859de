"""What tests ask a real LLM, and how; and how they take its server away."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import aclosing, suppress

import httpx
import psutil
from llama_index.core.base.llms.types import ChatMessage, MessageRole

from agent.llms.interface import ChatLLM
from agent.llms.llama_cpp.server import Server

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


def kill(server: Server) -> None:
    """Shut the server's port under it, and every connection to it."""
    port = httpx.URL(server.running.native.listening_address).port
    for connection in psutil.Process().net_connections("tcp"):
        # One that is closed meanwhile is no file any more, or not connected.
        with suppress(OSError):
            if connection.laddr.port == port:
                with socket.socket(fileno=os.dup(connection.fd)) as its:
                    its.shutdown(socket.SHUT_RDWR)
