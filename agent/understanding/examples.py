"""The labelled messages in `data/` that the encoder learns from, and what is made of them.

Owns their form, which are held out, and the joined and varied ones. Does not know how the encoder
learns.

A row has a `text`, and of `degree`, `kind`, `topic` and `stands` (agent.understanding.labels) what
is known; `topic` may be "unhealthy": any but health. With `before`, messages of {"role",
"content"}, it goes on from them.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

from agent.understanding.labels import HEADS, Said, Stands

DATA = Path(__file__).parent / "data"
OLD = ("triage", "triage_dev", "router", "router_dev")  # short messages of an earlier hand
Row = dict[str, Any]
_SENTENCE = re.compile(r"(?<=[.!?\n])\s+")


def examples(folder: Path = DATA) -> list[Row]:
    """All labelled messages."""
    return [
        json.loads(line)
        for path in sorted(folder.glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


def said(row: Row) -> Said:
    """A row as the encoder reads it."""
    return Said.last_of([*row.get("before", []), {"role": "user", "content": row["text"]}])


def is_held_out(row: Row) -> bool:
    """Whether a letter or turn is left for validation: one in ten, by its words."""
    return row["author"] not in OLD and crc32(row["text"].encode()) % 10 == 0


def epoch(rows: Sequence[Row], chance: random.Random) -> list[Row]:
    """The rows of one pass, and what is made of them: two messages as one, an emergency within a
    letter about something else, a letter in two turns, a new matter after another one, slips of the
    keyboard."""
    seen = [*rows]
    for language in ("en", "es"):
        single = [
            r for r in rows if r["language"] == language and "degree" in r and "before" not in r
        ]
        short = [r for r in single if r.get("length") != "letter"]
        urgent = [r for r in short if r["degree"] == "now"]
        calm = [r for r in short if r["degree"] == "none"]
        letters = [r for r in single if r.get("length") == "letter"]
        plain = [r for r in letters if r["degree"] == "none" and r.get("topic") == "health"]
        for _ in range(len(urgent) // 4):
            other = chance.choice(calm)
            seen.append(_joined([other, chance.choice(urgent)], chance))
            seen.append(_joined([other, chance.choice(calm)], chance))
        for _ in range(len(plain) // 2):
            seen.append(_inserted(chance.choice(plain), chance.choice(urgent), chance))
            seen.append(_inserted(chance.choice(plain), chance.choice(calm), chance))
        health = [row for row in single if row.get("topic") == "health"]
        replies = [
            said(row).reply for row in rows if row["language"] == language and "before" in row
        ]
        for letter in chance.sample(plain, len(plain) // 2) if replies else ():
            seen.append(_gone_on(letter, chance.choice(replies), chance))
            before, new = chance.choice(health), chance.choice(health)
            seen.append(_after(before["text"], chance.choice(replies), new["text"], "opens"))
    chance.shuffle(seen)
    return [{**row, "text": _slipped(row["text"], chance)} for row in seen]


def _joined(parts: list[Row], chance: random.Random) -> Row:
    """Two messages as one: as urgent as the more urgent of them."""
    most = max(parts, key=lambda row: HEADS["degree"].index(row["degree"]))
    chance.shuffle(parts)
    made: Row = {"text": chance.choice([". ", " ", "\n", ", "]).join(p["text"] for p in parts)}
    return made | {key: most[key] for key in ("degree", "kind") if key in most}


def _inserted(letter: Row, short: Row, chance: random.Random) -> Row:
    """A short message somewhere within a letter."""
    sentences = _SENTENCE.split(letter["text"])
    place = chance.randrange(len(sentences) + 1)
    text = " ".join([*sentences[:place], short["text"].rstrip(".") + ".", *sentences[place:]])
    return {"text": text} | {key: short[key] for key in ("degree", "kind") if key in short}


def _gone_on(letter: Row, reply: str, chance: random.Random) -> Row:
    """A letter as two turns, the second of one sentence at least."""
    sentences = _SENTENCE.split(letter["text"])
    place = chance.randrange(1, max(2, len(sentences)))
    first, second = " ".join(sentences[:place]), " ".join(sentences[place:])
    return _after(first, reply, second or sentences[-1], "follows")


def _after(before: str, reply: str, text: str, stands: Stands) -> Row:
    """A health message after another one and a doctor's reply, be it to somebody else."""
    talk = [{"role": "user", "content": before}, {"role": "assistant", "content": reply}]
    return {"before": talk, "text": text, "topic": "health", "stands": stands}


def _slipped(text: str, chance: random.Random) -> str:
    """One text in three with a few letters lost, doubled or exchanged."""
    if chance.random() > 0.33:
        return text
    letters = list(text)
    for _ in range(max(1, len(letters) // 80)):
        place = chance.randrange(len(letters))
        match chance.randrange(3):
            case 0:
                letters[place] = ""
            case 1:
                letters[place] *= 2
            case 2 if place + 1 < len(letters):
                letters[place], letters[place + 1] = letters[place + 1], letters[place]
    return "".join(letters) or text
