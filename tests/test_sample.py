"""What can be guarded of the corpus that ships, and of the conversations beside it."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from agent.finetuning.examples import CONVERSATIONS, MEDICINES
from index_store import SAMPLE
from index_store.device import multiplies_bf16
from index_store.embedding import embed_texts
from index_store.split import split

if TYPE_CHECKING:
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

FILES = sorted(SAMPLE.glob("*.jsonl"))
ROWS = [json.loads(line) for path in FILES for line in path.read_text("utf-8").splitlines()]
TALKS = [
    json.loads(line)
    for path in (CONVERSATIONS, MEDICINES)
    for line in path.read_text("utf-8").splitlines()
]
COLUMNS = ["Description", "Patient", "Doctor", "condition", "specialty"]


def words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


def sentences(text: str) -> list[str]:
    return [sentence.strip().lower() for sentence in re.split(r"(?<=[.!?])\s+", text)]


def grams(text: str, n: int) -> set[tuple[str, ...]]:
    listed = words(text)
    return {tuple(listed[i : i + n]) for i in range(len(listed) - n + 1)}


def test_size_labels_and_lengths() -> None:
    conditions = Counter((row["specialty"], row["condition"]) for row in ROWS)
    assert len(ROWS) >= 600
    assert len({specialty for specialty, _ in conditions}) >= 20
    assert len({condition for _, condition in conditions}) == len(conditions) >= 120
    assert min(conditions.values()) >= 4
    for path in FILES:
        for row in map(json.loads, path.read_text("utf-8").splitlines()):
            assert list(row) == COLUMNS
            assert row["specialty"].replace(" ", "_") == path.stem
            assert 60 <= len(row["Doctor"].split()) <= 180
            assert 10 <= len(row["Patient"].split()) <= 130
            assert row["Description"].startswith("Q. ") and row["Description"].endswith("?")


def test_every_patient_is_another() -> None:
    for column in ("Description", "Patient", "Doctor"):
        assert len({" ".join(words(row[column])) for row in ROWS}) == len(ROWS)


def test_no_sentence_is_shared() -> None:
    said = Counter(sentence for row in ROWS for sentence in set(sentences(row["Doctor"])))
    assert [sentence for sentence, count in said.items() if count > 1] == []


def test_no_reply_is_another_with_words_swapped() -> None:
    replies = [grams(row["Doctor"], 3) for row in ROWS]
    for i, one in enumerate(replies):
        for other in replies[:i]:
            assert len(one & other) / len(one | other) < 0.1


def test_no_sentence_frame_stands_in_more_than_a_small_share() -> None:
    openings = Counter(
        opening
        for row in ROWS
        for opening in {tuple(words(s)[:4]) for s in sentences(row["Doctor"])}
        if len(opening) == 4
    )
    runs = Counter(gram for row in ROWS for gram in grams(row["Doctor"], 6))
    assert openings.most_common(1)[0][1] <= 0.02 * len(ROWS), openings.most_common(5)
    assert runs.most_common(1)[0][1] <= 0.02 * len(ROWS), runs.most_common(5)


def test_no_two_patients_are_near_duplicates_to_the_embedding_model(
    embedding: HuggingFaceEmbedding,
) -> None:
    with torch.autocast("cpu", torch.bfloat16, multiplies_bf16()):
        vectors = embed_texts(embedding, [row["Patient"] for row in ROWS])
    cosines = np.triu(vectors @ vectors.T, k=1)
    worst = np.unravel_index(cosines.argmax(), cosines.shape)
    assert cosines[worst] < 0.93, [ROWS[i]["Patient"] for i in worst]


def test_every_condition_is_trained_on_and_the_parts_share_no_patient() -> None:
    parts: dict[str, set[str]] = {"train": set(), "validation": set(), "test": set()}
    for row in ROWS:
        parts[split(row["Patient"])].add(row["condition"])
    assert parts["train"] == {row["condition"] for row in ROWS}
    assert len(parts["test"]) >= 40


def test_a_patient_belongs_to_the_same_part_cleaned_or_not() -> None:
    assert split("Hello, I am 30!") == split("  hello i am\n30")
    for row in ROWS[:60]:
        as_it_was = f"<p>{row['Patient']}<br/>&nbsp;Thanks&#39;\u200b</p>"
        assert split(as_it_was) == split(f"{row['Patient']} Thanks'")


def test_conversations_alternate_and_repeat_nothing() -> None:
    kinds = Counter(talk["kind"] for talk in TALKS)
    assert len(TALKS) >= 100 and min(kinds.values()) >= 8
    answers = []
    for talk in TALKS:
        roles = [message["role"] for message in talk["messages"]]
        assert roles[0] == "user" and roles[-1] == "assistant"
        assert all(one != other for one, other in pairwise(roles))
        answers += [m["content"] for m in talk["messages"] if m["role"] == "assistant"]
    assert len({" ".join(words(answer)) for answer in answers}) == len(answers)
    corpus = [grams(row["Doctor"], 5) for row in ROWS]
    for answer in answers:
        own = grams(answer, 5)
        assert all(len(own & reply) <= 0.2 * max(1, len(own)) for reply in corpus)
