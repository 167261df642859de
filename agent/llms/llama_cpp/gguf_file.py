"""Which GGUF file a setting means, and what its header says of the model.

Owns the way from a path or a Hub name to a file on this machine, and the few numbers that tell
how much memory a chat takes. Knows nothing of servers.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from agent.errors import AgentError
from agent.llms.choice import Weights
from agent.llms.embedded import llama_cpp_file
from index_store.errors import reason

HUB_NAME = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:/(.+\.gguf))?")
PREFERRED = ("", "Q8_0", "Q4_K_M")  # of several files: the one, or the one of these


@dataclass(frozen=True)
class Header:
    """The longest context that the model was trained for, in tokens, and the bytes that a token
    takes in the key-value cache; 0 where the file does not say."""

    context: int
    bytes_per_token: int


def of(weights: Weights, models: Path) -> Path:
    """The file of `weights`; the embedded model's is made in `models` at the first call.

    Raises AgentError as `find` does.
    """
    if weights.embedded:
        return llama_cpp_file(models)
    return find(weights.name, weights.setting)


def find(named: str, setting: str) -> Path:
    """The file of a path, of OWNER/REPOSITORY/FILE.gguf or of OWNER/REPOSITORY on the Hub.

    What the Hub's cache holds is not asked for again. Raises AgentError if there is no such file.
    """
    path = Path(named)
    if path.is_file() and path.suffix == ".gguf":
        return path
    hub = HUB_NAME.fullmatch(named)
    if path.exists() or (hub is None and path.suffix != ".gguf"):
        raise AgentError(
            f"The llama_cpp engine reads .gguf files, and {setting} is {named}: "
            "give one, or set MEDRAFT_ENGINE=huggingface."
        )
    if hub is None:
        raise AgentError(f"There is no model at {named}: correct {setting}.")
    return _cached(*hub.groups()) or _downloaded(named, setting, *hub.groups())


def _cached(repository: str, file: str | None) -> Path | None:
    from huggingface_hub import errors, snapshot_download

    try:
        snapshot = Path(snapshot_download(repository, local_files_only=True))
    except errors.LocalEntryNotFoundError:
        return None
    here = {path.relative_to(snapshot).as_posix(): path for path in snapshot.rglob("*.gguf")}
    return here.get(file or _choice(here) or "")


def _downloaded(named: str, setting: str, repository: str, file: str | None) -> Path:
    from huggingface_hub import HfApi, errors

    hub = HfApi()
    try:
        names = [name for name in hub.list_repo_files(repository) if name.endswith(".gguf")]
        chosen = _choice(names) if file is None else file
        if chosen in names:
            return Path(hub.hf_hub_download(repository, chosen))
    except errors.GatedRepoError:
        raise AgentError(
            f"The Hub gives {repository} to those who have accepted its terms: accept them at "
            f"{hub.endpoint}/{repository} and log in with `hf auth login`."
        ) from None
    except errors.RepositoryNotFoundError:
        raise AgentError(
            f"There is no file {named} here and no repository {repository} on the Hub: "
            f"correct {setting}, or log in with `hf auth login` if it is a private one."
        ) from None
    except Exception as error:  # no network, a full disk, ...: each library below has its own
        raise AgentError(
            f"{named} is neither a file here nor in the Hub's cache, and the Hub cannot be "
            f"reached or does not give it ({reason(error)}): try again later, or correct {setting}."
        ) from None
    held = ", ".join(names) or "none"
    raise AgentError(
        f"The Hub's {repository} has these .gguf files: {held}. Name one of them, "
        f"{setting}={repository}/FILE.gguf."
    )


def _choice(names: Iterable[str]) -> str | None:
    for quantization in PREFERRED:
        fitting = [name for name in names if quantization.lower() in name.lower()]
        if len(fitting) == 1:
            return fitting[0]
    return None


def header(path: Path) -> Header:
    """Read the header of a GGUF. Raises AgentError if the file is none.

    gguf's own reader takes a second for a large vocabulary, and would do so at every start.
    """
    try:
        with path.open("rb") as file:
            fields = dict(_fields(file))
    except (struct.error, ValueError, KeyError, MemoryError, OverflowError):
        raise AgentError(f"llama.cpp cannot load {path}: it is damaged, or no GGUF.") from None

    def of_model(key: str, default: Any = 0) -> Any:
        return fields.get(f"{fields.get('general.architecture')}.{key}", default)

    layers, heads = of_model("block_count"), of_model("attention.head_count", 1)
    most = max(heads) if isinstance(heads, list) else heads
    width = of_model("embedding_length") // (most or 1)  # Mamba has none
    key_value_heads = of_model("attention.head_count_kv", heads)
    if not isinstance(key_value_heads, list):
        key_value_heads = [key_value_heads] * layers
    widths = of_model("attention.key_length", width) + of_model("attention.value_length", width)
    return Header(of_model("context_length"), 2 * widths * sum(key_value_heads))


SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
STRING, ARRAY = 8, 9


def _fields(file: BinaryIO) -> Iterable[tuple[str, Any]]:
    """The key-value pairs that the header begins with (github.com/ggml-org/ggml, docs/gguf.md)."""
    magic, _, _, count = struct.unpack("<4sIQQ", file.read(24))
    if magic != b"GGUF":
        raise ValueError(magic)
    for _ in range(count):
        yield str(_value(file, STRING)), _value(file, _scalar(file, "I"))


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == STRING:
        return file.read(_scalar(file, "Q")).decode(errors="replace")
    if kind == ARRAY:
        inner, length = _scalar(file, "I"), _scalar(file, "Q")
        return [_value(file, inner) for _ in range(length)]
    return _scalar(file, SCALARS[kind])


def _scalar(file: BinaryIO, code: str) -> Any:
    return struct.unpack(f"<{code}", file.read(struct.calcsize(f"<{code}")))[0]
