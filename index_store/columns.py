"""Which of a row's values are title, question and reply.

Owns how columns are named (`--columns`), also inside of others and of lists of messages. Does not
know where rows come from.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from index_store.errors import StoreError

NAMES = ("Description", "Patient", "Doctor")
HELP = "`--columns Description=title,Patient=question,Doctor=answer`"
# Lists of messages as fine-tuning wants them, and what they call the two who speak.
MESSAGES = ("messages", "conversations", "conversation")
ROLES = {"Patient": ("user", "human", "patient"), "Doctor": ("assistant", "gpt", "doctor")}


class NotText(Exception):
    """A value that is no text; the message is its kind."""


@dataclass(frozen=True)
class Columns:
    """What a source calls the three columns; without a `description` it is called so, or not there.

    A name with dots leads into the columns that it names: `answer.text`, `turns.0`, and
    `messages.user`, which is the first message of that role.
    """

    description: str | None = None
    patient: str = "Patient"
    doctor: str = "Doctor"

    @classmethod
    def parse(cls, text: str) -> Columns:
        """Read `Description=title,Patient=question,Doctor=answer`; what is left out keeps its name,
        and a Description that is left out need not be there.

        Raises StoreError for any other form.
        """
        names: dict[str, str] = {}
        for pair in text.split(","):
            column, _, name = (part.strip() for part in pair.partition("="))
            if column.capitalize() not in NAMES or not name or column.lower() in names:
                raise StoreError(f"--columns does not take {pair.strip()!r}: write {HELP}.")
            names[column.lower()] = name
        return cls(**names)

    def missing(self, names: Collection[str]) -> list[str]:
        """Of the columns that must be there, those that are not among `names`."""
        if self._by_messages(names):
            return []
        wanted = [self.description, self.patient, self.doctor]
        known = {name.strip() for name in names}
        return [
            name
            for name in wanted
            if name is not None and name not in known and name.split(".")[0] not in known
        ]

    def wanted(self) -> set[str]:
        """The columns of a row that are looked at."""
        names = (self.description or NAMES[0], self.patient, self.doctor)
        return {part for name in names for part in (name, name.split(".")[0])}

    def texts(self, row: Mapping[str, object]) -> tuple[str, str, str]:
        """Title, question and reply of a row, "" where there is none. Raises NotText."""
        patient, doctor = self.patient, self.doctor
        if messages := self._by_messages(row):
            patient = doctor = messages
        return (
            _text(_value(row, self.description or NAMES[0]), NAMES[0]),
            _text(_value(row, patient), NAMES[1]),
            _text(_value(row, doctor), NAMES[2]),
        )

    def _by_messages(self, names: Iterable[str]) -> str | None:
        """The list of messages, if that is all there is and nobody named another column."""
        if self.patient != NAMES[1] or self.doctor != NAMES[2]:
            return None
        known = {name.strip() for name in names}
        if {self.patient, self.doctor} & known:
            return None
        return next((name for name in MESSAGES if name in known), None)


def _value(row: Mapping[str, object], name: str) -> object:
    if name in row:
        return row[name]
    for key, value in row.items():
        if key.strip() == name:
            return value
    column, _, inside = name.partition(".")
    return _inside(_value(row, column), inside) if inside else None


def _inside(value: object, path: str) -> object:
    step, _, rest = path.partition(".")
    if isinstance(value, Mapping):
        return _value(value, path)
    if not isinstance(value, list):
        return None
    if step.isdecimal():
        found = value[int(step)] if int(step) < len(value) else None
    else:
        found = _said(value, (step,))
    return _inside(found, rest) if rest else found


def _said(messages: list[object], roles: tuple[str, ...]) -> object:
    """The first message of one of these roles; None if there is none, or these are no messages."""
    for message in messages:
        if isinstance(message, Mapping):
            role = message.get("role", message.get("from"))
            if isinstance(role, str) and role.lower() in roles:
                return message.get("content", message.get("value"))
    return None


def _text(value: object, column: str) -> str:
    if isinstance(value, list) and column in ROLES and any(isinstance(m, Mapping) for m in value):
        value = _said(value, ROLES[column])
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    raise NotText(f"{column} is not text but {type(value).__name__}")
