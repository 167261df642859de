"""What a retriever learns from: which text should find which, and which it should not.

Owns the kinds of pairs, the labels that say whose replies answer the same problem, and the mined
negatives. Knows nothing of the training, nor of how an index is searched.

A row's label is what a column of the data set says, such as the condition; a row without one is
alone with its label, and its question has its own reply only.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agent.errors import AgentError
from agent.finetuning.recipe import RetrieverRecipe
from index_store.cleaning import Cleaning, clean
from index_store.columns import Columns
from index_store.dataset import Dialogue, MissingColumns, read_rows
from index_store.errors import StoreError
from index_store.faults import Faults
from index_store.lines import json_lines
from index_store.node import searched_text
from index_store.split import Split, split

LEAST = {"train": 40, "validation": 3, "test": 3}  # rows without which there is nothing to learn
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True)
class Row:
    """A dialogue with its label, and whether other rows may have that, too."""

    dialogue: Dialogue
    label: str
    named: bool

    @property
    def text(self) -> str:
        """What an index embeds of it."""
        return searched_text(self.dialogue)


@dataclass(frozen=True)
class Letter:
    """What another patient wrote, with its label and, where there is one (else ""), the reply; it
    is never searched in, and learned from unless it is held out to measure by."""

    patient: str
    doctor: str
    label: str
    held_out: bool = False


@dataclass(frozen=True)
class Question:
    """What searches, the label that it should find, and the id of its own row ("" if none)."""

    text: str
    label: str
    row: str


def questions(held_out: Sequence[Row], letters: Sequence[Letter]) -> list[Question]:
    """Those of the rows that have a label, and of the letters that are held out as well."""
    rows = [row for row in held_out if row.named]
    asked = [Question(row.dialogue.patient, row.label, row.dialogue.id) for row in rows]
    return asked + [Question(each.patient, each.label, "") for each in letters if each.held_out]


@dataclass(frozen=True)
class Pair:
    """Two texts that should be near, the label they are about, and a row that should not be."""

    label: str
    anchor: str
    positive: str
    negative: Row | None


def read(
    source: str, columns: Columns, limit: int | None, label: str | None
) -> tuple[dict[Split, list[Row]], Cleaning]:
    """The cleaned rows of a source by their part, labelled by the column `label` if one is named,
    and what was left out.

    Raises StoreError as `read_rows` does, and AgentError if there is no such column, or too few
    rows or labels.
    """
    faults = Faults()
    dialogues, cleaning = clean(read_rows(source, columns, limit, faults=faults), faults)
    labels = {} if label is None else _labels(source, columns, limit, label)
    parts: dict[Split, list[Row]] = {"train": [], "validation": [], "test": []}
    for dialogue in dialogues:
        named = labels.get((dialogue.patient, dialogue.doctor), "")
        row = Row(dialogue, named or dialogue.id, bool(named))
        parts[split(dialogue.patient)].append(row)
    few = [f"{len(parts[part])} to {part}" for part in parts if len(parts[part]) < LEAST[part]]
    if few:
        raise AgentError(
            f"{source} has too few dialogues to teach a retriever ({cleaning}; "
            f"{', '.join(few)}): some 100 are the least, give a larger --source or --limit."
        )
    return parts, cleaning


def _labels(
    source: str, columns: Columns, limit: int | None, label: str
) -> dict[tuple[str, str], str]:
    """What a column says of each cleaned row, by question and reply; a number by its text."""
    labelled = replace(columns, description=label, any_title=True)
    try:
        rows = list(read_rows(source, labelled, limit, faults=Faults()))
    except MissingColumns as error:
        raise AgentError(
            f"{source} has no column {label} to be the --label; it has {', '.join(error.there)}: "
            "name one of those, or leave it out."
        ) from None
    told = {row: " ".join(row.title.split()) for row in rows}
    cleaned = {row: clean([row])[0] for row in told}
    return {(kept[0].patient, kept[0].doctor): told[row] for row, kept in cleaned.items() if kept}


def read_letters(path: Path, label: str) -> list[Letter]:
    """Letters from JSON lines with `patient`, the column `label` and, if it likes, `doctor` and
    `held_out`. A number as the label is taken by its text; empty lines are passed over.

    Raises AgentError for a file that is not so.
    """
    try:
        lines = [*json_lines(path)]
    except StoreError as error:
        raise AgentError(str(error)) from None
    letters = []
    for number, row in lines:
        if (letter := _letter(row, label)) is None:
            raise AgentError(
                f"{path} holds no --letters (line {number}): they are JSON lines with texts as "
                f"`patient` and `{label}`, and if you like as `doctor`; `held_out` is true or "
                "false."
            )
        letters.append(letter)
    return letters


def _letter(row: object, label: str) -> Letter | None:
    """What a line holds; None if it is no letter."""
    if not isinstance(row, dict):
        return None
    patient, doctor, told = row.get("patient"), row.get("doctor"), row.get(label)
    held_out = row.get("held_out", False)
    if not (isinstance(patient, str) and isinstance(doctor, str | None)):
        return None
    if not (isinstance(told, str | int | float) and isinstance(held_out, bool)):
        return None
    return Letter(patient, doctor or "", str(told), held_out)


def draw(
    rows: Sequence[Row],
    recipe: RetrieverRecipe,
    negatives: Mapping[str, Sequence[Row]],
    letters: Sequence[Letter] = (),
) -> list[Pair]:
    """All that a run sees, in its order; `negatives` are the mined ones by the id of a row, and a
    row that has none gets no pair, unless nobody has any.

    Each round draws for each row anew: its question to another row of its label, once as a whole,
    once to a part of it; its question or its title to its own reply; and half the time, question
    or reply to the label's own words. Half the questions lose some of their sentences, as another
    patient would not have said them.
    """
    chance = random.Random(recipe.seed)
    alike: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        alike[row.label].append(row)
    letters = [letter for letter in letters if not letter.held_out]
    same: dict[str, list[Letter]] = defaultdict(list)
    for letter in letters:
        same[letter.label].append(letter)
    drawn = []
    for _ in range(recipe.rounds):
        for row in rows:
            mined = negatives.get(row.dialogue.id, ())
            others = [other for other in alike[row.label] if other is not row]
            for anchor, positive in _texts(row, others, chance):
                drawn.append(
                    Pair(row.label, anchor, positive, chance.choice(mined) if mined else None)
                )
        for letter in letters:
            texts = [letter.doctor] if letter.doctor else []
            texts += [row.text for row in alike.get(letter.label, ())]
            texts += [each.patient for each in same[letter.label] if each is not letter]
            if texts:
                anchor = _cropped(letter.patient, chance)
                drawn.append(Pair(letter.label, anchor, chance.choice(texts), None))
    if negatives:
        drawn = [pair for pair in drawn if pair.negative]
    chance.shuffle(drawn)
    return drawn


def _texts(row: Row, others: Sequence[Row], chance: random.Random) -> list[tuple[str, str]]:
    dialogue = row.dialogue
    pairs = []
    if others:
        pairs.append((_cropped(dialogue.patient, chance), chance.choice(others).text))
        other = chance.choice(others)
        part = chance.choice([other.dialogue.doctor, other.dialogue.patient, other.text])
        pairs.append((_cropped(dialogue.patient, chance), part))
    own = chance.choice([dialogue.title, _cropped(dialogue.patient, chance)])
    pairs.append((own, dialogue.doctor))
    if row.named and chance.random() < 0.5:
        pairs.append((chance.choice([dialogue.patient, dialogue.doctor]), row.label))
    return pairs


def _cropped(text: str, chance: random.Random) -> str:
    """Half the time a text without some of its sentences, of which half are left at least."""
    said = [sentence for sentence in _SENTENCE.split(text) if sentence.strip()]
    if len(said) < 3 or chance.random() < 0.5:
        return text
    kept = sorted(chance.sample(range(len(said)), chance.randint(len(said) // 2, len(said) - 1)))
    return " ".join(said[place] for place in kept)
