"""The encoder that ships: what it makes of a message, each read once.

Owns the weights' place, their loading, what the windows of a long message say together, and the
thread of what can wait. Does not know what a verdict or a route is.

It is the product's own and stays the same whatever MEDRAFT_EMBED_MODEL is.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from agent.errors import AgentError
from agent.settings import ROOT
from agent.understanding.labels import HEADS, Said
from index_store import lora
from index_store.device import multiplies_bf16
from index_store.errors import StoreError

if TYPE_CHECKING:
    import torch

    from agent.understanding.network import Network

T = TypeVar("T")
Given = TypeVarTuple("Given")

SHIPPED = ROOT / "agent" / "adapters" / "e5-small-messages"
HEAD_WEIGHTS, RECORD = "heads.safetensors", "training.json"
REMEMBERED = 4096  # messages whose reading is at hand
AT_ONCE = 32  # windows in one forward pass


@dataclass(frozen=True)
class Reading:
    """What a message is: a probability for each label of each head (agent.understanding.labels).

    `crisis` is that of its being urgent, now or soon, and about suicide.
    """

    degree: Mapping[str, float]
    kind: Mapping[str, float]
    topic: Mapping[str, float]
    stands: Mapping[str, float]
    crisis: float


class Encoder:
    """A trained network; `read` may be called from any thread."""

    def __init__(self, network: Network, tokenizer: Any) -> None:
        self._network = network
        self._tokenizer = tokenizer
        self._lock = threading.Lock()  # of the tokenizer and of what is known, not of the network
        self._known: dict[bytes, Reading] = {}  # by a hash: nobody's words are kept

    def read(self, messages: Sequence[Said]) -> list[Reading]:
        """A reading of each message, of those that were not read before in one forward pass.

        Any string is accepted, of any length. It takes milliseconds: call it off the event loop.
        """
        keys = [_key(said) for said in messages]
        with self._lock:
            read = {key: self._known[key] for key in keys if key in self._known}
        new = {key: said for key, said in zip(keys, messages, strict=True) if key not in read}
        read |= zip(new, self._read([*new.values()]), strict=True)
        with self._lock:
            self._known |= read
            while len(self._known) > REMEMBERED:
                del self._known[next(iter(self._known))]
        return [read[key] for key in keys]

    def forget(self) -> None:
        """Let go of what was read: for who measures the time."""
        with self._lock:
            self._known.clear()

    def _read(self, messages: Sequence[Said]) -> list[Reading]:
        import torch

        from agent.understanding.network import batch, windows

        with self._lock:
            parts = [windows(self._tokenizer, said) for said in messages]
        flat = [window for part in parts for window in part]
        # Those of like length together: padding is read, too.
        order = sorted(range(len(flat)), key=lambda place: len(flat[place][0]))
        logits: list[dict[str, torch.Tensor]] = [{} for _ in flat]
        fast = torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bf16())  # as it has learned
        with torch.inference_mode(), fast:
            for start in range(0, len(order), AT_ONCE):
                places = order[start : start + AT_ONCE]
                told = self._network(*batch([flat[place] for place in places]))
                for row, place in enumerate(places):
                    logits[place] = {name: values[row] for name, values in told.items()}
        left = iter(logits)
        return [_reading([next(left) for _ in part]) for part in parts]


def _reading(windows: Sequence[dict[str, torch.Tensor]]) -> Reading:
    """The gravest of what a message's windows say, at odds divided by their number: a longer letter
    has more windows in which chance may find something (Bonferroni). Topic and standing are the
    mean.
    """
    import torch

    together = {name: torch.stack([window[name] for window in windows]) for name in HEADS}
    calm = together["degree"][:, :1] + torch.log(torch.tensor(float(len(windows))))
    none, _, now = torch.cat([calm, together["degree"][:, 1:]], dim=1).softmax(-1).T
    kinds = together["kind"].softmax(-1)
    # Each of them by the window that is surest: one that says "soon" must not hide a "now".
    least, most = none.min(), now.max()
    told = {
        "degree": torch.stack([least, 1 - least - most, most]),
        "kind": kinds[int((now - none).argmax())],
        "topic": together["topic"].mean(0).softmax(-1),
        "stands": together["stands"].mean(0).softmax(-1),
    }
    labelled = {
        name: dict(zip(HEADS[name], values.tolist(), strict=True)) for name, values in told.items()
    }
    crisis = ((1 - none) * kinds[:, HEADS["kind"].index("suicide")]).max()
    return Reading(**labelled, crisis=float(crisis))


def _key(said: Said) -> bytes:
    told = json.dumps([said.text, said.before, said.reply])
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).digest()


_behind = ThreadPoolExecutor(1, "encoder")


async def behind(read: Callable[[*Given], T], *given: *Given) -> T:
    """What `read` makes of messages, in the one thread for what no notice waits for: a long
    conversation holds up its like, and nothing else of this process."""
    return await asyncio.get_running_loop().run_in_executor(_behind, read, *given)


_shipped: list[Encoder] = []
_loading = threading.Lock()


def shipped() -> Encoder:
    """The encoder of this process, loaded at the first call (a second or two).

    Raises AgentError if its files are missing or damaged.
    """
    with _loading:
        if not _shipped:
            _shipped.append(load(SHIPPED))
    return _shipped[0]


def load(folder: Path) -> Encoder:
    """A trained encoder. Raises AgentError for files that are missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from agent.understanding import base
    from agent.understanding.network import Network

    try:
        tokenizer, model = base.load(SHIPPED)
        lora.merge(model, folder)
        network = Network(model)
        network.take_heads(load_file(folder / HEAD_WEIGHTS))
    except (StoreError, OSError, ImportError, ValueError, RuntimeError, SafetensorError) as error:
        raise AgentError(
            f"The encoder in {folder} cannot be loaded ({type(error).__name__}): install medraft "
            "again, or train it anew with `medraft train-encoder`."
        ) from None
    return Encoder(network.eval(), tokenizer)
