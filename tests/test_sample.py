"""What can be guarded of the corpus that ships."""

from __future__ import annotations

import json
import re
from collections import Counter

from index_store import SAMPLE

ROWS = [
    json.loads(line)
    for path in sorted(SAMPLE.glob("*.jsonl"))
    for line in path.read_text(encoding="utf-8").splitlines()
]


def test_size_and_columns() -> None:
    assert len(ROWS) >= 150
    conditions = Counter(row["condition"] for row in ROWS)
    assert len(conditions) >= 30 and min(conditions.values()) >= 4
    for row in ROWS:
        assert list(row) == ["Description", "Patient", "Doctor", "condition", "specialty"]
        assert 60 <= len(row["Doctor"].split()) <= 180


def test_no_sentence_is_shared() -> None:
    sentences = Counter(
        sentence.strip().lower()
        for row in ROWS
        for sentence in re.split(r"(?<=[.!?])\s+", row["Doctor"])
    )
    assert [sentence for sentence, count in sentences.items() if count > 1] == []


def test_no_reply_is_another_with_words_swapped() -> None:
    def shingles(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+", text.lower())
        return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}

    replies = [shingles(row["Doctor"]) for row in ROWS]
    for i, one in enumerate(replies):
        for other in replies[:i]:
            assert len(one & other) / len(one | other) < 0.1
