"""What the patient may choose: a first question, the LLM, and whether replies are looked up.

Owns the starters and the settings panel. Does not know what a choice does to an answer.
"""

from __future__ import annotations

from typing import get_args

import chainlit as cl
from chainlit.input_widget import InputWidget, Select

from agent.behaviour import LLMChoice, Retrieval
from agent.settings import Settings

QUESTIONS = [
    "Hi Doctor, I have a headache, help me.",
    "Hello doctor, I have bad acne. How do I get rid of it?",
    "My son of six coughs at night. What can I do?",
    "What can you help me with?",
]


def starters() -> list[cl.Starter]:
    """The questions to begin with, one click each."""
    return [cl.Starter(label=question, message=question) for question in QUESTIONS]


async def show_panel(settings: Settings) -> None:
    """Offer the two choices, beginning with those of `settings`."""
    choices: list[InputWidget] = [
        Select(
            id="llm",
            label="LLM",
            values=list(get_args(LLMChoice)),
            initial_value=settings.llm,
            description="The model as it came, or the one trained on doctors' replies.",
        ),
        Select(
            id="retrieval",
            label="Retrieval",
            values=list(get_args(Retrieval)),
            initial_value=settings.retrieval,
            description="Whether doctors' replies to similar questions are looked up: "
            "auto decides for each message.",
        ),
    ]
    await cl.ChatSettings(choices).send()


def chosen(settings: Settings) -> tuple[LLMChoice, Retrieval]:
    """What this session has chosen; whatever the browser sent besides counts for nothing."""
    panel = cl.user_session.get("chat_settings") or {}
    llm: dict[object, LLMChoice] = {choice: choice for choice in get_args(LLMChoice)}
    retrieval: dict[object, Retrieval] = {choice: choice for choice in get_args(Retrieval)}
    return (
        llm.get(panel.get("llm"), settings.llm),
        retrieval.get(panel.get("retrieval"), settings.retrieval),
    )
