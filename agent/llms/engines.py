"""Loading the inference engine that the settings mean.

Owns that each engine's room is imported only when it is wanted. Knows nothing of how they work.
"""

from __future__ import annotations

from agent.llms.choice import decide
from agent.llms.interface import Engine
from agent.settings import Settings


def load(settings: Settings) -> Engine:
    """Load the weights; seconds on a CPU, a minute for 8B on a GPU. Raises AgentError."""
    choice = decide(settings)
    choice.check()
    match choice.engine:
        case "huggingface":
            from agent.llms.huggingface import engine as huggingface

            return huggingface.load(settings, choice)
        case "openai_like":
            from agent.llms import openai_like

            return openai_like.load(settings, choice)
        case _:
            from agent.llms.llama_cpp import engine as llama_cpp

            return llama_cpp.load(settings, choice)
