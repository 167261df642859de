"""How many tokens a model reads at once: as many as are set, and no more than it was trained for.

Owns what a checkpoint of transformers says of that, and the warning. Knows no engine.
"""

from __future__ import annotations

import logging

from agent.settings import Settings

log = logging.getLogger("medraft")


def of(settings: Settings, model: str, trained: int | None) -> int:
    """MEDRAFT_CONTEXT_WINDOW, or what `model` was trained for, if that is known and less."""
    if not trained or trained >= settings.context_window:
        return settings.context_window
    log.warning(
        "MEDRAFT_CONTEXT_WINDOW is %d, and %s was trained for %d tokens: it gets these.",
        settings.context_window,
        model,
        trained,
    )
    return trained


def of_checkpoint(settings: Settings, model: str, checkpoint: str) -> int:
    """The same for `model` of transformers, a directory or a Hub name, whose config.json says what
    it was trained for; where that is not to be had, loading it tells."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(checkpoint).get_text_config()
    except (OSError, ValueError):
        return settings.context_window
    return of(settings, model, getattr(config, "max_position_embeddings", None))
