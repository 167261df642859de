"""The messages of a request, read.

Owns what of a message is heeded, and that what cannot be read in one is refused: nothing is dropped
in silence. Does not know what else a request asks for.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from agent.serving.citing import without_citations
from agent.serving.errors import Refused

Role = Literal["user", "assistant"]
# What else clients send with a message that is no part of what was said in it.
BESIDE = {
    "annotations",
    "cache_control",
    "id",
    "index",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
}


class Part(BaseModel):
    """A part of a message; what is not named here is in `model_extra`."""

    model_config = ConfigDict(strict=True, extra="allow")
    type: str
    text: str | None = None
    refusal: str | None = None


class Message(BaseModel):
    """A message; what is not named here is in `model_extra`. A `name` changes nothing."""

    model_config = ConfigDict(strict=True, extra="allow")
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    refusal: str | None = None
    name: str | None = None
    tool_calls: list[Any] | None = None
    function_call: Any = None


def conversation(messages: Sequence[Message]) -> tuple[str, list[tuple[Role, str]]]:
    """The system messages as one, and what was said as (role, text), no role twice in a row, the
    last one the user's. Raises Refused."""
    instructions: list[str] = []
    said: list[tuple[Role, str]] = []
    for number, message in enumerate(messages):
        if message.role in ("tool", "function") or message.tool_calls or message.function_call:
            raise Refused(
                f"messages[{number}] is about a tool, and medraft calls none: leave it out.",
                code="unsupported_parameter",
                param=f"messages[{number}]",
            )
        text = _text(message, number)
        if message.role in ("system", "developer"):
            instructions.append(text)
            continue
        role: Role = "assistant" if message.role == "assistant" else "user"
        if role == "assistant":
            text = without_citations(text)
        if _is_empty(text):
            continue  # an answer that was stopped before its first word
        if said and said[-1][0] == role:  # which many chat templates refuse
            text = f"{said.pop()[1]}\n\n{text}"
        said.append((role, text))
    last = messages[-1]
    if last.role != "user" or _is_empty(_text(last, len(messages) - 1)):
        raise Refused(
            "The last message must be the user's, and say something.",
            code="invalid_value",
            param="messages",
        )
    return "\n\n".join(instructions), said


def _text(message: Message, number: int) -> str:
    """What is said in a message. Raises Refused for what is not text, wherever it stands."""
    place = f"messages[{number}]"
    _refuse_what_is_not_read(message.model_extra or {}, place)
    if not isinstance(message.content, list):
        return message.content or message.refusal or ""
    for index, part in enumerate(message.content):
        if part.type not in ("text", "refusal"):
            raise Refused(
                f"medraft reads text only: {place}.content[{index}] is another kind "
                f"of part ({part.type[:40]!r}).",
                code="unsupported_content",
                param=f"{place}.content[{index}]",
            )
        _refuse_what_is_not_read(part.model_extra or {}, f"{place}.content[{index}]")
    return "\n".join(part.text or part.refusal or "" for part in message.content)


def _refuse_what_is_not_read(extra: dict[str, Any], place: str) -> None:
    for name, value in extra.items():
        if not (value is None or value == [] or name in BESIDE):
            raise Refused(
                f"medraft reads text only, and {place} has {name[:40]!r} beside it: leave it out.",
                code="unsupported_content",
                param=f"{place}.{name[:40]}",
            )


def _is_empty(text: str) -> bool:
    """Whether nothing can be seen of it: spaces, zero-width characters, NULs, a byte order mark."""
    return all(c.isspace() or unicodedata.category(c) in ("Cc", "Cf") for c in text)
