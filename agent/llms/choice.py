"""Which engine and which weights the settings mean on this machine: one decision.

Owns what "auto", "embedded" and "none" mean, and the refusal of what no engine could load. Loads
nothing, and asks torch for a GPU only where the answer matters: importing it takes seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.behaviour import LLMChoice
from agent.errors import AgentError
from agent.llms import auto, gpu
from agent.llms.embedded import EMBEDDED, transformers_directory
from agent.llms.sizes import Quantize
from agent.settings import ROOT, Settings
from index_store.device import device

SHIPPED_ADAPTER = ROOT / "agent" / "adapters" / "smollm2-135m-doctor"
MODEL, FINE_TUNED_MODEL = "MEDRAFT_MODEL", "MEDRAFT_FINE_TUNED_MODEL"

EngineName = Literal["llama_cpp", "huggingface", "openai_like"]


@dataclass(frozen=True)
class Weights:
    """A model: a file, a folder, its name on the Hub or on a server, and the setting for it.

    `embedded`: it is the one that comes with medraft. `auto`: nobody named it, and of a server
    it is the first.
    """

    name: str
    setting: str
    embedded: bool = False
    auto: bool = False

    def check(self) -> None:
        """Raise AgentError if it is a local file or folder that is not there."""
        path = Path(self.name)
        local = path.is_absolute() or (path.suffix == ".gguf" and len(path.parts) < 3)
        if local and not path.exists():
            raise AgentError(f"There is no model at {path}: correct {self.setting}.")

    def checkpoint(self, models: Path) -> tuple[str, str]:
        """Its name, and the directory or the Hub name that transformers loads it from.

        The embedded one is made in `models` at the first call. Raises AgentError if it is neither.
        """
        if self.embedded:
            return self.name, str(transformers_directory(models))
        path = Path(self.name)
        if path.suffix == ".gguf":
            raise AgentError(
                f"A transformers checkpoint is needed here, and {self.setting} is {self.name}: "
                "give a directory or a Hub name, or set MEDRAFT_ENGINE=llama_cpp to chat with it."
            )
        if not path.is_dir() and self.name.count("/") != 1:
            raise AgentError(f"There is no model at {self.name}: correct {self.setting}.")
        return (path.name if path.is_dir() else self.name), self.name


@dataclass(frozen=True)
class Choice:
    """What an engine loads, and which LLM a new conversation starts with.

    The fine-tuned LLM is `fine_tuned`, or `base` with `adapter`; without both there is none.
    `quantize` is the precision on CUDA, and "auto" where the model must be looked at first.
    """

    engine: EngineName
    base: Weights
    fine_tuned: Weights | None
    adapter: Path | None
    first: LLMChoice
    quantize: Quantize | Literal["auto"] = "none"

    def check(self) -> None:
        """Refuse at once what no engine could load. Raises AgentError."""
        if self.engine == "openai_like":
            return  # its server knows what it has
        self.base.check()
        if self.fine_tuned is not None:
            self.fine_tuned.check()
        if self.adapter is None:
            return
        if self.fine_tuned is not None:
            raise AgentError(
                "MEDRAFT_ADAPTER and MEDRAFT_FINE_TUNED_MODEL are both set, and there is one "
                "fine-tuned LLM: unset one of them."
            )
        if not self.adapter.exists():
            raise AgentError(
                f"There is no adapter at {self.adapter}: correct MEDRAFT_ADAPTER or unset it."
            )


def decide(settings: Settings, engine: EngineName | None = None) -> Choice:
    """What `settings` mean on this machine; what they would mean on `engine`, if that is given."""
    asked, engine = engine, engine or _engine(settings)
    model, quantize = settings.model, settings.quantize
    if engine == "huggingface" and model == "auto" and device() == "cuda":
        anywhere = asked is None and settings.engine == "auto"
        taken = auto.on_cuda(settings, anywhere)
        model, quantize = taken.model, taken.quantize
        # What runs without the GPU runs where it was tested.
        if taken.model != auto.CUDA_MODEL and anywhere:
            engine = "llama_cpp"
    base = _weights(model, MODEL, engine)
    fine_tuned = None
    if settings.fine_tuned_model is not None:
        fine_tuned = _weights(settings.fine_tuned_model, FINE_TUNED_MODEL, engine)
    adapter = _adapter(settings, engine, base, fine_tuned)
    # The fine-tuned LLM answers better (docs/evaluation.md).
    there = fine_tuned is not None or adapter is not None
    first = settings.llm or ("fine-tuned" if there else "base")
    return Choice(engine, base, fine_tuned, adapter, first, quantize)


def with_first_llm(settings: Settings) -> Settings:
    """With the LLM that a new conversation starts with, where nobody has set it."""
    if settings.llm is not None:
        return settings
    return settings.model_copy(update={"llm": decide(settings).first})


def languages(settings: Settings, model: str) -> frozenset[str] | None:
    """What a loaded model writes, by codes of ISO 639-1; None: any."""
    if settings.llm_languages == "auto":
        # llama.cpp's name for it has that of its quantization, too.
        return frozenset({"en"}) if model.startswith(EMBEDDED) else None
    return None if settings.llm_languages == "any" else frozenset(settings.llm_languages.split(","))


def check(settings: Settings) -> None:
    """Refuse at once what no engine could load. Raises AgentError for a file that is not there."""
    decide(settings).check()


def _engine(settings: Settings) -> EngineName:
    if settings.engine != "auto":
        return settings.engine
    if gpu.card() is None or settings.model.endswith(".gguf"):  # spares the import of torch
        return "llama_cpp"
    trouble = gpu.trouble()
    if trouble is None:
        return "huggingface" if device() == "cuda" else "llama_cpp"
    if settings.model not in ("auto", "embedded"):
        raise AgentError(trouble)
    auto.tell(f"{trouble} Until then the embedded model answers, on the CPU.")
    return "llama_cpp"


def _weights(named: str, setting: str, engine: EngineName) -> Weights:
    unnamed = named == "auto"
    if engine == "openai_like":
        return Weights(named, setting, auto=unnamed)
    if unnamed or named == "embedded":
        return Weights(EMBEDDED, setting, embedded=True, auto=unnamed)
    return Weights(named, setting)


def _adapter(
    settings: Settings, engine: EngineName, base: Weights, fine_tuned: Weights | None
) -> Path | None:
    if settings.adapter == "none" or engine == "openai_like":
        return None
    if settings.adapter == "auto":  # the one that ships goes with the embedded model
        return SHIPPED_ADAPTER if base.embedded and fine_tuned is None else None
    return Path(settings.adapter)
