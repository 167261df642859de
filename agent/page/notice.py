"""The emergency notice on the page: whom to call, in view as long as the conversation goes on.

Owns its messages, the line to see someone soon, and the choice of the country whose numbers they
give. `public/medraft.css` knows the messages by their avatars and pins the newest to the top;
`agent.storage.threads` knows stored ones by their metadata. Does not know what a notice says.
"""

from __future__ import annotations

import asyncio
import unicodedata
from functools import cache

import chainlit as cl
from babel import Locale
from chainlit.input_widget import Select

from agent.page.language import language, say
from agent.safety.emergency import countries
from agent.settings import Settings
from agent.templates import Language

_MARK = {"notice": True}
_ELSEWHERE = "elsewhere"  # the page has no empty choice


async def show(notice: str) -> None:
    """Show a notice of `agent.safety.emergency`: whom to call, then what to do until then."""
    call, meanwhile = notice.split("\n\n", 1)
    await cl.Message(call, author=say("notice.call"), metadata=dict(_MARK)).send()
    await cl.Message(meanwhile, author=say("notice.meanwhile"), metadata=dict(_MARK)).send()


async def advise(line: str) -> None:
    """Show the line above the answer to what a person should look at soon; it is not pinned."""
    await cl.Message(line, author="medraft", metadata=dict(_MARK)).send()


def country(settings: Settings) -> str:
    """The country that this session has chosen: a code of `agent.safety.emergency`, or none."""
    chosen = cl.user_session.get("chat_settings").get("country", settings.country)
    return chosen if isinstance(chosen, str) and chosen in countries() else ""


async def country_choice(settings: Settings) -> Select:
    """The choice of it, for the settings panel."""
    names = await asyncio.to_thread(_names, language())
    return Select(
        id="country",
        label=say("notice.country"),
        items={say("notice.elsewhere"): _ELSEWHERE} | names,
        initial_value=country(settings) or _ELSEWHERE,
        description=say("notice.country_about"),
    )


@cache
def _names(language: Language) -> dict[str, str]:
    """The codes of the countries by their names, in the order of these. Babel reads a language's
    names for a third of a second."""
    territories = Locale(language).territories
    names = {territories[code]: code for code in countries()}
    # By the letters without their accents, which would sort behind z.
    return dict(
        sorted(
            names.items(),
            key=lambda pair: unicodedata.normalize("NFD", pair[0]).encode("ascii", "ignore"),
        )
    )
