"""A machine with a GPU, as nvidia-smi and torch tell of one: what is decided, and what is said.

No GPU was at hand: nvidia-smi is a script here, and torch is told what to see.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # what it raises

from agent import settings
from agent.errors import AgentError
from agent.finetuning import run
from agent.finetuning.recipe import RetrieverRecipe, Training
from agent.finetuning.retriever import training as retriever
from agent.finetuning.retriever.pairs import Row
from agent.finetuning.training import check
from agent.llms import auto, choice, engines, gpu
from agent.llms.embedded import EMBEDDED
from agent.llms.huggingface import checkpoint
from agent.llms.sizes import LLAMA_3_8B, shape_of
from index_store import embedding
from index_store.averaging import Averaging
from index_store.dataset import Dialogue
from index_store.device import device, usable

Sees = Callable[..., None]


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    """What a process asks once is asked in each test."""
    asked = (gpu.card, gpu.free, auto.tell, auto._why_not_to_be_had)
    for once in asked:
        once.cache_clear()
    yield
    for once in asked:
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
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda n: f"card {n}")

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
    monkeypatch.setattr(gpu, "DEVICES", tmp_path)
    (tmp_path / "nvidiactl").touch()  # the driver is there, and no card
    assert gpu.card() is None


MISMATCH = "Failed to initialize NVML: Driver/library version mismatch"


@pytest.mark.parametrize("fails", [False, True], ids=["no nvidia-smi", "a failing nvidia-smi"])
def test_torch_is_asked_where_nvidia_smi_says_nothing(
    smi: None,
    sees: Sees,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fails: bool,
) -> None:
    if fails:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho '{MISMATCH}'; exit 18\n")
    else:
        monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
        monkeypatch.setattr(gpu, "DEVICES", tmp_path)
        (tmp_path / "nvidia0").touch()
    sees("13.0", BUILT, (9, 0))
    assert choice.decide(settings.load(model="owner/llama")).engine == "huggingface"
    assert not caplog.messages
    sees("13.0", BUILT)
    assert choice.decide(settings.load()).base.name == EMBEDDED
    (said,) = caplog.messages
    assert (f"nvidia-smi fails ({MISMATCH})" if fails else "CUDA 13.0, does not see") in said
    assert "CUDA_VISIBLE_DEVICES=-1" in said and "\n" not in said


def test_an_old_card_beside_a_good_one_is_left_alone(smi: None, sees: Sees, tmp_path: Path) -> None:
    sees("13.0", BUILT, (9, 0), (6, 1))
    assert (gpu.trouble(), device(), usable()) == (None, "cuda", [0])
    assert choice.decide(settings.load(model="owner/llama")).engine == "huggingface"
    for name in ("train.jsonl", "validation.jsonl"):
        (tmp_path / name).write_text("{}\n")
    with pytest.raises(AgentError, match=r"card 1 \(compute capability 6.1.*name other GPUs"):
        check(Training(), tmp_path)  # by torch's DataParallel, which takes all that torch sees
    sees("13.0", BUILT, (6, 1), (9, 0))
    said = gpu.trouble()
    assert said and "card 0 (compute capability 6.1" in said and "Tesla T4" not in said


BUILT = "sm_75 sm_80 sm_86 sm_90 sm_100 sm_120 compute_120"


@pytest.mark.parametrize(
    ("cuda", "cards", "words"),
    [
        (None, [], ("Tesla T4", "build for CPUs", "pip install torch")),
        ("13.0", [], ("Tesla T4", "CUDA 13.0", "driver is 470.57.02", "update the driver")),
        ("13.0", [(7, 0)], ("card 0", "no code", "capability 7.0", "470.57.02")),
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
    assert all(word in said for word in (*words, "PyTorch " + torch.__version__))
    # Whoever asks for what needs the GPU is not given another model.
    for wanted in ({"model": "owner/llama"}, {"engine": "huggingface"}):
        with pytest.raises(AgentError) as told:
            engines.load(settings.load(**wanted))
        assert all(word in str(told.value) for word in words)
        assert "\n" not in str(told.value)
    for name in ("train.jsonl", "validation.jsonl"):
        (tmp_path / name).write_text("{}\n")
    with pytest.raises(AgentError, match=words[0]):
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
    assert usable() == ([0] if there else [])
    assert device() == ("cuda" if there else "cpu")


def test_a_retriever_is_trained_on_the_processor_beside_a_card_without_code(
    sees: Sees, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sees("12.8", "sm_75 sm_80", (6, 1))
    monkeypatch.setattr(run, "multiplies_bf16", lambda: False)
    # sentence-transformers asks for default settings, too, which are for the card.
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    assert run.precision() == "fp32"
    rows = [
        Row(Dialogue(f"Q {n}", f"I hurt {n}", f"Rest {n} days"), f"{n}", named=True)
        for n in range(4)
    ]
    recipe = RetrieverRecipe(rank=2, batch_size=2)
    model = retriever._to_learn(embedding.MINILM, recipe)
    averaging = Averaging(retriever._learning(model), recipe.scale)
    trainer = retriever._trainer(
        model,
        averaging,
        embedding.MINILM,
        {"train": rows, "validation": rows[:1], "test": []},
        [],
        recipe,
        tmp_path,
    )
    assert trainer.args.use_cpu and not trainer.args.fp16 and not trainer.args.bf16
    assert trainer.args.device.type == trainer.model.device.type == "cpu"


def test_texts_are_embedded_on_the_cpu_where_torch_has_no_code_for_the_card(
    sees: Sees, monkeypatch: pytest.MonkeyPatch
) -> None:
    sees("13.0", BUILT, (7, 0))
    given: dict[str, Any] = {}
    monkeypatch.setattr(
        "llama_index.embeddings.huggingface.HuggingFaceEmbedding",
        lambda name, **wanted: given.update(wanted),
    )
    embedding.load_embedding(embedding.MINILM)
    assert given["device"] == "cpu"


GIB = 2**30
SHIPPED = choice.SHIPPED_ADAPTER
Has = Callable[..., None]


@pytest.fixture
def has(smi: None, sees: Sees, monkeypatch: pytest.MonkeyPatch) -> Has:
    """A card with so many GiB free; whether the Hub gives the gated model; what else is there."""

    def tell(
        free: float, *, granted: bool = True, bitsandbytes: bool = True, gguf: bool = False
    ) -> None:
        for once in (gpu.free, auto.tell, auto._why_not_to_be_had):
            once.cache_clear()
        sees("13.0", BUILT, (8, 9))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda n: (int(free * GIB), 0))
        found = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name: bitsandbytes or None if name == "bitsandbytes" else found(name),
        )
        monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_token" if granted else None)
        monkeypatch.setattr("huggingface_hub.HfApi.auth_check", lambda self, name: None)
        monkeypatch.setattr(auto, "_gguf_is_here", lambda: gguf)

    return tell


@pytest.mark.parametrize(
    ("free", "quantize", "words"),
    [
        (79.0, "none", ("in 16 bits", "needs 16.5 GiB", "79.0 GiB are free")),
        (16.6, "none", ("16.6 GiB are free",)),
        (16.4, "4bit", ("16.5 GiB", "16.4 GiB are free", "MEDRAFT_QUANTIZE=none")),
        (7.0, "4bit", ("7.0 GiB are free",)),
    ],
)
def test_what_the_card_has_free_decides_before_any_download(
    has: Has, caplog: pytest.LogCaptureFixture, free: float, quantize: str, words: tuple[str, ...]
) -> None:
    has(free)
    made = choice.decide(settings.load())
    assert (made.engine, made.base.name) == ("huggingface", auto.CUDA_MODEL)
    assert (made.quantize, made.adapter) == (quantize, None)
    choice.decide(settings.load(llm="base"))
    (said,) = caplog.messages  # one line, once
    assert caplog.records[0].levelname == "WARNING"  # which the command line shows
    assert all(word in said for word in words)


def test_16_bits_are_taken_by_who_insists(has: Has, caplog: pytest.LogCaptureFixture) -> None:
    has(14.6)
    for insisted in ("none", "8bit"):
        made = choice.decide(settings.load(quantize=insisted))
        assert (made.base.name, made.quantize) == (auto.CUDA_MODEL, insisted)
    assert not caplog.messages


def test_two_full_models_that_fit_together_in_4_bits_need_not_take_turns(has: Has) -> None:
    has(23.0)
    tuned = {"fine_tuned_model": "owner/doctor"}
    assert choice.decide(settings.load()).quantize == "none"
    assert choice.decide(settings.load(**tuned)).quantize == "4bit"
    has(7.5)
    assert choice.decide(settings.load(**tuned)).quantize == "4bit"  # by turns


@pytest.mark.parametrize(
    ("free", "more", "engine", "model", "words"),
    [
        (6.0, {"gguf": True}, "llama_cpp", "/".join(auto.CUDA_GGUF), "in llama.cpp"),
        (6.0, {}, "llama_cpp", EMBEDDED, "needs 6.9 GiB of the GPU in 4 bits, and 6.0 GiB are"),
        (14.6, {"bitsandbytes": False}, "llama_cpp", EMBEDDED, "extra `gpu`"),
        (79.0, {"granted": False}, "llama_cpp", EMBEDDED, "hf auth login"),
    ],
    ids=["a GGUF", "too small", "no bitsandbytes", "no account"],
)
def test_a_card_without_room_or_an_account_without_access_still_gets_answers(
    has: Has,
    caplog: pytest.LogCaptureFixture,
    free: float,
    more: dict[str, bool],
    engine: str,
    model: str,
    words: str,
) -> None:
    has(free, **more)
    made = choice.decide(settings.load())
    assert (made.engine, made.base.name) == (engine, model)
    assert made.adapter == (SHIPPED if model == EMBEDDED else None)
    (said,) = caplog.messages
    assert words in said and "\n" not in said
    # Whoever has named what belongs to Llama is told, and given nothing else.
    with pytest.raises(AgentError):
        choice.decide(settings.load(adapter="llama-doctor"))
    # On the engine that somebody has named, the embedded model runs as well.
    assert choice.decide(settings.load(engine="huggingface")).base.name == EMBEDDED


def test_a_download_that_was_broken_off_is_no_model(
    has: Has, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / f"models--{auto.CUDA_MODEL.replace('/', '--')}"
    snapshot = cached / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    index = {"weight_map": {"norm": "model-2.safetensors", "head": "model-1.safetensors"}}
    files = {"config.json": "{}", "model.safetensors.index.json": json.dumps(index)}
    files |= {"tokenizer.json": "{}", "tokenizer_config.json": "{}"}
    files |= {"model-1.safetensors": "", "model-2.safetensors": ""}
    for name, text in files.items():
        has(79, granted=False)
        assert choice.decide(settings.load()).base.name == EMBEDDED
        (snapshot / name).write_text(text)
    has(79, granted=False)
    assert choice.decide(settings.load()).base.name == auto.CUDA_MODEL


def test_a_hub_that_refuses_or_is_away_is_one_sentence(
    has: Has, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(self: object, name: str) -> None:
        raise ConnectionError("Name or service not known\nat some length")

    has(79)
    monkeypatch.setattr("huggingface_hub.HfApi.auth_check", away)
    assert choice.decide(settings.load()).base.name == EMBEDDED
    (said,) = caplog.messages
    assert "cannot be reached (Name or service not known)" in said

    def answered(status: int) -> Callable[[object, str], None]:
        def check(self: object, name: str) -> None:
            request = httpx.Request("GET", "https://huggingface.co")
            raise HfHubHTTPError("It says so.", response=httpx.Response(status, request=request))

        return check

    for status, says in ((503, "cannot be reached"), (403, "accepted its terms")):
        has(79)
        monkeypatch.setattr("huggingface_hub.HfApi.auth_check", answered(status))
        assert choice.decide(settings.load()).base.name == EMBEDDED
        assert says in caplog.messages[-1]


def test_a_named_checkpoint_is_measured_by_its_shape_before_its_weights(
    has: Has, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = shape_of(str(tiny_checkpoint))
    assert whole.matrices == 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128)
    assert whole.bytes_per_token == 2 * 2 * 2 * 2 * 16
    wanted = settings.load(engine="huggingface", model=str(tiny_checkpoint))
    made = choice.decide(wanted)
    assert made.quantize == "auto"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    needs = {bits: whole.needs(bits, 4096) / GIB for bits in ("none", "4bit")}
    for free, bits in ((needs["none"], "none"), (needs["none"] - 1e-6, "4bit")):
        has(free + 1e-8)
        assert checkpoint.precision([str(tiny_checkpoint)], made, wanted) == bits
    has(needs["4bit"] / 2)
    with pytest.raises(AgentError, match=r"needs 0.6 GiB .* 0.3 GiB are free"):
        checkpoint.precision([str(tiny_checkpoint)], made, wanted)


@pytest.mark.parametrize(
    ("own", "bits"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 4),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 4),
        ({"quant_method": "fp8"}, 8),
        ({"quant_method": "told by nobody"}, 16),
    ],
)
def test_a_checkpoint_that_is_quantized_stays_as_it_is(
    has: Has,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    own: dict[str, Any],
    bits: int,
) -> None:
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": own}))
    source = str(tmp_path)
    plain, whole = shape_of(str(tiny_checkpoint)), shape_of(source)
    assert whole.weights("none") == plain.rest * 2 + int(plain.matrices * (bits + 0.5) / 8)
    wanted = settings.load(engine="huggingface", model=source)
    has(whole.needs("none", 4096) / GIB + 1e-8)
    assert checkpoint.precision([source], choice.decide(wanted), wanted) == "none"
    assert "as it is quantized" in caplog.text
    has(whole.needs("none", 4096) / GIB / 2)
    with pytest.raises(AgentError, match="of the GPU as it is quantized"):
        checkpoint.precision([source], choice.decide(wanted), wanted)
    given: dict[str, Any] = {}

    def load(source: str, **placed: Any) -> Any:
        given.update(placed)
        raise ValueError("no weights")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", load)
    with pytest.raises(ValueError, match="no weights"):
        checkpoint.loaded(source, "4bit", torch.float16)
    assert given and "quantization_config" not in given


def test_the_shape_of_llama_3_8b() -> None:
    whole = LLAMA_3_8B.weights("none")
    assert whole == 2 * 8_030_261_248  # as the Hub tells its parameters
    assert [round(LLAMA_3_8B.needs(b, 4096) / GIB, 1) for b in ("none", "8bit", "4bit")] == [
        *(16.5, 10.0, 6.9)
    ]
