"""What a comparison is, and how it looks: a column for each behaviour.

Owns the data that are kept of a comparison, the props that public/elements/Compare.jsx draws, and
the button that asks for one. Does not know where the answers come from, nor what becomes of one
that is taken over.

A comparison is kept as the metadata of its message, not as a Chainlit element: those want a file
store, and write a file at each update. The element is made of the metadata, and so it can be made
again when the conversation is resumed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal
from uuid import NAMESPACE_OID, uuid5

import chainlit as cl
from chainlit.element import ElementDict
from chainlit.types import ThreadDict

from agent.behaviour import CHOICES, Behaviour
from agent.chat.events import Speaker
from agent.page import sources
from agent.page.language import number, say
from agent.page.sources import Payload
from agent.storage.threads import COMPARISON

COMPARE = "compare"  # the names by which Chainlit knows what a click calls
CONTINUE = "continue"

State = Literal["waiting", "running", "finished", "stopped", "failed"]


@dataclass
class Column:
    """One behaviour's answer, as far as it has come; `route`, `timing`, `sources` and
    `unsourced` as in the metadata of an answer."""

    behaviour: Behaviour
    state: State = "waiting"
    answer: str = ""
    note: str = ""
    failure: str = ""
    route: dict[str, Any] | None = None
    timing: dict[str, Any] | None = None
    sources: list[Payload] | None = None  # None: not looked up
    unsourced: list[int] = field(default_factory=list)
    answered_by: Speaker | None = None  # the LLM alone, where nothing fitted, or medraft itself

    def about(self) -> dict[str, Any]:
        """The metadata of the message that takes this answer over."""
        llm, retrieval = CHOICES[self.behaviour]
        about = {
            "llm": llm,
            "retrieval": retrieval,
            "route": self.route,
            "sources": self.sources,
            "timing": self.timing,
            "unsourced": self.unsourced,
            "answer": self.answer.strip(),
        }
        by = self.answered_by or self.behaviour
        known = {key: value for key, value in about.items() if value is not None}
        return {"behaviour": None if by == "medraft" else by, **known}


@dataclass
class Comparison:
    """What the patient's message `message_id` asks, the notice if that is an emergency, and the
    answers, of which one may be taken over."""

    message_id: str
    question: str
    notice: str = ""
    taken: Behaviour | None = None
    columns: list[Column] = field(default_factory=lambda: [Column(name) for name in CHOICES])

    @classmethod
    def of(cls, metadata: dict[str, Any] | None) -> Comparison | None:
        """The one that a message's metadata hold; an answer without an end was stopped."""
        if not metadata or COMPARISON not in metadata:
            return None
        kept = metadata[COMPARISON]
        comparison = cls(**kept | {"columns": [Column(**column) for column in kept["columns"]]})
        comparison.end()
        return comparison

    def metadata(self) -> dict[str, Any]:
        """What `of` reads."""
        return {COMPARISON: asdict(self)}

    def column(self, name: object) -> Column | None:
        """The column of a behaviour."""
        return next((column for column in self.columns if column.behaviour == name), None)

    def end(self) -> None:
        """No more is to come."""
        for column in self.columns:
            if column.state in ("waiting", "running"):
                column.state = "stopped"

    @property
    def ended(self) -> bool:
        """Whether no answer is still to come."""
        return all(column.state not in ("waiting", "running") for column in self.columns)


def button(message_id: str) -> cl.Action:
    """Compare, below the answer to a patient's message."""
    return cl.Action(
        id=f"compare-{message_id}",
        name=COMPARE,
        label=say("compare.all_four"),
        tooltip=say("compare.tooltip"),
        icon="columns-2",
        payload={"message": message_id},
    )


def element(message_id: str, thread_id: str, comparison: Comparison) -> ElementDict:
    """The element that stands in a comparison's message."""
    return ElementDict(
        id=str(uuid5(NAMESPACE_OID, message_id)),
        threadId=thread_id,
        type="custom",
        name="Compare",  # public/elements/Compare.jsx
        display="inline",
        forId=message_id,
        props={
            "id": message_id,
            "title": say("compare.title"),
            "status": _status(comparison),
            "columns": [_column(message_id, comparison, column) for column in comparison.columns],
        },
    )


def restore(thread: ThreadDict) -> None:
    """Put the elements of a thread's comparisons, as they were, among its elements."""
    elements = [
        element(step["id"], thread["id"], comparison)
        for step in thread["steps"]
        if (comparison := Comparison.of(step.get("metadata")))
    ]
    thread["elements"] = [*(thread.get("elements") or []), *elements]


def _status(comparison: Comparison) -> str:
    if comparison.taken:
        return say("compare.taken", behaviour=comparison.taken)
    if comparison.ended:
        stopped = any(column.state == "stopped" for column in comparison.columns)
        return say("compare.stopped" if stopped else "compare.ended")
    running = next(c for c in comparison.columns if c.state in ("waiting", "running"))
    place = comparison.columns.index(running) + 1
    return say("compare.running", behaviour=running.behaviour, number=place)


def _column(message_id: str, comparison: Comparison, column: Column) -> dict[str, Any]:
    found = column.sources or []
    buttons = sources.buttons(found, f"{message_id}-{column.behaviour}")
    taken = comparison.taken == column.behaviour
    if comparison.ended and column.answer and not taken:
        on = cl.Action(
            id=f"continue-{message_id}-{column.behaviour}",
            name=CONTINUE,
            label=say("compare.continue"),
            tooltip=say("compare.continue_about"),
            payload={"message": message_id, "behaviour": column.behaviour},
        )
        buttons.append(on)
    none = say("compare.no_source") if column.sources == [] else ""
    return {
        "name": column.behaviour,
        "about": say(f"compare.about_{column.behaviour.lower().replace('-', '_')}"),
        "note": column.note or none,
        "answer": sources.marked(column.answer, column.unsourced, markdown=False),
        "failure": column.failure,
        "facts": _facts(column),
        "busy": column.state == "running",
        "taken": taken,
        "buttons": [button.to_dict() for button in buttons],
    }


def _facts(column: Column) -> str:
    match column.state:
        case "waiting":
            return say("compare.waiting")
        case "running":
            return say("compare.answering")
        case "stopped":
            return say("compare.stopped_here" if column.answer else "compare.not_asked")
        case "failed":
            return ""
    timing = column.timing or {}
    if not column.answer or timing.get("first_token_ms") is None:
        return say("compare.nothing_said")
    return say(
        "compare.facts",
        first=number(timing["first_token_ms"] / 1000, 1),
        total=number(timing["total_ms"] / 1000, 1),
        tokens=timing["tokens"],
    )
