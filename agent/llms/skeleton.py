"""A transformers checkpoint by its config.json alone: its modules, without weights.

Owns how they are made and the sentence where they cannot be. Does not know what is read off them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import AgentError
from index_store.errors import first_sentence

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def skeleton(checkpoint: str) -> PreTrainedModel:
    """The modules of `checkpoint`, a directory or a Hub name. Raises AgentError if it is not to be
    had."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(checkpoint)
        with torch.device("meta"):
            made: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        raise AgentError(
            f"transformers cannot load {checkpoint}: {first_sentence(error)} Correct MEDRAFT_MODEL."
        ) from None
    return made
