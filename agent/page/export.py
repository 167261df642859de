"""A conversation as Markdown, with the behaviour and the sources of each answer.

Owns what the file says and its name. Does not know who may read it, nor how it is sent.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from babel.dates import format_datetime
from chainlit.types import FeedbackDict, ThreadDict

from agent.page.columns import Comparison
from agent.page.language import number, say
from agent.storage.threads import judged, text_of, turns
from agent.templates import Language


def markdown(thread: ThreadDict, to: Language) -> str:
    """The whole conversation. What people and models said is quoted: it is text, not layout."""
    parts = [
        f"# {_line(thread['name'] or say('export.untitled', to))}",
        say("export.begun", to, when=_when(thread["createdAt"], to)),
        say("export.no_doctor", to),
    ]
    given = [(step["id"], step["feedback"]) for step in thread["steps"] if step.get("feedback")]
    for question, replies in turns(thread["steps"]):
        opinions = {
            answer["id"]: feedback
            for step_id, feedback in given
            if (answer := judged(step_id, replies)) is not None
        }
        parts.append(f"## {say('export.patient', to)}, {_when(question['createdAt'], to)}")
        parts.append(_quoted(question["output"]))
        for reply in replies:
            about = reply.get("metadata") or {}
            name = str(reply.get("name") or "")
            if comparison := Comparison.of(about):
                for column in comparison.columns:
                    parts += _answer(name, column.about(), column.answer, to)
            else:
                parts += _answer(name, about, text_of(reply), to)
            parts.append(_opinion(opinions.get(reply["id"]), to))
    return "\n\n".join(part for part in parts if part) + "\n"


def file_name(thread: ThreadDict) -> str:
    """Of the day and the thread's name, in the letters that every disk takes."""
    words = re.findall(r"[a-z0-9]+", (thread["name"] or "").lower())
    return "-".join(["medraft", thread["createdAt"][:10], *words[:6]]) + ".md"


def _answer(name: str, about: Mapping[str, Any], text: str, to: Language) -> list[str]:
    behaviour = f" ({about['behaviour']})" if about.get("behaviour") else ""
    return [f"## {_line(name)}{behaviour}", _quoted(text), _sources(about.get("sources"), to)]


def _sources(found: Sequence[Mapping[str, Any]] | None, to: Language) -> str:
    if not found:
        return ""
    lines = [f"{say('export.sources', to)}\n"]
    for place, source in enumerate(found, 1):
        title = _line(textwrap.shorten(str(source["title"]), 100, placeholder=" …"))
        about = say("sources.similarity", to, score=number(source["score"] or 0, 2, to))
        if source["use"] in ("unused", "left_out"):
            about = say("sources.not_used", to, source=about)
        lines += [f"{place}. {title}, {about}", f"   > {_line(str(source['doctor']))}"]
    return "\n".join(lines)


def _opinion(feedback: FeedbackDict | None, to: Language) -> str:
    if not feedback:
        return ""
    said = say("export.up" if feedback["value"] else "export.down", to)
    comment = _line(feedback["comment"] or "")
    return f"{said}: {comment}" if comment else said


def _when(stamp: str, to: Language) -> str:
    return format_datetime(datetime.fromisoformat(stamp), "long", locale=to)


def _line(text: str) -> str:
    """One line in which nothing is markup."""
    return re.sub(r"([\\`*_\[\]<>#|~!])", r"\\\1", " ".join(text.split()))


def _quoted(text: str) -> str:
    """Its lines, each a line of a quotation in which nothing is markup."""
    return "\n".join(_quoted_line(line) for line in text.splitlines())


def _quoted_line(line: str) -> str:
    said = re.sub(r"([\\`*_\[\]<&|~])", r"\\\1", line.strip())
    # What only begins a line: headings, lists, quotations and rules.
    said = re.sub(r"^(\d*)([#>+\-=.)])", r"\1\\\2", said)
    # Two spaces keep the lines apart in a viewer.
    return f"> {said}  " if said else ">"
