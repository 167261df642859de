"""What the patient may choose: the LLM, and whether replies are looked up.

Owns the settings panel and the composer's mode picker, which show the same choices.
Does not know what a choice does to an answer.

Of a pick in the composer `public/medraft.js` tells at once, as a window message. What the picker
showed comes with each message, too, and is not heeded: after a change in the panel it may be what
was chosen before.
"""

from __future__ import annotations

from typing import get_args

import chainlit as cl
from chainlit.input_widget import InputWidget, Select
from chainlit.mode import Mode, ModeOption

from agent.behaviour import LLMChoice, Retrieval
from agent.page import chainlit_hooks, notice
from agent.page.language import say
from agent.settings import Settings

OPTIONS: dict[str, tuple[str, ...]] = {"llm": get_args(LLMChoice), "retrieval": get_args(Retrieval)}


def chosen(settings: Settings) -> tuple[LLMChoice, Retrieval]:
    """What this session has chosen; whatever the browser sent besides counts for nothing."""
    panel = {
        name: value
        for name, value in cl.user_session.get("chat_settings").items()
        if isinstance(value, str)
    }
    llm: dict[object, LLMChoice] = {choice: choice for choice in get_args(LLMChoice)}
    retrieval: dict[object, Retrieval] = {choice: choice for choice in get_args(Retrieval)}
    return (
        llm.get(panel.get("llm"), settings.llm or "base"),
        retrieval.get(panel.get("retrieval"), settings.retrieval),
    )


async def show(settings: Settings) -> None:
    """Panel and picker, with what the session has chosen, or else with what `settings` say."""
    await show_panel(settings)
    await show_picker(settings)


async def show_panel(settings: Settings) -> None:
    """The settings panel."""
    panel: list[InputWidget] = [
        Select(
            id=choice,
            label=say(f"choices.{choice}"),
            items={say(f"choices.{_key(option)}"): option for option in OPTIONS[choice]},
            initial_value=now,
            description=say(f"choices.{choice}_about"),
        )
        for choice, now in zip(OPTIONS, chosen(settings), strict=True)
    ]
    await cl.ChatSettings([*panel, await notice.country_choice(settings)]).send()


async def show_picker(settings: Settings) -> None:
    """The picker in the composer."""
    await cl.context.emitter.set_modes(
        [
            Mode(
                id=choice,
                name=say(f"choices.{choice}"),
                options=[
                    ModeOption(
                        id=option,
                        name=_name(choice, option),
                        description=say(f"choices.{_key(option)}_about"),
                        default=option == now,
                    )
                    for option in OPTIONS[choice]
                ],
            )
            for choice, now in zip(OPTIONS, chosen(settings), strict=True)
        ]
    )


async def picked(data: object, settings: Settings) -> None:
    """A pick in the composer, by the options' names: the panel shows it, too. Any window may send
    anything."""
    shown = data.get("medraft-modes") if isinstance(data, dict) else None
    if isinstance(shown, dict):
        before = chosen(settings)
        chainlit_hooks.choose(
            {
                choice: option
                for choice, options in OPTIONS.items()
                for option in options
                if shown.get(choice) == _name(choice, option)
            }
        )
        if chosen(settings) != before:
            await show_panel(settings)


def _name(choice: str, option: str) -> str:
    # Beside one another in the composer, "base" and "auto" alone would say nothing.
    return f"{say(f'choices.{choice}')}: {say(f'choices.{_key(option)}')}"


def _key(option: str) -> str:
    return option.replace("-", "_")
