"""A training's progress, in one line now and then. Knows nothing of what is trained."""

from __future__ import annotations

import sys
import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

EVERY = 10.0  # seconds


class Progress(TrainerCallback):
    """Tells step, losses and the time left, as the last steps went."""

    def __init__(self, key: str = "eval_loss", name: str = "validation loss") -> None:
        """`key` is what the trainer logs of its evaluations, `name` what people call it."""
        self._begun = self._told = time.monotonic()
        self._first = 0
        self._key, self._name = key, name

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._begun, self._first = time.monotonic(), state.global_step

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        logs = logs or {}
        if self._key in logs:
            print(f"step {state.global_step}: {self._name} {logs[self._key]:.3f}", file=sys.stderr)
        if "loss" not in logs or time.monotonic() - self._told < EVERY:
            return
        self._told = time.monotonic()
        done = state.global_step - self._first
        left = (self._told - self._begun) / max(1, done) * (state.max_steps - state.global_step)
        print(
            f"step {state.global_step} of {state.max_steps}: loss {logs['loss']:.3f}, "
            f"about {left / 60:.0f} min left",
            file=sys.stderr,
        )
