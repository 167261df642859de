"""How fast an engine answers, and how fast transformers alone does.

Owns what both proofs of speed (engines.py, cuda.py) count by. Imports nothing that a bare GPU
machine lacks.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.llms.interface import Sampling, as_dicts


@dataclass(frozen=True)
class Speed:
    """Milliseconds to the first token, and tokens/s after it."""

    first: float
    rate: float


def speed(first: float, end: float, tokens: int) -> Speed:
    return Speed(first, (tokens - 1) / max(1e-6, (end - first) / 1000))


def median(speeds: Sequence[Speed]) -> Speed:
    return Speed(
        statistics.median(s.first for s in speeds), statistics.median(s.rate for s in speeds)
    )


async def bare_huggingface(
    model: Any, tokenizer: Any, messages: Sequence[Any], sampling: Sampling
) -> Speed:
    """`generate` of a checkpoint as it is, in this thread, with transformers' own streamer."""
    from transformers import TextStreamer

    times: list[float] = []

    class Clock(TextStreamer):
        def put(self, value: Any) -> None:
            times.append(time.perf_counter())
            super().put(value)

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            pass

    encoded = tokenizer.apply_chat_template(
        as_dicts(messages), add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    start = time.perf_counter()
    model.generate(
        **{name: tensor.to(model.device) for name, tensor in encoded.items()},
        streamer=Clock(tokenizer, skip_prompt=True),
        max_new_tokens=sampling.max_tokens,
        do_sample=sampling.temperature > 0,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
    )
    made = [(moment - start) * 1000 for moment in times[1:]]  # the prompt is put first
    return speed(made[0], made[-1], len(made))
