"""A request for a chat completion, read.

Owns which parameters of OpenAI's are heeded, which mean nothing here and are let pass, and which
ask for what cannot be had and are refused: none is ignored in silence. Does not know what messages
say, how a request comes in, nor who answers it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from agent.behaviour import CHOICES, LLMChoice, Retrieval
from agent.serving.errors import Refused
from agent.serving.messages import Message, Role, conversation

MOST_MESSAGES = 1000
MOST_STOPS = 4  # as OpenAI's
SEEDS = 2**32 - 1  # llama.cpp has so many, and takes the next number for "any"

# What these ask for cannot be had, unless they ask for nothing: None, or one of these values.
NOT_HERE: dict[str, tuple[object, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "prediction": (),
    "presence_penalty": (0,),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
Stop = Annotated[str, StringConstraints(min_length=1)]


class StreamOptions(BaseModel):
    """What a stream says besides; `include_obfuscation` is a padding that we never send."""

    model_config = ConfigDict(strict=True, extra="forbid")
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Body(BaseModel):
    """The request's JSON; what is not named here is in `model_extra`."""

    model_config = ConfigDict(strict=True, extra="allow")
    model: str
    messages: list[Message] = Field(min_length=1, max_length=MOST_MESSAGES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    stop: Stop | list[Stop] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    # About the client itself, or about tools, of which there are none: read for their types alone.
    metadata: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    user: str | None = None


@dataclass(frozen=True)
class Asked:
    """What is asked for: None where a request leaves it to our settings.

    `instructions` are the client's system messages; `history` is what was said before the patient's
    `message`, as (role, text), no role twice in a row.
    """

    model: str
    llm: LLMChoice | None
    retrieval: Retrieval
    instructions: str
    history: list[tuple[Role, str]]
    message: str
    stream: bool
    include_usage: bool
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    stop: tuple[str, ...]
    seed: int | None


def read(body: bytes, models: Sequence[str]) -> Asked:
    """The request in a body; `models` are the names that there are. Raises Refused."""
    try:
        found = Body.model_validate_json(body)
    except ValidationError as error:
        raise _wrong(error) from None
    _refuse_what_is_not_here(found.model_extra or {})
    if found.model not in models:
        there = ", ".join(models)
        raise Refused(
            f"There is no model {found.model[:80]!r} here: choose one of {there}.",
            404,
            "model_not_found",
            "model",
        )
    instructions, history = conversation(found.messages)
    _, message = history.pop()
    llm, retrieval = _choices(found.model)
    return Asked(
        model=found.model,
        llm=llm,
        retrieval=retrieval,
        instructions=instructions,
        history=history,
        message=message,
        stream=bool(found.stream),
        include_usage=_usage_wanted(found),
        max_tokens=_max_tokens(found),
        temperature=found.temperature,
        top_p=found.top_p,
        stop=_stops(found.stop),
        seed=None if found.seed is None else found.seed % SEEDS,
    )


def _wrong(error: ValidationError) -> Refused:
    """The first thing that is wrong, without the value, which may be a patient's words."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        why = str(first.get("ctx", {}).get("error", "it does not end")).rstrip(".")
        return Refused(f"The request's body is not JSON: {why}.", code="invalid_json")
    place = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}"
        for part in first["loc"]
        # The branches of a union that pydantic has tried.
        if isinstance(part, int) or (part.isidentifier() and part != "str")
    ).lstrip(".")
    what = first["msg"][0].lower() + first["msg"][1:]
    return Refused(f"{place or 'The body'}: {what}.", code="invalid_value", param=place or None)


def _refuse_what_is_not_here(extra: dict[str, Any]) -> None:
    for name, value in extra.items():
        if value is None or any(_same(value, nothing) for nothing in NOT_HERE.get(name, ())):
            continue
        if name in NOT_HERE:
            raise Refused(
                f"medraft cannot do what {name} asks for: leave it out.",
                code="unsupported_parameter",
                param=name,
            )
        raise Refused(
            f"There is no parameter {name[:80]!r}: leave it out.",
            code="unknown_parameter",
            param=name[:80],
        )


def _same(value: object, nothing: object) -> bool:
    """Equal as in JSON, where true is not 1."""
    return value == nothing and isinstance(value, bool) == isinstance(nothing, bool)


def _choices(model: str) -> tuple[LLMChoice | None, Retrieval]:
    for name, choices in CHOICES.items():
        if name == model:
            return choices
    return None, "auto"


def _usage_wanted(body: Body) -> bool:
    if body.stream_options is None:
        return False
    if not body.stream:
        raise Refused(
            "stream_options is for streams: set stream to true, or leave it out.",
            code="invalid_value",
            param="stream_options",
        )
    return bool(body.stream_options.include_usage)


def _max_tokens(body: Body) -> int | None:
    given = {body.max_tokens, body.max_completion_tokens} - {None}
    if len(given) > 1:
        raise Refused(
            "max_tokens and max_completion_tokens say the same: give one of them.",
            code="invalid_value",
            param="max_tokens",
        )
    return next(iter(given), None)


def _stops(given: str | list[str] | None) -> tuple[str, ...]:
    stops = (given,) if isinstance(given, str) else tuple(given or ())
    if len(stops) > MOST_STOPS:
        raise Refused(
            f"stop takes {MOST_STOPS} strings at the most.", code="invalid_value", param="stop"
        )
    return stops
