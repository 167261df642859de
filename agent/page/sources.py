"""The doctors' replies behind an answer, as the patient can open them beside it.

Owns their names, their layout, and that a text from the index is shown as the text it is.
Does not know how they were found.

They are buttons that open the side panel, not elements with display="side": those Chainlit
opens by itself, all of the conversation at once, over the answer where the screen is small.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import TYPE_CHECKING

import chainlit as cl

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore

BUTTON = "source"  # the name by which Chainlit knows what a click on one calls
DEMONSTRATION = "Written for demonstration; no real patient or doctor."
_PUNCTUATION = re.compile(f"[{re.escape(string.punctuation)}]")
# Where the page would make a link of an address, however its characters are escaped.
_LINK = re.compile(r"(?=://)|(?<=www)(?=\.)|(?=@)", re.IGNORECASE)
_WORD_JOINER = "\u2060"


def buttons(sources: Sequence[NodeWithScore], sample: bool) -> list[cl.Action]:
    """One a source: "Source 1", "Source 2", ..., in the order of the prompt."""
    return [
        cl.Action(
            name=BUTTON,
            label=f"Source {number}",
            tooltip="What a doctor wrote to another patient",
            icon="book-open",
            payload={"content": _content(source, sample)},
        )
        for number, source in enumerate(sources, 1)
    ]


async def open_beside(button: cl.Action) -> None:
    """Show the source of a button, alone, in the panel beside the chat."""
    text = cl.Text(name=button.label, content=button.payload["content"])
    session, emitter = cl.context.session, cl.context.emitter
    stored = await session.persist_file(name=text.name, mime="text/plain", content=text.content)
    text.chainlit_key = stored["id"]
    # cl.ElementSidebar would send the element to the chat, too, which closes the panel again.
    panel = {"elements": [text.to_dict()], "key": button.id}
    await emitter.emit("set_sidebar_elements", panel)
    await emitter.emit("set_sidebar_title", button.label)


def plain(text: str) -> str:
    """Markdown that shows `text` as it is, each line a paragraph: no markup, no HTML, no link.

    Every punctuation mark is escaped, which CommonMark allows. Lines are paragraphs because
    Chainlit looks for its `:::` blocks across the lines of a paragraph, after unescaping.
    """
    lines = (line.strip() for line in text.splitlines())
    joined = "\n\n".join(line for line in lines if line)
    return _PUNCTUATION.sub(r"\\\g<0>", _LINK.sub(_WORD_JOINER, joined))


def _content(source: NodeWithScore, sample: bool) -> str:
    title, patient = (str(source.node.metadata[key]) for key in ("title", "patient"))
    # A question that came without a title has its own beginning in its place.
    begins = " ".join(patient.split()).startswith(title.removesuffix(" ..."))
    parts = [
        f"*{DEMONSTRATION}*" if sample else "",
        f"similarity {source.score or 0.0:.2f}",
        "**A patient asked**",
        "" if begins else plain(title),
        plain(patient),
        "**A doctor replied**",
        plain(source.node.get_content()),
    ]
    return "\n\n".join(part for part in parts if part)
