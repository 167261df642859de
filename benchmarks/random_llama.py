"""A Llama with random weights, made on the spot: for a GPU machine that reaches no network.

Owns the shapes, the checkpoint's files and those of an adapter, laid out as on the Hub. Knows
nothing of what is measured with them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from index_store.dataset import read_rows

SHARD = 4 << 30  # bytes
LEARNED = 12_000  # tokens that the tokenizer learns from the sample; others only fill it up
SPECIAL = 256
TEMPLATE = (
    "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{ message['content'] | trim }}{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """Widths of a Llama."""

    vocabulary: int
    hidden: int
    inner: int
    layers: int
    heads: int
    key_value_heads: int

    def linear(self) -> dict[str, tuple[int, int]]:
        """The (out, in) of a layer's linear modules."""
        small = self.hidden // self.heads * self.key_value_heads
        square, narrow = (self.hidden, self.hidden), (small, self.hidden)
        up, down = (self.inner, self.hidden), (self.hidden, self.inner)
        attention = {"q_proj": square, "k_proj": narrow, "v_proj": narrow, "o_proj": square}
        mlp = {"gate_proj": up, "up_proj": up, "down_proj": down}
        named = {f"self_attn.{name}": sizes for name, sizes in attention.items()}
        return named | {f"mlp.{name}": sizes for name, sizes in mlp.items()}


SHAPES = {
    "8b": Shape(128_256, 4096, 14_336, 32, 32, 8),  # Llama 3 8B
    "tiny": Shape(13_000, 64, 128, 2, 4, 2),
}


def checkpoint(folder: Path, shape: Shape) -> Path:
    """Write random weights in bf16, in shards, with Llama 3's kind of tokenizer; once."""
    if (folder / "model.safetensors.index.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    _config(folder, shape)
    _tokenizer(folder, shape.vocabulary)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    shards: list[dict[str, torch.Size]] = [{}]
    held = total = 0
    for name, size in _tensors(shape).items():
        length = 2 * size.numel()
        if held + length > SHARD:
            shards.append({})
            held = 0
        shards[-1][name] = size
        held, total = held + length, total + length
    where: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        made = {
            name: torch.ones(size, dtype=torch.bfloat16)
            if len(size) == 1
            else (torch.randn(size, device=device, dtype=torch.bfloat16) * 0.02).cpu()
            for name, size in names.items()
        }
        save_file(made, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def adapter(folder: Path, base: Path, shape: Shape) -> Path:
    """Write a LoRA of rank 16 of every linear layer, so random that it changes what is said."""
    if (folder / "adapter_config.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    tensors = {}
    for number in range(shape.layers):
        for module, (out, into) in shape.linear().items():
            at = f"base_model.model.model.layers.{number}.{module}.lora_"
            tensors[f"{at}A.weight"] = (torch.randn(16, into) / into**0.5).half()
            tensors[f"{at}B.weight"] = (torch.randn(out, 16) * 0.05).half()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": [module.rpartition(".")[2] for module in shape.linear()],
        "base_model_name_or_path": str(base),
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def _tensors(shape: Shape) -> dict[str, torch.Size]:
    wide = torch.Size((shape.vocabulary, shape.hidden))
    one = torch.Size((shape.hidden,))
    wanted = {"model.embed_tokens.weight": wide, "lm_head.weight": wide, "model.norm.weight": one}
    for number in range(shape.layers):
        at = f"model.layers.{number}."
        wanted |= {f"{at}{name}.weight": torch.Size(s) for name, s in shape.linear().items()}
        norms = ("input_layernorm", "post_attention_layernorm")
        wanted |= {f"{at}{name}.weight": one for name in norms}
    return wanted


def _config(folder: Path, shape: Shape) -> None:
    from transformers import LlamaConfig

    begin, end = shape.vocabulary - SPECIAL, shape.vocabulary - SPECIAL + 9
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=8192,
        bos_token_id=begin,
        eos_token_id=end,
        dtype="bfloat16",
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        tie_word_embeddings=False,
    )
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    own = {"bos_token_id": begin, "eos_token_id": [begin + 1, end], "max_length": 4096}
    sampling = {"do_sample": True, "temperature": 0.6, "top_p": 0.9}  # as Llama 3's own
    (folder / "generation_config.json").write_text(json.dumps(own | sampling))


def _tokenizer(folder: Path, vocabulary: int) -> None:
    """A byte-level BPE of the sample, filled up to `vocabulary`, with Llama 3's special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=LEARNED,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    rows = [f"{row.patient} {row.doctor}" for row in read_rows("sample")]
    learned.train_from_iterator(rows, trainer)
    model = json.loads(learned.to_str())["model"]
    known: dict[str, int] = model["vocab"]
    known |= {f"Ġx{number}": number for number in range(len(known), vocabulary - SPECIAL)}
    whole = Tokenizer(models.BPE(known, [(left, right) for left, right in model["merges"]]))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    spare = [f"<|reserved_special_token_{number}|>" for number in range(SPECIAL - 5)]
    header = ["<|start_header_id|>", "<|end_header_id|>"]
    begin = ["<|begin_of_text|>", "<|end_of_text|>"]
    whole.add_special_tokens([*begin, *spare[:4], *header, spare[4], "<|eot_id|>", *spare[5:]])
    made = PreTrainedTokenizerFast(
        tokenizer_object=whole, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"
    )
    made.chat_template = TEMPLATE
    made.save_pretrained(str(folder))
