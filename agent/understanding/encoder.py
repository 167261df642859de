"""The encoder that ships: what it makes of a message, each read once.

Owns the weights' place, their loading, and that one thread reads at a time. Does not know what a
verdict or a route is.

It is the product's own and stays the same whatever MEDRAFT_EMBED_MODEL is.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import AgentError
from agent.settings import ROOT
from agent.understanding.labels import HEADS, Said

if TYPE_CHECKING:
    import torch

    from agent.understanding.network import Network

SHIPPED = ROOT / "agent" / "adapters" / "minilm-l6-messages"
CONFIG, LORA = "adapter_config.json", "adapter_model.safetensors"
HEAD_WEIGHTS, RECORD = "heads.safetensors", "training.json"
PREFIX = "base_model.model."  # of a module's name, as PEFT saves it
REMEMBERED = 4096  # messages whose reading is at hand
AT_ONCE = 32  # windows in one forward pass


@dataclass(frozen=True)
class Reading:
    """What a message is: a probability for each label of each head (agent.understanding.labels)."""

    degree: Mapping[str, float]
    kind: Mapping[str, float]
    topic: Mapping[str, float]
    stands: Mapping[str, float]


class Encoder:
    """A trained network; `read` may be called from any thread."""

    def __init__(self, network: Network, tokenizer: Any) -> None:
        self._network = network
        self._tokenizer = tokenizer
        self._lock = threading.Lock()  # a tokenizer serves one thread at a time
        self._known: dict[Said, Reading] = {}

    def read(self, messages: Sequence[Said]) -> list[Reading]:
        """A reading of each message, of those that were not read before in one forward pass.

        Any string is accepted, of any length. It takes milliseconds: call it off the event loop.
        """
        with self._lock:
            new = [said for said in dict.fromkeys(messages) if said not in self._known]
            self._known |= dict(zip(new, self._read(new), strict=True))
            readings = [self._known[said] for said in messages]
            while len(self._known) > REMEMBERED:
                del self._known[next(iter(self._known))]
        return readings

    def forget(self) -> None:
        """Let go of what was read: for who measures the time."""
        with self._lock:
            self._known.clear()

    def _read(self, messages: Sequence[Said]) -> list[Reading]:
        import torch

        from agent.understanding.network import batch, windows

        parts = [windows(self._tokenizer, said) for said in messages]
        flat = [window for part in parts for window in part]
        # Those of like length together: padding is read, too.
        order = sorted(range(len(flat)), key=lambda place: len(flat[place][0]))
        logits: list[dict[str, torch.Tensor]] = [{} for _ in flat]
        with torch.inference_mode():
            for start in range(0, len(order), AT_ONCE):
                places = order[start : start + AT_ONCE]
                told = self._network(*batch([flat[place] for place in places]))
                for row, place in enumerate(places):
                    logits[place] = {name: values[row] for name, values in told.items()}
        left = iter(logits)
        return [_reading([next(left) for _ in part]) for part in parts]


def _reading(windows: Sequence[dict[str, torch.Tensor]]) -> Reading:
    """Of a message's windows the one that is most urgent, at odds divided by their number: a longer
    letter has more windows in which chance may find something (Bonferroni). The mean of the rest.
    """
    import torch

    urgent = torch.stack([window["degree"] for window in windows])
    calm = urgent[:, :1] + torch.log(torch.tensor(float(len(windows))))
    degrees = torch.cat([calm, urgent[:, 1:]], dim=1).softmax(-1)
    most = int(degrees[:, 0].argmin())
    means = {
        name: torch.stack([window[name] for window in windows]).mean(0).softmax(-1)
        for name in ("topic", "stands")
    }
    told = {"degree": degrees[most], "kind": windows[most]["kind"].softmax(-1), **means}
    return Reading(
        **{
            name: dict(zip(HEADS[name], values.tolist(), strict=True))
            for name, values in told.items()
        }
    )


@cache
def shipped() -> Encoder:
    """The encoder of this process, loaded at the first call (a second or two).

    Raises AgentError if its files are missing or damaged.
    """
    return load(SHIPPED)


def load(folder: Path) -> Encoder:
    """A trained encoder. Raises AgentError for files that are missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from agent.understanding.network import Network, embedded

    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tokenizer, model = embedded()
        _merge(model, load_file(folder / LORA), config["lora_alpha"] / config["r"])
        network = Network(model, model.config.hidden_size)
        network.load_state_dict(load_file(folder / HEAD_WEIGHTS), strict=False)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise AgentError(
            f"The encoder in {folder} cannot be loaded ({type(error).__name__}): install medraft "
            "again, or train it anew with `medraft train-encoder`."
        ) from None
    return Encoder(network.eval(), tokenizer)


def _merge(model: torch.nn.Module, lora: Mapping[str, torch.Tensor], scale: float) -> None:
    """Add a LoRA, as PEFT saves it, to the weights that it belongs to."""
    import torch

    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, down in lora.items():
            if ".lora_A" in name:
                module = name.removeprefix(PREFIX).partition(".lora_A")[0]
                up = lora[name.replace(".lora_A", ".lora_B")]
                weights[f"{module}.weight"].add_(up @ down, alpha=scale)
