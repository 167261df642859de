"""The models that a server lists, whatever its dialect, as ours.

Owns which of them chat, told by their names and kinds, and how many tokens each reads. Knows no
protocol and no failure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

NO_CHAT = re.compile(
    r"embed|rerank|whisper|minilm|mpnet|colbert|paraphrase|moderation|guard|dall-?e|gpt-image|kokoro"
    r"|stable-?diffusion|arctic-(xs|s|m|l)\b|(^|[/-])((bge|gte|e5|tts|mxbai|uae|clip)-|flux|sdxl)",
    re.IGNORECASE,
)
# The kinds of a model that LM Studio and gateways tell.
OTHER_KIND = re.compile("embed|rerank|image|audio|speech|transcri|moderation", re.IGNORECASE)


@dataclass(frozen=True)
class Card:
    """Whether a model chats, and its window in tokens; None if the server does not tell."""

    chats: bool
    window: int | None


def read(listed: Any) -> dict[str, Card]:
    """By name. Raises LookupError, TypeError or AttributeError if it is no list of models."""
    return {str(told["id"]): _card(told) for told in listed if told and told["id"]}


def _card(told: dict[str, Any]) -> Card:
    chats = not (NO_CHAT.search(str(told["id"])) or OTHER_KIND.search(str(told.get("type"))))
    length = str(told.get("max_model_len"))  # some write it as text
    return Card(chats, int(length) or None if length.isdecimal() else None)
