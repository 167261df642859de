"""Which engine and which weights the settings mean on this machine.

Owns that decision and the refusal of what no engine could load. Loads nothing.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from agent.errors import AgentError
from agent.llms.embedded import EMBEDDED, transformers_directory
from agent.settings import ROOT, Settings

CUDA_MODEL = "meta-llama/Meta-Llama-3-8B-Instruct"
SHIPPED_ADAPTER = ROOT / "agent" / "adapters" / "smollm2-135m-doctor"


def choose(settings: Settings) -> str:
    """The engine that `settings` mean on this machine, by its module's name."""
    if settings.engine != "auto":
        return settings.engine
    if shutil.which("nvidia-smi") is None:  # spares the seconds that importing torch takes
        return "llama_cpp"
    import torch

    # A torch for CPUs beside a GPU is the huggingface engine's to explain.
    wanted = torch.cuda.is_available() or torch.version.cuda is None
    return "huggingface" if wanted else "llama_cpp"


def with_first_llm(settings: Settings) -> Settings:
    """Where nobody has set which LLM a new conversation starts with: the fine-tuned one, if there
    is one, which answers better (docs/evaluation.md)."""
    if settings.llm is not None:
        return settings
    if settings.engine == "openai_like" or settings.fine_tuned_model is not None:
        tuned = settings.fine_tuned_model is not None
    elif settings.adapter == "auto":  # the one that ships goes with the embedded model
        no_cuda = choose(settings) == "llama_cpp" or shutil.which("nvidia-smi") is None
        tuned = settings.model == "embedded" or (settings.model == "auto" and no_cuda)
    else:
        tuned = settings.adapter != "none"
    return settings.model_copy(update={"llm": "fine-tuned" if tuned else "base"})


def check(settings: Settings) -> None:
    """Refuse at once what no engine could load. Raises AgentError for a file that is not there."""
    if settings.engine == "openai_like":
        return  # its server knows what it has
    for setting, named in (
        ("MEDRAFT_MODEL", settings.model),
        ("MEDRAFT_FINE_TUNED_MODEL", settings.fine_tuned_model),
    ):
        path = Path(named or "")
        local = path.is_absolute() or (path.suffix == ".gguf" and len(path.parts) < 3)
        if local and not path.exists():
            raise AgentError(f"There is no model at {path}: correct {setting}.")
    if settings.adapter in ("auto", "none"):
        return
    if settings.fine_tuned_model is not None:
        raise AgentError(
            "MEDRAFT_ADAPTER and MEDRAFT_FINE_TUNED_MODEL are both set, and there is one "
            "fine-tuned LLM: unset one of them."
        )
    if not Path(settings.adapter).exists():
        raise AgentError(
            f"There is no adapter at {settings.adapter}: correct MEDRAFT_ADAPTER or unset it."
        )


def checkpoint(settings: Settings) -> tuple[str, str]:
    """Name and place of the transformers checkpoint that MEDRAFT_MODEL means on this machine.

    The place is a directory or a Hub name. Raises AgentError if it is neither.
    """
    return _checkpoint(settings.model, settings.home / "models", "MEDRAFT_MODEL")


def fine_tuned_checkpoint(settings: Settings) -> tuple[str, str] | None:
    """The same for MEDRAFT_FINE_TUNED_MODEL; None if it is not set."""
    if settings.fine_tuned_model is None:
        return None
    return _checkpoint(
        settings.fine_tuned_model, settings.home / "models", "MEDRAFT_FINE_TUNED_MODEL"
    )


def adapter(settings: Settings, model: str) -> Path | None:
    """The LoRA adapter that goes with `model`: the one named, or the one that ships for it."""
    if settings.adapter == "none" or settings.fine_tuned_model is not None:
        return None
    if settings.adapter == "auto":
        return SHIPPED_ADAPTER if model == EMBEDDED else None
    return Path(settings.adapter)


def _checkpoint(wanted: str, models: Path, setting: str) -> tuple[str, str]:
    if wanted == "auto":
        import torch

        wanted = CUDA_MODEL if torch.cuda.is_available() else "embedded"
    if wanted == "embedded":
        return EMBEDDED, str(transformers_directory(models))
    path = Path(wanted)
    if path.suffix == ".gguf":
        raise AgentError(
            f"A transformers checkpoint is needed here, and {setting} is {wanted}: give a "
            "directory or a Hub name, or set MEDRAFT_ENGINE=llama_cpp to chat with it."
        )
    if not path.is_dir() and wanted.count("/") != 1:
        raise AgentError(f"There is no model at {wanted}: correct {setting}.")
    return (path.name if path.is_dir() else wanted), wanted
