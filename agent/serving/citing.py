"""How an answer cites its sources where clients look: marks in the text, and a list below it.

Owns both, their links, and how they are taken off again when a client sends the answer back as
history. Does not know which sentence a source supports, nor how a source is found.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from agent.templates import Language

WORDS: dict[Language, tuple[str, str]] = {
    "en": ("Sources:", "not used"),
    "es": ("Fuentes:", "no usada"),
}
LONGEST = 100  # characters of a title in the list

_HEADS = "|".join(head for head, _ in WORDS.values())
_LIST = re.compile(rf"\n\n(?:{_HEADS})(?:\n- \[\d+\] [^\n]*)+\s*\Z")
_MARK = re.compile(r" \[\d+\]")
# With these, a title of somebody else's would be a link, a picture or HTML in the client.
_MARKUP = re.compile(r"[\[\]<>`!\\]")


@dataclass(frozen=True)
class Cited:
    """A reply that was shown to the LLM, as it is cited."""

    title: str
    url: str


def listing(sources: Sequence[Cited], used: AbstractSet[int], language: Language) -> str:
    """The sources below an answer, from 1; those that are not in `used` are told to be not."""
    head, unused = WORDS[language]
    lines = [
        f"- [{number}] {_title(source.title)}{'' if number in used else f' ({unused})'}: "
        f"{source.url}"
        for number, source in enumerate(sources, start=1)
    ]
    return "\n".join([f"\n\n{head}", *lines])


def without_citations(answer: str) -> str:
    """An answer as it was before marks and list; any other text as it is."""
    found = _LIST.search(answer)
    return answer if found is None else _MARK.sub("", answer[: found.start()])


def annotation(source: Cited, start: int, end: int) -> dict[str, object]:
    """OpenAI's annotation of the mark from `start` to `end`."""
    about = {"start_index": start, "end_index": end, "title": source.title, "url": source.url}
    return {"type": "url_citation", "url_citation": about}


def _title(text: str) -> str:
    line = " ".join(_MARKUP.sub(" ", text).split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST].rstrip()} ..."
