"""Which of a row's values are title, question and reply.

Owns how columns are named (`--columns`), also inside of others and of lists of messages. Does not
know where rows come from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from index_store.errors import StoreError

NAMES = ("Description", "Patient", "Doctor")
HELP = "`--columns Description=title,Patient=question,Doctor=answer`"
# Lists of messages as fine-tuning wants them, and what they call the two who speak.
MESSAGES = ("messages", "conversations", "conversation")
ROLES = {
    "Patient": ("user", "human", "patient"),
    "Doctor": ("assistant", "gpt", "doctor", "ai", "bot", "chatbot", "model"),
}


class NotText(Exception):
    """A value that is no text; the message is its kind."""


@dataclass(frozen=True)
class Columns:
    """What a source calls the three columns. Without a `description` there is no title, or, if
    `described`, that of a column Description if there is one. A title that is no text, as a number,
    cannot be used, or if `any_title`, is what `str` makes of it.

    A name with dots leads into the columns that it names: `answer.text`, `turns.0`, and
    `messages.user`, which is the first message of that role. A reply comes after a question: an
    assistant who greets first is passed over.
    """

    description: str | None = None
    patient: str = "Patient"
    doctor: str = "Doctor"
    described: bool = True
    any_title: bool = False

    @classmethod
    def parse(cls, text: str) -> Columns:
        """Read `Description=title,Patient=question,Doctor=answer`; what is left out keeps its name,
        and without Description there is no title.

        Raises StoreError for any other form.
        """
        names: dict[str, str] = {}
        for pair in text.split(","):
            column, _, name = (part.strip() for part in pair.partition("="))
            if column.capitalize() not in NAMES or not name or column.lower() in names:
                raise StoreError(f"--columns does not take {pair.strip()!r}: write {HELP}.")
            names[column.lower()] = name
        return cls(**names, described=False, any_title=False)

    def missing(self, names: Collection[str]) -> list[str]:
        """Of the columns that must be there, those that are not among `names`."""
        if self._by_messages(names):
            return []
        wanted = [self.description, self.patient, self.doctor]
        known = {name.strip() for name in names}
        return [name for name in wanted if name is not None and name not in known]

    def names(self, row: Mapping[str, object]) -> Iterator[str]:
        """The columns of a row, also those inside of others that are wanted, or lie beside them."""
        yield from row
        for name in (self.description, self.patient, self.doctor):
            if name is not None and name not in row and "." in name:
                yield from [name] if _found(row, name) else _beside(row, name)

    def wanted(self) -> set[str]:
        """The columns of a row that are looked at."""
        names = [self._title(), self.patient, self.doctor, *MESSAGES]
        return {part for name in names if name for part in (name, name.split(".")[0])}

    def texts(self, row: Mapping[str, object]) -> tuple[str, str, str]:
        """Title, question and reply of a row, "" where there is none. Raises NotText."""
        name = self._title()
        title = _text(_found(row, name) if name else [], NAMES[0], self.any_title)
        if messages := self._by_messages(row):
            (value,) = _found(row, messages)
            listed = _listed(value)
            if isinstance(value, str) and value and not listed:
                raise NotText(f"{messages} is text, but no list of messages in JSON")
            patient = doctor = [listed or value]
        else:
            patient, doctor = _found(row, self.patient), _found(row, self.doctor)
        return title, _text(patient, NAMES[1]), _text(doctor, NAMES[2])

    def _title(self) -> str | None:
        return self.description or (NAMES[0] if self.described else None)

    def _by_messages(self, names: Iterable[str]) -> str | None:
        """The list of messages, if that is all there is and nobody named another column."""
        if self.patient != NAMES[1] or self.doctor != NAMES[2]:
            return None
        known = {name.strip() for name in names}
        if {self.patient, self.doctor} & known:
            return None
        return next((name for name in MESSAGES if name in known), None)


def _found(value: object, path: str) -> list[object]:
    """What lies at `path` inside of `value`, alone in a list; [] if there is nothing."""
    step, _, rest = path.partition(".")
    if isinstance(value, Mapping):
        for key in (path, *value):
            if key in value and key.strip() == path:
                return [value[key]]
        found = _found(value, step) if rest else []
    elif step.isdecimal():
        found = _listed(value)[int(step) :][:1]
    else:
        said = _said(_listed(value), (step.lower(),))
        found = [] if said is None else [said]
    return _found(found[0], rest) if found and rest else found


def _beside(row: Mapping[str, object], name: str) -> list[str]:
    """What could have been named instead of what is not there."""
    head, _, _ = name.rpartition(".")
    if not head:
        return []
    if not (found := _found(row, head)):
        return _beside(row, head)
    if isinstance(found[0], Mapping):
        steps = [*map(str, found[0])]
    else:
        listed = _listed(found[0])
        steps = [role for role in map(_role, listed) if role] or ["0"][: len(listed)]
    return [f"{head}.{step}" for step in steps]


def _listed(value: object) -> list[object]:
    """A list, as it is or as JSON; else []."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return []
    return value if isinstance(value, list) else []


def _role(message: object) -> str | None:
    """Who says a message; None if it is none."""
    if isinstance(message, Mapping):
        for key in ("role", "from", "speaker"):
            if isinstance(role := message.get(key), str):
                return role.strip().lower()
    return None


def _said(messages: list[object], roles: tuple[str, ...]) -> object:
    """The first that is said by one of these roles, if it is the doctor's after a patient's.

    None if there is nothing, or these are no messages.
    """
    early = {*roles} <= {*ROLES["Doctor"]} and any(
        _role(message) in ROLES["Patient"] for message in messages
    )
    for message in messages:
        role = _role(message)
        early = early and role not in ROLES["Patient"]
        if role in roles and not early and (said := _content(message)):
            return said
    return None


def _content(message: object) -> object:
    """What a message says; of several parts those that are text."""
    said = None
    if isinstance(message, Mapping):
        keys = ("content", "value", "text", "parts")
        said = next((message[key] for key in keys if key in message), None)
    if not isinstance(said, list):
        return said
    texts = (part.get("text") if isinstance(part, Mapping) else part for part in said)
    return "\n".join(text for text in texts if isinstance(text, str))


def _text(found: list[object], column: str, any_kind: bool = False) -> str:
    value = found[0] if found else None
    if column in ROLES and (roles := {*map(_role, listed := _listed(value))} - {None}):
        if not roles & {role for known in ROLES.values() for role in known}:
            raise NotText(f"{column} is messages by {', '.join(map(str, roles))} alone")
        value = _said(listed, ROLES[column])
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if any_kind:
        return str(value)
    raise NotText(f"{column} is not text but {type(value).__name__}")
