"""A machine with a GPU, as nvidia-smi and torch tell of one: what is decided, and what is said.

No GPU was at hand: nvidia-smi is a script here, and torch is told what to see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from agent import settings
from agent.errors import AgentError
from agent.finetuning.recipe import Training
from agent.finetuning.training import check
from agent.llms import choice, gpu
from agent.llms.embedded import EMBEDDED
from index_store import embedding
from index_store.device import device, without_code

Sees = Callable[..., None]


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    """What a process asks once is asked in each test."""
    for once in (gpu.card, choice._tell):
        once.cache_clear()
    yield
    for once in (gpu.card, choice._tell):
        once.cache_clear()


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An nvidia-smi that answers: a T4 with a driver of 2021."""
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho 'Tesla T4, 470.57.02'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def sees(monkeypatch: pytest.MonkeyPatch) -> Sees:
    """Tell torch what it was built for and which cards it sees."""

    def tell(cuda: str | None, built: str = "", *capabilities: tuple[int, int]) -> None:
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capabilities))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
        monkeypatch.setattr(torch.cuda, "get_arch_list", built.split)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda n: capabilities[n])

    return tell


def test_nvidia_smi_is_asked_and_may_fail(
    smi: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gpu.card() == gpu.Card("Tesla T4", "470.57.02")
    gpu.card.cache_clear()
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'No devices were found'; exit 6\n")
    assert gpu.card() is None
    gpu.card.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert gpu.card() is None


BUILT = "sm_75 sm_80 sm_86 sm_90 sm_100 sm_120 compute_120"


@pytest.mark.parametrize(
    ("cuda", "cards", "words"),
    [
        (None, [], ("build for CPUs", "pip install torch")),
        ("13.0", [], (torch.__version__, "CUDA 13.0", "driver is 470.57.02", "update the driver")),
        ("13.0", [(7, 0)], (torch.__version__, "no code", "capability 7.0", "470.57.02")),
    ],
    ids=["a torch for CPUs", "a driver too old", "a card too old"],
)
def test_a_card_that_torch_cannot_use_is_said_with_both_versions(
    smi: None,
    sees: Sees,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    cuda: str | None,
    cards: list[tuple[int, int]],
    words: tuple[str, ...],
) -> None:
    sees(cuda, BUILT, *cards)
    made = choice.decide(settings.load())
    assert (made.engine, made.base.name) == ("llama_cpp", EMBEDDED)
    choice.decide(settings.load())
    (said,) = caplog.messages  # once
    assert said.endswith("the embedded model answers, on the CPU.")
    assert all(word in said for word in ("Tesla T4", *words))
    # Whoever asks for what needs the GPU is not given another model.
    for wanted in ({"model": "owner/llama"}, {"engine": "huggingface"}):
        from agent.llms import engines

        with pytest.raises(AgentError) as told:
            engines.load(settings.load(**wanted))
        assert all(word in str(told.value) for word in words)
        assert "\n" not in str(told.value)
    for name in ("train.jsonl", "validation.jsonl"):
        (tmp_path / name).write_text("{}\n")
    with pytest.raises(AgentError, match="Tesla T4"):
        check(Training(), tmp_path)


def test_a_card_that_is_hidden_or_not_asked_for_is_no_trouble(
    smi: None, sees: Sees, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sees("13.0", BUILT)
    assert choice.decide(settings.load(engine="llama_cpp")).engine == "llama_cpp"
    assert choice.decide(settings.load(model="owner/repo/llama.gguf")).engine == "llama_cpp"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert choice.decide(settings.load()).engine == "llama_cpp"
    assert gpu.trouble() is None
    assert not caplog.messages


@pytest.mark.parametrize(
    ("built", "card", "there"),
    [
        (BUILT, (7, 5), True),
        (BUILT, (7, 0), False),
        (BUILT, (8, 9), True),  # by the code for sm_86
        (BUILT, (12, 1), True),
        (BUILT, (13, 0), True),  # compiled from compute_120
        ("sm_80 sm_90a", (7, 5), False),
        ("sm_80 sm_90a", (9, 0), True),
        ("", (5, 0), True),  # a build that does not say
    ],
)
def test_code_for_a_card(sees: Sees, built: str, card: tuple[int, int], there: bool) -> None:
    sees("13.0", built, card)
    assert without_code() == (None if there else card)
    assert device() == ("cuda" if there else "cpu")


def test_texts_are_embedded_on_the_cpu_where_torch_has_no_code_for_the_card(
    sees: Sees, monkeypatch: pytest.MonkeyPatch
) -> None:
    sees("13.0", BUILT, (7, 0))
    given: dict[str, Any] = {}
    monkeypatch.setattr(
        "llama_index.embeddings.huggingface.HuggingFaceEmbedding",
        lambda name, **wanted: given.update(wanted),
    )
    embedding.load_embedding(embedding.EMBEDDED)
    assert given["device"] == "cpu"
