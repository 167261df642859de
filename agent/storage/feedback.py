"""What patients thought of answers, as rows for training and evaluation.

Owns what a row says. Does not know how a feedback is given, nor where the rows go.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, select

from agent.storage.database import feedbacks, steps
from agent.storage.threads import Saved, judged, remembered, step_of, steps_of, text_of, turns


def rows(connection: Connection) -> Iterator[dict[str, Any]]:
    """One object a feedback, the oldest first.

    `question`, `answer`, `behaviour`, `llm`, `retrieval`, `route` and `sources` as in `medraft ask
    --json`; `value` is "up" or "down", `comment` text or null, `at` the time (UTC, ISO 8601), and
    `before` what was said before the question: [{"role", "content"}, ...]. What was not an answer
    has null for what it does not have, and what medraft itself said in an emergency, in place of an
    LLM, has no behaviour.
    """
    query = select(feedbacks, steps.c.thread_id).join(steps).order_by(feedbacks.c.created_at)
    for given in connection.execute(query).all():
        found = connection.execute(steps_of(given.thread_id)).all()
        thread = [step_of(row._mapping) for row in found]
        earlier: list[Saved] = []
        for question, replies in turns(thread):
            answer = judged(given.step_id, replies)
            if answer is not None:
                about = answer.get("metadata") or {}
                yield {
                    "id": given.id,
                    "at": given.created_at,
                    "value": "up" if given.value else "down",
                    "comment": given.comment or None,
                    "question": question["output"],
                    "answer": text_of(answer),
                    **{
                        key: about.get(key)
                        for key in ("behaviour", "llm", "retrieval", "route", "sources")
                    },
                    "before": [
                        {"role": role, "content": text} for role, text in remembered(earlier)
                    ],
                }
                break
            earlier += [question, *replies]
