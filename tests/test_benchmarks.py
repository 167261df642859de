"""What the benchmarks compare with, in what a machine without a GPU would not show."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoTokenizer

from agent.llms.interface import Sampling
from benchmarks import engines

from asking import PROMPT


async def test_bare_transformers_is_bare_and_reads_where_the_model_is(
    tiny_checkpoint: Path,
) -> None:
    asked: dict[str, Any] = {}

    def generate(streamer: Any, **wanted: Any) -> None:
        asked.update(wanted)
        for _ in range(3):
            streamer.put(torch.tensor([1]))

    model = SimpleNamespace(device=torch.device("meta"), generate=generate)
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    speed = await engines.bare_huggingface(model, tokenizer, PROMPT, Sampling(3))
    assert speed.rate > 0
    assert asked["input_ids"].device == asked["attention_mask"].device == model.device
    assert "adapter_names" not in asked
