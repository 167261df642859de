"""What the encoder is given of a message, and what it can say of it, head by head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

# How soon somebody must look at it: an ambulance now, a person today or tomorrow, or neither.
Degree = Literal["none", "soon", "now"]
Kind = Literal[
    "cardiac", "stroke", "breathing", "anaphylaxis", "suicide", "overdose", "bleeding", "seizure",
    "unconscious", "meningitis", "head_injury", "pregnancy", "infant", "burn", "abdomen",
    "diabetic",
]  # fmt: skip
# Health, the program itself, other things, or talk: greetings, thanks, goodbyes.
Topic = Literal["health", "about", "other", "chat"]
# How a message stands in its conversation.
Stands = Literal["opens", "follows", "answers"]

HEADS: dict[str, tuple[str, ...]] = {
    "degree": get_args(Degree),
    "kind": get_args(Kind),
    "topic": get_args(Topic),
    "stands": get_args(Stands),
}


@dataclass(frozen=True)
class Said:
    """A message, and where it follows another one that, and the doctor's words between them."""

    text: str
    before: str | None = None
    reply: str = ""

    @classmethod
    def last_of(cls, messages: Sequence[Mapping[str, str]]) -> Said:
        """The last of {"role", "content"} messages, with the user's before it and the reply."""
        *before, last = messages
        asked = [m["content"] for m in before if m["role"] == "user"]
        if not asked:
            return cls(last["content"])
        told = [m["content"] for m in before if m["role"] == "assistant"]
        return cls(last["content"], asked[-1], told[-1] if told else "")
