"""The key-value caches of past prompts and answers, so that a turn reads only what is new in it.

Owns which caches are kept, who gets one, and that together they stay within a limit. Knows nothing
of models or conversations: a cache is found by the tokens that it holds and the adapter that they
were read with. Only the thread that runs the model comes here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import DynamicCache

# A token takes 128 KiB in Llama 3 8B and 45 KiB in the embedded model (in float32): room for some
# 8,000 and 23,000 of them.
MOST_KEPT = 2**30


@dataclass(frozen=True, eq=False)
class _Kept:
    with_adapter: bool | None
    ids: list[int]
    cache: Any  # a DynamicCache

    def size(self) -> int:
        """Bytes."""
        # A cropped tensor keeps all of its storage: that is what counts.
        tensors = [t for layer in self.cache.layers for t in (layer.keys, layer.values)]
        return sum(t.untyped_storage().nbytes() for t in tensors)


class PrefixCache:
    """Caches of one model, `config` is the model's; the least recently used goes first."""

    def __init__(self, config: Any, limit: int) -> None:
        """`limit` is in bytes."""
        self._config, self.limit = config, limit
        self._kept: list[_Kept] = []  # the one used last is last

    def take(self, with_adapter: bool | None, ids: Sequence[int]) -> DynamicCache:
        """A cache of the longest known beginning of `ids`, the caller's alone; empty at worst.

        At least the last token of `ids` is not in it: the model must have something to compute.
        """
        known = [
            (_common(kept.ids, ids), kept)
            for kept in self._kept
            if kept.with_adapter == with_adapter
        ]
        length, best = max(reversed(known), key=lambda pair: pair[0], default=(0, None))
        length = min(length, len(ids) - 1)
        if best is None or length == 0:
            return DynamicCache(config=self._config)
        # What shares most of its tokens is this conversation's last turn, which nobody else will
        # ask for. What shares less (the system prompt) may be another conversation's: a copy.
        if 2 * length >= len(best.ids):
            self._kept.remove(best)
            for layer in best.cache.layers:
                layer.crop(length - layer.get_seq_length())
            return best.cache
        copy: Any = DynamicCache(config=self._config)
        for layer, kept in zip(copy.layers, best.cache.layers, strict=True):
            layer.update(kept.keys[..., :length, :], kept.values[..., :length, :])
        return copy

    def keep(self, with_adapter: bool | None, ids: Sequence[int], cache: Any) -> None:
        """Take back a cache that has read a beginning of `ids`, whether or not it came to an end.

        A forward pass that was broken off leaves the first layers longer than the last ones: what
        they have in common counts, and `take` cuts off the rest.
        """
        if not cache.is_croppable or any(cache.is_sliding):
            return  # of what slid out of the window nothing can be had back
        whole = min(layer.get_seq_length() for layer in cache.layers)
        if whole == 0:
            return
        self._kept.append(_Kept(with_adapter, list(ids[:whole]), cache))
        while self._kept and self.size() > self.limit:
            self._kept.pop(0)

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()

    def size(self) -> int:
        """Bytes that are kept, without what is given out."""
        return sum(kept.size() for kept in self._kept)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    shorter = min(len(one), len(other))
    return next((i for i in range(shorter) if one[i] != other[i]), shorter)
