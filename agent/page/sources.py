"""The doctors' replies behind an answer, as the patient can open them beside it.

Owns their names, how citations in the answer lead to them, the mark of a sentence without one,
their layout, and that a text from the index is shown as the text it is. Does not know how they were
found, nor what supports what.

They are buttons that open the side panel, not elements with display="side": those Chainlit
opens by itself, all of the conversation at once, over the answer where the screen is small. A
citation in the answer is a link to its button (public/medraft.js).

Buttons are made of plain JSON, `payloads`, which is kept in the answer's metadata as `sources`:
Chainlit stores no buttons, and `restore` makes them anew.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import chainlit as cl

from agent.chat.events import Retrieved
from agent.chat.marks import CITATION
from agent.chat.record import source
from agent.chat.support import Supported, states
from agent.page import chainlit_hooks
from agent.page.language import number, say

BUTTON = "source"  # the name by which Chainlit knows what a click on one calls
# What became of a reply: the answer takes something from it or does not, it was kept from the
# model, or nobody knows, because the answer was stopped.
Use = Literal["used", "unused", "left_out", "unknown"]
ICONS: dict[Use, str] = {
    "used": "book-open-check",
    "unused": "book-dashed",
    "left_out": "book-x",
    "unknown": "book-open",
}
Payload = dict[str, Any]

_PUNCTUATION = re.compile(f"[{re.escape(string.punctuation)}]")
# Where the page would make a link of an address, however its characters are escaped.
_LINK = re.compile(r"(?=://)|(?<=www)(?=\.)|(?=@)", re.IGNORECASE)
_WORD_JOINER = "\u2060"
# Stand for the ends of a marked passage until its text has been escaped.
_BEGIN, _END = "\ue000", "\ue001"


def payloads(
    retrieved: Retrieved, sample: bool, support: Sequence[Supported] | None = None
) -> list[Payload]:
    """One a reply, first those in the prompt, in their order: `agent.chat.record.source`, and
    `number`, `use`, `passages` (spans of `doctor` that support the answer) and `sample`.

    `support` is None while the answer has not ended.
    """
    found: list[Payload] = []
    for place, node in enumerate([*retrieved.sources, *retrieved.left_out], start=1):
        supported = [sentence for sentence in support or () if sentence.source == place]
        used = supported or any(place in sentence.also for sentence in support or ())
        use: Use = "used" if used else "unknown" if support is None else "unused"
        if place > len(retrieved.sources):
            use = "left_out"
        about = {
            "number": place,
            "use": use,
            "passages": [list(s.passage) for s in supported if s.passage],
            "sample": sample,
        }
        found.append(source(node) | about)
    return found


def buttons(payloads: Sequence[Payload], owner: str) -> list[cl.Action]:
    """One a payload: "Source 1", "Source 2 (not used)", ...; `owner` is the id of what they stand
    below, and makes theirs."""
    return [
        cl.Action(
            id=_id(owner, payload["number"]),
            name=BUTTON,
            label=_label(payload),
            tooltip=say(f"sources.{payload['use']}_about"),
            icon=ICONS[payload["use"]],
            payload=payload,
        )
        for payload in payloads
    ]


async def restore(step: Mapping[str, Any]) -> None:
    """Put the buttons of a stored answer below it again."""
    kept = (step.get("metadata") or {}).get("sources") or []
    for button in buttons(kept, str(step["id"])):
        # A page that was open while the server was started again shows it still.
        await button.remove()
        await button.send(str(step["id"]))


def linked(answer: str, payloads: Sequence[Payload], owner: str) -> str:
    """`answer` as Markdown in which a citation, [1], is a link to the source's button below
    `owner`."""
    numbers = {str(payload["number"]) for payload in payloads}

    def link(mark: re.Match[str]) -> str:
        if mark[1] not in numbers:
            return mark[0]
        title = say("sources.source", number=mark[1])
        return f' [\\[{mark[1]}\\]](#{_id(owner, int(mark[1]))} "{title}")'

    return CITATION.sub(link, answer)


def unsourced(answer: str, support: Sequence[Supported]) -> list[int]:
    """Where sentences of an answer end that say something of medicine, and that no source of it
    supports."""
    return [s.end for s in support if s.source is None and states(answer[s.start : s.end])]


def marked(answer: str, ends: Sequence[int], markdown: bool = True) -> str:
    """`answer` with a light mark at each of these ends."""
    mark = f' [\\[\u2013\\]](#no-source "{say("sources.no_source")}")' if markdown else " [\u2013]"
    for end in sorted(ends, reverse=True):
        answer = f"{answer[:end]}{mark}{answer[end:]}"
    return answer


async def open_beside(button: cl.Action) -> None:
    """Show the source of a button, alone, in the panel beside the chat."""
    text = cl.Text(name=button.label, content=_content(button.payload))
    await chainlit_hooks.open_panel(button.id, button.label, text)


def plain(text: str) -> str:
    """Markdown that shows `text` as it is, each line a paragraph: no markup, no HTML, no link.

    Every punctuation mark is escaped, which CommonMark allows. Lines are paragraphs because
    Chainlit looks for its `:::` blocks across the lines of a paragraph, after unescaping.
    """
    lines = (line.strip() for line in text.splitlines())
    joined = "\n\n".join(line for line in lines if line)
    return _PUNCTUATION.sub(r"\\\g<0>", _LINK.sub(_WORD_JOINER, joined))


def _content(payload: Payload) -> str:
    title, patient = payload["title"], payload["patient"]
    # A question that came without a title has its own beginning in its place.
    begins = " ".join(patient.split()).startswith(title.removesuffix(" ..."))
    parts = [
        f"*{say('sources.demonstration')}*" if payload["sample"] else "",
        say("sources.similarity", score=number(payload["score"] or 0.0, 2)),
        say(f"sources.{payload['use']}_here"),
        f"**{say('sources.asked')}**",
        "" if begins else plain(title),
        plain(patient),
        f"**{say('sources.replied')}**",
        _marked(payload["doctor"], payload["passages"]),
    ]
    return "\n\n".join(part for part in parts if part)


def _marked(text: str, passages: Sequence[Sequence[int]]) -> str:
    """`plain(text)` with `passages` of it in bold, line by line."""
    text = re.sub(f"[{_BEGIN}{_END}]", " ", text)
    for start, end in sorted({(start, end) for start, end in passages}, reverse=True):
        passage = re.sub(r"\s*\n\s*", rf"{_END}\n{_BEGIN}", text[start:end])
        text = f"{text[:start]}{_BEGIN}{passage}{_END}{text[end:]}"
    return plain(text).replace(_BEGIN, "**").replace(_END, "**")


def _label(payload: Payload) -> str:
    label = say("sources.source", number=payload["number"])
    if payload["use"] in ("unused", "left_out"):
        label = say("sources.not_used", source=label)
    return label


def _id(owner: str, place: int) -> str:
    return f"source-{owner}-{place}"
