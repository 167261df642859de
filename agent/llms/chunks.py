"""One chunk of a server's stream, whatever its dialect, as ours.

Owns what a line of server-sent events may hold: OpenAI's chunks as vLLM, Ollama, LM Studio, SGLang,
LocalAI, llama.cpp and gateways write them, with what they leave out, leave empty or add. Knows
neither connections nor what a failure is called.
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Literal

import httpx

DONE = "[done]"  # with which a stream ends, in any case
_LINE_END = re.compile(rb"\r\n|\n|\r")
_FIELDS = (b"data:", b"error:")  # llama.cpp's older servers fail in a field of their own
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
# How an answer may end that its model had not ended, in the words of several makers.
_CUT = re.compile(r".*(length|max_tokens|abort|error|cancel|limit|insufficient).*")
_FILTERED = ("content_filter", "safety", "recitation", "blocklist", "prohibited_content", "spii")
_GOES_ON = ("", "null", "none")

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
    between two events, and some the one behind the last. A body that is JSON, from a server that
    does not stream, is one chunk.
    """
    rest = body = b""
    async for part in response.aiter_bytes():
        *whole, rest = _LINE_END.split(rest + part)
        for line in whole:
            if data := _data(line):
                yield data
            elif body or line.startswith(b"{"):
                body += line
    if data := _data(rest):
        yield data
    elif body or rest.startswith(b"{"):
        yield (body + rest).decode("utf-8", "replace")
        yield DONE


def _data(line: bytes) -> str:
    line = line.removeprefix(BOM_UTF8)
    for field in _FIELDS:
        if line.startswith(field):
            return line.removeprefix(field).decode("utf-8", "replace").strip()
    return ""


def read(data: str) -> Chunk:
    """The chunk of a line; of what holds no text, whatever it is, an empty one.

    Raises StreamedError if it tells of a failure, ValueError if it is no JSON: passed over, what it
    said would be missing in the answer.
    """
    said: Any = json.loads(data)
    if not isinstance(said, dict):
        return Chunk()
    if error := said.get("error"):
        raise StreamedError(json.dumps(error))
    if said.get("object") == "error" or ("message" in said and "code" in said):
        raise StreamedError(str(said.get("message")))
    tokens = _tokens(said.get("usage"))
    choice = _first(said.get("choices"))
    if choice is None:
        return Chunk(tokens=tokens)
    delta = choice.get("delta") or choice.get("message") or choice.get("text")
    finish = _finish(choice.get("finish_reason"))
    if not isinstance(delta, dict):
        return Chunk(_flat(delta)[0], False, finish, tokens)
    text, thought = _flat(delta.get("content") or delta.get("refusal"))
    thought = thought or any(delta.get(field) for field in _THOUGHTS)
    return Chunk(text, thought, finish, tokens)


def _first(choices: object) -> dict[str, Any] | None:
    """The choice that is the answer, of several at once."""
    each = choices if isinstance(choices, list) else [choices]
    return next((c for c in each if isinstance(c, dict) and not c.get("index")), None)


def _flat(content: object) -> tuple[str, bool]:
    """The text of a content, which may be a part or a list of them, and whether one of them is a
    thought."""
    if isinstance(content, list):
        parts = [_flat(part) for part in content]
        return "".join(text for text, _ in parts), any(thought for _, thought in parts)
    if not isinstance(content, dict):
        return content if isinstance(content, str) else "", False
    kind = content.get("type") or "text"
    if kind not in ("text", "output_text", "refusal"):
        return "", kind in _THOUGHTS
    texts = (content.get(field) for field in ("text", "content", "value", "refusal"))
    return _flat(next((text for text in texts if text), None))


def _finish(told: object) -> Finish | None:
    reason = told.lower().replace("-", "_") if isinstance(told, str) else ""
    if reason in _GOES_ON:
        return None
    if reason in _FILTERED:
        return "filtered"
    return "cut" if _CUT.fullmatch(reason) else "ended"


def _tokens(usage: object) -> int:
    told = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return told if isinstance(told, int) and told > 0 else 0
