"""One chunk of a server's stream, whatever its dialect, as ours.

Owns what a line of server-sent events may hold: OpenAI's chunks as vLLM, Ollama, LM Studio, SGLang,
LocalAI, llama.cpp and gateways write them, with what they leave out, leave empty or add. Knows
neither connections nor what a failure is called.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx

DONE = "[DONE]"
_LINE_END = re.compile(rb"\r\n|\n|\r")
_FIELDS = (b"data:", b"error:")  # llama.cpp's older servers fail in a field of their own
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
# How an answer may end that its model had not ended.
_CUT = ("length", "max_tokens", "abort", "error")

Finish = Literal["ended", "cut", "filtered"]


class StreamedError(Exception):
    """What a server says has failed, in its own words, which may quote the patient's."""


@dataclass(frozen=True)
class Chunk:
    """What one says: text of the answer, whether there were thoughts, how the answer ended, and
    the tokens of the answer so far (0: it does not say)."""

    text: str = ""
    thought: bool = False
    finish: Finish | None = None
    tokens: int = 0


async def lines(response: httpx.Response) -> AsyncGenerator[str, None]:
    """The data of each line of a stream, the empty ones left out.

    Each is taken for an event of its own: no server breaks its JSON, some forget the empty line
    between two events, and some the one behind the last.
    """
    rest = b""
    async for part in response.aiter_bytes():
        *whole, rest = _LINE_END.split(rest + part)
        for line in whole:
            if data := _data(line):
                yield data
    if data := _data(rest):
        yield data


def _data(line: bytes) -> str:
    for field in _FIELDS:
        if line.startswith(field):
            return line.removeprefix(field).decode("utf-8", "replace").strip()
    return ""


def read(data: str) -> Chunk:
    """The chunk of a line. Raises StreamedError if it tells of a failure, ValueError or TypeError
    if it is no chunk."""
    said: Any = json.loads(data)
    if said is None:
        return Chunk()
    if not isinstance(said, dict):
        raise TypeError("a chunk is an object")
    if error := said.get("error"):
        raise StreamedError(json.dumps(error))
    if said.get("object") == "error" or ("message" in said and "code" in said):
        raise StreamedError(str(said.get("message")))
    choices = said.get("choices") or []
    choice = choices[0] if choices else None
    if not isinstance(choice, dict):
        return Chunk(tokens=_tokens(said.get("usage")))
    delta = choice.get("delta") or choice.get("message") or {}
    text, thought = _flat(delta.get("content"))
    return Chunk(
        text,
        thought or any(delta.get(field) for field in _THOUGHTS),
        _finish(choice.get("finish_reason")),
        _tokens(said.get("usage")),
    )


def _flat(content: object) -> tuple[str, bool]:
    """The text of a content, which may be a list of parts, and whether one of them is a thought."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else "", False
    texts, thought = [], False
    for part in content:
        if isinstance(part, Mapping) and part.get("type", "text") in ("text", "output_text"):
            texts.append(_flat(part.get("text"))[0])
        elif isinstance(part, Mapping):
            thought = thought or part.get("type") in _THOUGHTS
        else:
            texts.append(_flat(part)[0])
    return "".join(texts), thought


def _finish(told: object) -> Finish | None:
    if not isinstance(told, str) or not told:
        return None
    if told == "content_filter":
        return "filtered"
    return "cut" if told in _CUT else "ended"


def _tokens(usage: object) -> int:
    told = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
    return told if isinstance(told, int) and told > 0 else 0
