"""A PEFT adapter as GGUF means what it means in PEFT, whatever its settings."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from gguf import GGUFReader
from safetensors.numpy import load_file, save_file

from agent.errors import AgentError
from agent.llms import peft_adapter
from agent.llms.choice import SHIPPED_ADAPTER
from agent.llms.embedded import embedded_gguf, llama_cpp_file
from agent.llms.llama_cpp import lora
from agent.llms.llama_cpp.lora import write_gguf

Q, V = "model.layers.3.self_attn.q_proj", "model.layers.3.self_attn.v_proj"
IN_GGUF = {Q: "blk.3.attn_q.weight", V: "blk.3.attn_v.weight"}
Changed = Callable[..., Path]


@pytest.fixture(scope="module", autouse=True)
def read_once() -> Iterator[None]:
    """What `write_gguf` reads of a model: its vocabulary takes two seconds."""
    with patch("gguf.GGUFReader", functools.cache(GGUFReader)):
        yield


@pytest.fixture
def changed(tmp_path: Path) -> Changed:
    """The adapter that ships, with other settings; `rank` cuts a module's matrices."""

    def change(rank: dict[str, int] | None = None, **settings: Any) -> Path:
        folder = Path(shutil.copytree(SHIPPED_ADAPTER, tmp_path / "adapter"))
        config = json.loads((folder / peft_adapter.CONFIG).read_text())
        (folder / peft_adapter.CONFIG).write_text(json.dumps(config | settings))
        tensors = load_file(folder / peft_adapter.WEIGHTS)
        for module, size in (rank or {}).items():
            name = f"{peft_adapter.PREFIX}{module}"
            down, up = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
            tensors[down] = np.ascontiguousarray(tensors[down][:size])
            tensors[up] = np.ascontiguousarray(tensors[up][:, :size])
        save_file(tensors, folder / peft_adapter.WEIGHTS)
        return folder

    return change


def scales(adapter: Path, model: Path, target: Path) -> dict[str, float]:
    """What llama.cpp multiplies B @ A by, as against PEFT's matrices."""
    write_gguf(adapter, model, target)
    reader = GGUFReader(target)
    alpha = reader.fields["adapter.lora.alpha"].contents()
    tensors = {tensor.name: np.asarray(tensor.data, dtype=np.float64) for tensor in reader.tensors}
    given = load_file(adapter / peft_adapter.WEIGHTS)
    found = {}
    for module, name in IN_GGUF.items():
        if f"{name}.lora_b" not in tensors:
            continue
        up = tensors[f"{name}.lora_b"]
        theirs = given[f"{peft_adapter.PREFIX}{module}.lora_B.weight"].astype(np.float64)
        # Rows are permuted, which no norm sees.
        larger = np.linalg.norm(up) / np.linalg.norm(theirs)
        found[module] = float(larger * alpha / up.shape[1])
    return found


def test_a_layout_that_is_not_known_is_refused(
    changed: Changed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora, "PERMUTED", ())
    with pytest.raises(AgentError, match=r"lays out the weights of llama .* is not known here"):
        write_gguf(changed(), embedded_gguf(), tmp_path / "adapter.gguf")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {Q: 32 / 16, V: 32 / 16}),
        ({"use_rslora": True}, {Q: 32 / 4, V: 32 / 4}),
        ({"alpha_pattern": {"q_proj": 8}}, {Q: 8 / 16, V: 32 / 16}),
        ({"alpha_pattern": {r"layers\.3\.self_attn\.v_proj": 8}}, {Q: 32 / 16, V: 8 / 16}),
        ({"alpha_pattern": {"q_proj": 8}, "use_rslora": True}, {Q: 8 / 4, V: 32 / 4}),
        ({"rank_pattern": {Q: 4}, "rank": {Q: 4}}, {Q: 32 / 4, V: 32 / 16}),
        ({"rank_pattern": {Q: 4}, "rank": {Q: 4}, "use_rslora": True}, {Q: 32 / 2, V: 32 / 4}),
        ({"layers_to_transform": [3]}, {Q: 32 / 16, V: 32 / 16}),
        ({"layers_to_transform": 4}, {}),
        ({"layers_to_transform": [4], "layers_pattern": "layers"}, {}),
        ({"lora_alpha": 0}, {Q: 0, V: 0}),
    ],
)
def test_the_scale_is_pefts(
    changed: Changed,
    models_home: Path,
    tmp_path: Path,
    settings: dict[str, Any],
    expected: dict[str, float],
) -> None:
    model = llama_cpp_file(models_home / "models")
    found = scales(changed(**settings), model, tmp_path / "adapter.gguf")
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"modules_to_save": ["lm_head"]},
        {"use_dora": True},
        {"lora_bias": True},
        {"bias": "all"},
        {"layer_replication": [[0, 4], [2, 5]]},
        {"trainable_token_indices": [1]},
        {"target_parameters": ["mlp.experts"]},
        {"peft_type": "LOHA"},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "pissa_niter_16"},
        {"init_lora_weights": "OLoRA"},
        {"init_lora_weights": "corda"},
        {"init_lora_weights": "lora_ga"},
        {"init_lora_weights": "loftq"},
    ],
)
def test_what_a_lora_of_llama_cpp_cannot_mean_is_refused(
    changed: Changed, settings: dict[str, Any]
) -> None:
    with pytest.raises(AgentError, match="is no plain LoRA"):
        peft_adapter.read(changed(**settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"r": 8},
        {"rank_pattern": {"q_proj": 4}},
        {"rank_pattern": [1]},
        {"alpha_pattern": {"(": 4}},
        {"layers_to_transform": [99]},
        {"layers_to_transform": [3], "layers_pattern": "h"},
        {"layers_to_transform": "3"},
    ],
)
def test_settings_that_contradict_the_weights_are_refused(
    changed: Changed, settings: dict[str, Any]
) -> None:
    with pytest.raises(AgentError, match="is damaged"):
        peft_adapter.read(changed(**settings))
