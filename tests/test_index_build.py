"""Building: what is reused, what a kill or a full disk leaves behind, who may build."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from llama_index.embeddings.huggingface import HuggingFaceEmbedding

from index_store import manifest as manifests
from index_store.build import Built, build
from index_store.changing import LOCK
from index_store.dataset import Dialogue
from index_store.embedding import EMBEDDED, embed_queries, identity
from index_store.errors import StoreError
from index_store.store import IndexStore

BuildIndex = Callable[[list[Dialogue], Path], Built]
Answers = list[list[tuple[str, float]]]


def answers(directory: Path, questions: list[str], vectors: np.ndarray) -> Answers:
    with IndexStore.open(directory, EMBEDDED) as store:
        return [
            [(hit.id, round(hit.score, 5)) for hit in store.search(question, vector, 3)]
            for question, vector in zip(questions, vectors, strict=True)
        ]


def names(directory: Path) -> list[str]:
    return sorted(path.name.split("-")[0] for path in directory.iterdir())


TIDY = ["build.lock", "generation", "manifest.json"]


def test_an_unchanged_rebuild_embeds_nothing(
    tmp_path: Path, dialogues: list[Dialogue], build_index: BuildIndex
) -> None:
    first = build_index(dialogues, tmp_path)
    second = build_index(dialogues[::-1], tmp_path)
    assert (first.embedded, first.reused) == (12, 0)
    assert (second.embedded, second.reused) == (0, 12)
    assert second.manifest.generation != first.manifest.generation
    assert names(tmp_path) == TIDY


def test_only_new_rows_are_embedded_and_vectors_follow_their_rows(
    tmp_path: Path,
    dialogues: list[Dialogue],
    build_index: BuildIndex,
    embedding: HuggingFaceEmbedding,
) -> None:
    build_index(dialogues[:7], tmp_path / "grown")
    grown = build_index(dialogues[:3:-1], tmp_path / "grown")
    assert (grown.embedded, grown.reused) == (5, 3)
    build_index(dialogues[:3:-1], tmp_path / "fresh")
    questions = [dialogue.title for dialogue in dialogues]
    vectors = embed_queries(embedding, questions)
    assert answers(tmp_path / "grown", questions, vectors) == answers(
        tmp_path / "fresh", questions, vectors
    )


def test_the_manifest_says_how_the_index_was_made(
    tmp_path: Path, dialogues: list[Dialogue]
) -> None:
    rows = [*dialogues, dialogues[0]]
    build(rows, tmp_path, EMBEDDED, source="rows.csv", limit=13, progress=False)
    manifest = manifests.read(tmp_path)
    (source,) = manifest.sources
    assert (source.name, source.limit, manifest.rows) == ("rows.csv", 13, 12)
    assert (manifest.embed_model, manifest.dimension) == (identity(EMBEDDED), 384)
    assert source.cleaning.dropped == {"duplicate": 1}
    folder = tmp_path / manifest.generation
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert files == set(manifest.files)


def test_nothing_is_created_for_no_rows(tmp_path: Path, build_index: BuildIndex) -> None:
    with pytest.raises(StoreError, match=r"no usable rows in rows.jsonl \(1 read, 0 kept"):
        build_index([Dialogue("a", "b", "")], tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_rows_without_a_word_are_refused(tmp_path: Path, build_index: BuildIndex) -> None:
    with pytest.raises(StoreError, match="none has a word"):
        build_index([Dialogue("Is it?", "It is?", "It is not.")], tmp_path)
    assert names(tmp_path) == ["build.lock"]


def test_one_builder_at_a_time(
    tmp_path: Path, dialogues: list[Dialogue], build_index: BuildIndex
) -> None:
    with (
        FileLock(tmp_path / LOCK),
        pytest.raises(StoreError, match="Another build or backup is at"),
    ):
        build_index(dialogues, tmp_path)


def test_a_directory_that_cannot_be_one(
    tmp_path: Path, dialogues: list[Dialogue], build_index: BuildIndex
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be written to .*Not a directory"):
        build_index(dialogues, tmp_path / "file" / "index")


@pytest.mark.parametrize(
    ("reply", "limit"),
    [
        pytest.param("Rest.", 1_000, id="the first file"),
        pytest.param("Rest.", 13 * 384 * 4 + 40, id="the last block of the vectors"),
        pytest.param("word " * 20_000, 60_000, id="the replies"),
    ],
)
def test_a_full_disk_leaves_the_earlier_index(
    tmp_path: Path, dialogues: list[Dialogue], build_index: BuildIndex, reply: str, limit: int
) -> None:
    before = build_index(dialogues, tmp_path).manifest
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # bytes that one file may have
    try:
        with pytest.raises(StoreError, match="cannot be written to"):
            build_index([*dialogues, Dialogue("Q. One more?", "Really?", reply)], tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert manifests.read(tmp_path) == before
    # What had been embedded before the disk was full is kept for the next build.
    assert [name for name in names(tmp_path) if name != "embedded"] == TIDY
    IndexStore.open(tmp_path, EMBEDDED).close()


def test_texts_that_memory_does_not_hold_are_one_sentence(
    tmp_path: Path,
    dialogues: list[Dialogue],
    build_index: BuildIndex,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    def full(*_: Any, **__: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    monkeypatch.setattr(HuggingFaceEmbedding, "_embed", full)
    with pytest.raises(StoreError, match=r"memory is full.*close other programs"):
        build_index(dialogues, tmp_path)


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    "step",
    ["Generation.write_bm25", "Generation.synced", "Path.rename", "manifests.write"],
)
def test_a_first_build_that_is_cut_short_leaves_no_index(
    tmp_path: Path,
    dialogues: list[Dialogue],
    build_index: BuildIndex,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(f"index_store.build.{step}", killed)
        # As a kill would leave it, without the tidying up on the way out.
        patch.setattr("index_store.build.shutil.rmtree", lambda *_, **__: None)
        with pytest.raises(Killed):
            build_index(dialogues, tmp_path)
    with pytest.raises(StoreError, match="There is no index in"):
        IndexStore.open(tmp_path, EMBEDDED)
    assert names(tmp_path) != TIDY
    build_index(dialogues, tmp_path)
    assert names(tmp_path) == TIDY
