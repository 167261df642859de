"""A stored conversation: who said what, which of it was remembered, what answers were.

Owns the meaning of a thread's steps, how a row of the database is one of them, which text can
stand in one, and how threads are searched. Does not know how they come there, nor who reads them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import RowMapping, Select, and_, exists, func, or_, select, tuple_

from agent.storage.database import feedbacks, steps, threads, users

Saved = Mapping[str, Any]  # a step, as Chainlit has it
# Of a search: SQLite takes no expression of a thousand parts, and no pattern of 50,000 bytes.
WORDS = 50
LETTERS = 5_000
NAME = 60  # characters of a thread's name
MESSAGES = ("user_message", "assistant_message")  # the types of what can be searched
COMPARISON = "comparison"  # the key of the metadata of a message that compares
COLUMNS = {"id": "id", "threadId": "thread_id", "createdAt": "created_at", "type": "type"}


def threads_of(
    user_id: str | None, search: str, feedback: int | None, after: str | None
) -> Select[Any]:
    """The query for a user's threads, the one last spoken in first: those in whose name or messages
    each of the first `WORDS` words of the first `LETTERS` characters of `search` stands, with a
    feedback of that value, after the thread `after`."""
    query = select(threads, users.c.identifier).join(users).where(threads.c.user_id == user_id)
    own = steps.c.thread_id == threads.c.id
    words = list(dict.fromkeys(search[:LETTERS].lower().split()))[:WORDS]
    for word in words:
        named = func.lower(threads.c.name).contains(word, autoescape=True)
        said = func.lower(steps.c.output).contains(word, autoescape=True)
        query = query.where(or_(named, exists().where(own, steps.c.type.in_(MESSAGES), said)))
    if feedback is not None:
        given = and_(own, feedbacks.c.step_id == steps.c.id)
        query = query.where(exists().where(given, feedbacks.c.value == feedback))
    order = (threads.c.updated_at, threads.c.id)
    if after:
        place = select(*order).where(threads.c.id == after)
        query = query.where(tuple_(*order) < place.scalar_subquery())
    return query.order_by(*(column.desc() for column in order))


def owner_of(step_id: str, feedback_id: str) -> Select[Any]:
    """The query for the identifier of the user in whose thread the feedback, or else the step,
    stands."""
    query = select(users.c.identifier).select_from(users).join(threads).join(steps)
    if feedback_id:
        return query.join(feedbacks).where(feedbacks.c.id == feedback_id)
    return query.where(steps.c.id == step_id)


def steps_of(thread_id: str) -> Select[Any]:
    """The query for a thread's steps with their feedback, in the order in which they began."""
    return (
        select(steps, feedbacks.c.id.label("feedback_id"), feedbacks.c.value, feedbacks.c.comment)
        .join(feedbacks, isouter=True)
        .where(steps.c.thread_id == thread_id)
        .order_by(steps.c.created_at)
    )


def step_of(row: RowMapping) -> dict[str, Any]:
    """A row of `steps_of` as a step."""
    step = dict(row["rest"]) | {key: row[column] for key, column in COLUMNS.items()}
    step["output"] = row["output"]
    if row["feedback_id"] is not None:
        step["feedback"] = {
            "id": row["feedback_id"],
            "forId": row["id"],
            "value": row["value"],
            "comment": row["comment"],
        }
    return step


def remembered(steps: Sequence[Saved]) -> list[tuple[str, str]]:
    """What was said, as role and text, as the engine remembers it.

    A message counts if an answer or an emergency notice came after it: what only failed, and what
    was only compared, was not remembered either.
    """
    memory: list[tuple[str, str]] = []
    for question, replies in turns(steps):
        said = [reply for reply in replies if is_answer(reply) or _is_notice(reply)]
        if said and not question.get("command"):
            memory.append(("user", question["output"]))
            memory.append(("assistant", "\n\n".join(text_of(reply) for reply in said)))
    return memory


def turns(steps: Sequence[Saved]) -> list[tuple[Saved, list[Saved]]]:
    """Each message of the patient with what was said below it, in its order: answers, notices and
    comparisons."""
    found: list[tuple[Saved, list[Saved]]] = []
    below: dict[Any, list[Saved]] = {}  # by the ids of steps
    for step in steps:
        if step["type"] == "user_message":
            found.append((step, []))
        if found:
            # An answer that was taken over later stands below its message, too.
            replies = below[step["id"]] = below.get(step.get("parentId"), found[-1][1])
            if step["type"] == "assistant_message" or COMPARISON in (step.get("metadata") or {}):
                replies.append(step)
    return found


def judged(step_id: str, replies: Sequence[Saved]) -> Saved | None:
    """Which of the replies a feedback on this step means: Chainlit's page gives it to the run in
    which an answer came."""
    means = [r for r in replies if step_id == r["id"] or step_id == r.get("parentId")]
    answers = [reply for reply in means if is_answer(reply)]
    return next(reversed(answers or means), None)


def is_answer(step: Saved) -> bool:
    """Whether this message is an answer, and not a notice or an error of the page."""
    return "behaviour" in (step.get("metadata") or {})


def text_of(step: Saved) -> str:
    """What was said, without what the screen adds to an answer."""
    return str((step.get("metadata") or {}).get("answer") or step["output"]).strip()


def shortened(name: str) -> str:
    """A thread's name: one line, cut at a word, or in the word if that is all there is."""
    line = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    cut = textwrap.shorten(line, NAME, placeholder=" …")
    return cut if cut != "…" else line[: NAME - 1] + "…"


def storable(value: Any) -> Any:
    """`value` without what Postgres cannot store as text: NUL, and halves of a UTF-16 pair."""
    match value:
        case str():
            return value.replace("\0", "").encode("utf-8", "replace").decode()
        case dict():
            return {storable(key): storable(held) for key, held in value.items()}
        case list() | tuple():
            return [storable(held) for held in value]
    return value


def _is_notice(step: Saved) -> bool:
    return "notice" in (step.get("metadata") or {})
