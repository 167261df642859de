"""Changing an index that serves: rows added, replaced, removed; backups; who reads meanwhile."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from llama_index.embeddings.huggingface import HuggingFaceEmbedding

from agent import cli
from index_store import build as building
from index_store import generation, vectors
from index_store import manifest as manifests
from index_store.backup import backup, restore
from index_store.build import Built, add, compact, remove
from index_store.dataset import Dialogue
from index_store.embedding import EMBEDDED, embed_queries, embed_texts, identity
from index_store.errors import StoreError
from index_store.journal import Journal
from index_store.live import LiveIndex
from index_store.measure import measure
from index_store.store import IndexStore

BuildIndex = Callable[[list[Dialogue], Path], Built]
MORE = [
    Dialogue("Q. What is vertigo?", "The room spins when I turn.", "Try the Epley manoeuvre."),
    Dialogue("Q. Is a stye harmful?", "A red lump on my eyelid.", "Warm compresses help a stye."),
]


@pytest.fixture
def index(sample_index: Path, tmp_path: Path) -> Path:
    """An index of twelve rows that a test may change."""
    return Path(shutil.copytree(sample_index, tmp_path / "index"))


def texts(directory: Path) -> set[str]:
    with IndexStore.open(directory, EMBEDDED) as store:
        return {row.doctor for _, row in store.rows()}


def everything(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


def test_rows_are_added_and_found(index: Path, embedding: HuggingFaceEmbedding) -> None:
    built = add(MORE, index, EMBEDDED, source="more.jsonl", progress=False)
    assert (built.embedded, built.reused, built.removed) == (2, 12, 0)
    assert [source.name for source in built.manifest.sources] == ["rows.jsonl", "more.jsonl"]
    with IndexStore.open(index, EMBEDDED) as store:
        question = "a lump on the eyelid"
        hit = store.search(question, embed_queries(embedding, [question])[0], 1)[0]
        assert hit.doctor == MORE[1].doctor


def rows_of(directory: Path) -> dict[str, int | None]:
    return {source.name: source.rows for source in manifests.read(directory).sources}


def test_rows_that_two_sources_share_are_held_by_both(
    index: Path, dialogues: list[Dialogue]
) -> None:
    twins = [*dialogues[:3], MORE[0], dialogues[0]]
    built = add(twins, index, EMBEDDED, source="twins.jsonl", progress=False)
    assert (built.embedded, built.manifest.rows) == (1, 13)
    assert built.cleaning is not None
    assert built.cleaning.dropped == {"held by another source already": 3, "duplicate": 1}
    assert rows_of(index) == {"rows.jsonl": 12, "twins.jsonl": 4}

    built = remove(lambda name, _: name == "rows.jsonl", index, EMBEDDED)
    assert (built.removed, built.released, built.embedded) == (9, 3, 0)
    assert texts(index) == {row.doctor for row in twins}
    assert rows_of(index) == {"twins.jsonl": 4}


def test_a_source_that_comes_again_without_a_shared_row_lets_go_of_it(
    index: Path, dialogues: list[Dialogue]
) -> None:
    add([dialogues[0], *MORE], index, EMBEDDED, source="more.jsonl", progress=False)
    add(MORE, index, EMBEDDED, source="more.jsonl", progress=False)
    assert rows_of(index) == {"rows.jsonl": 12, "more.jsonl": 2}
    compact(index, EMBEDDED)
    assert rows_of(index) == {"rows.jsonl": 12, "more.jsonl": 2}


def test_a_row_that_is_removed_by_its_id_is_gone_from_all_sources(
    index: Path, dialogues: list[Dialogue]
) -> None:
    add(dialogues[:2], index, EMBEDDED, source="twins.jsonl", progress=False)
    remove(lambda _, row: row.id == dialogues[0].id, index, EMBEDDED)
    assert dialogues[0].doctor not in texts(index)
    assert rows_of(index) == {"rows.jsonl": 11, "twins.jsonl": 1}


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """`medraft index` with these; its exit code."""
    monkeypatch.setattr(sys, "argv", ["medraft", "index", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(str(ended.value.code))


def test_info_tells_how_many_rows_are_left(
    index: Path,
    dialogues: list[Dialogue],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    remove(lambda _, row: row.id == dialogues[0].id, index, EMBEDDED)
    assert run(monkeypatch, "info", "--dir", str(index)) == 0
    assert "11 from rows.jsonl: 12 read, 12 kept." in capsys.readouterr().out


def test_an_unknown_id_among_known_ones_is_told(
    index: Path,
    dialogues: list[Dialogue],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ("remove", dialogues[0].id, "f" * 16, "--dir", str(index))
    assert run(monkeypatch, *arguments) == 0
    said = capsys.readouterr()
    assert said.out.startswith("1 reply is removed")
    assert said.err == f"There is no reply {'f' * 16}.\n"


def test_an_unknown_source_is_told_with_those_there_are(
    index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add(MORE, index, EMBEDDED, source="more.jsonl", progress=False)
    assert run(monkeypatch, "remove", "--source", "rows.json", "--dir", str(index)) == 2
    assert "no source rows.json in" in (said := capsys.readouterr().err)
    assert "it has rows.jsonl, more.jsonl" in said


def test_several_sources_and_words_are_removed_at_once(
    index: Path,
    dialogues: list[Dialogue],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number, row in enumerate(MORE):
        add([row], index, EMBEDDED, source=f"{number}.jsonl", progress=False)
    named = ("--source", "0.jsonl", "--source", "1.jsonl")
    words = [word for row in dialogues[:2] for word in ("--containing", row.doctor.upper())]
    assert run(monkeypatch, "remove", *named, *words, "--dir", str(index)) == 0
    assert texts(index) == {row.doctor for row in dialogues[2:]}
    strange = ("--source", "rows.jsonl", "--source", "2.jsonl", "--dir", str(index))
    assert run(monkeypatch, "remove", *strange) == 2
    assert "There is no source 2.jsonl in" in capsys.readouterr().err


def test_a_mistyped_folder_is_not_left_behind(index: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    with pytest.raises(StoreError, match="There is no index in"):
        backup(nowhere, tmp_path / "backup.tar")
    (tmp_path / "notes.tar").write_text("no archive")
    for archive in ("absent.tar", "notes.tar"):
        with pytest.raises(StoreError, match="cannot be restored"):
            restore(tmp_path / archive, nowhere)
    assert not nowhere.exists() and not (tmp_path / "backup.tar").exists()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"{", "manifest.json is not what was written"),
        (b'{"schema_version": 1}', "has the format 1, and this medraft reads 2"),
        (None, "cannot be restored"),  # the manifest is good, what it names is not there
    ],
)
def test_a_backup_with_a_bad_manifest_leaves_no_folder(
    index: Path, tmp_path: Path, said: bytes | None, why: str
) -> None:
    said = said or (index / manifests.NAME).read_bytes()
    with tarfile.open(tmp_path / "backup.tar", "w") as tar:
        (member := tarfile.TarInfo(manifests.NAME)).size = len(said)
        tar.addfile(member, io.BytesIO(said))
    with pytest.raises(StoreError, match="cannot be restored") as caught:
        restore(tmp_path / "backup.tar", tmp_path / "new")
    assert why in str(caught.value) and not (tmp_path / "new").exists()


def test_a_source_is_replaced(index: Path) -> None:
    add(MORE, index, EMBEDDED, source="more.jsonl", progress=False)
    built = add(MORE[:1], index, EMBEDDED, source="more.jsonl", progress=False)
    assert (built.embedded, built.removed, built.manifest.rows) == (0, 2, 13)
    assert MORE[1].doctor not in texts(index)


def test_nothing_is_added_to_no_index(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="There is no index in"):
        add(MORE, tmp_path / "absent", EMBEDDED, source="more.jsonl")
    assert not (tmp_path / "absent").exists()


def test_a_removed_row_is_in_no_file(
    index: Path, dialogues: list[Dialogue], embedding: HuggingFaceEmbedding
) -> None:
    gone = dialogues[11]  # the only one that speaks of dupilumab
    with IndexStore.open(index, EMBEDDED) as store:
        vector = store.vectors([store.ids.tolist().index(int(gone.id, 16))])[0]
    for trace in (b"dupilumab", gone.doctor.encode(), vector.tobytes()):
        assert trace in everything(index)
    built = remove(lambda _, row: row.id == gone.id, index, EMBEDDED)
    assert (built.removed, built.embedded, built.manifest.rows) == (1, 0, 11)
    for trace in (b"dupilumab", gone.doctor.encode(), vector.tobytes()):
        assert trace not in everything(index)
    with IndexStore.open(index, EMBEDDED) as store:
        assert all("dupilumab" not in hit.title for hit in store.search("dupilumab", vector, 12))


def test_what_cannot_be_removed_is_said(index: Path) -> None:
    with pytest.raises(StoreError, match="Nothing was removed: no such reply"):
        remove(lambda *_: False, index, EMBEDDED)
    with pytest.raises(StoreError, match="would remove all rows"):
        remove(lambda *_: True, index, EMBEDDED)
    assert len(texts(index)) == 12


def test_a_reader_goes_on_in_the_index_that_replaced_its_own(
    index: Path, dialogues: list[Dialogue], embedding: HuggingFaceEmbedding
) -> None:
    live = LiveIndex(index, EMBEDDED)
    question = dialogues[10].title
    vector = embed_queries(embedding, [question])[0]
    assert live.search(question, vector, 1)[0].id == dialogues[10].id
    remove(lambda _, row: row.id == dialogues[10].id, index, EMBEDDED)
    assert live.search(question, vector, 1)[0].id != dialogues[10].id


def test_a_reader_keeps_its_index_while_the_newest_does_not_open(
    index: Path, dialogues: list[Dialogue], embedding: HuggingFaceEmbedding
) -> None:
    live = LiveIndex(index, EMBEDDED)
    (index / manifests.NAME).write_text("{")
    vector = embed_queries(embedding, [dialogues[10].title])[0]
    assert live.search(dialogues[10].title, vector, 1)[0].id == dialogues[10].id


def test_an_index_that_did_not_open_at_first_is_tried_again(
    index: Path, dialogues: list[Dialogue], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveIndex(index, EMBEDDED)
    remove(lambda _, row: row.id == dialogues[10].id, index, EMBEDDED)

    def refused(*_: object) -> None:
        raise StoreError("Too many files are open.")

    with monkeypatch.context() as patch:
        patch.setattr(IndexStore, "open", refused)
        assert live.find(dialogues[10].id) is not None
    assert live.find(dialogues[10].id) is None


def test_a_backup_is_restored_over_a_damaged_index(index: Path, tmp_path: Path) -> None:
    before = texts(index)
    backup(index, tmp_path / "backup.tar")
    (index / manifests.read(index).generation / generation.VECTORS).write_bytes(b"")
    with pytest.raises(StoreError, match="is damaged"):
        backup(index, tmp_path / "worse.tar")
    restore(tmp_path / "backup.tar", index)
    assert texts(index) == before
    restore(tmp_path / "backup.tar", tmp_path / "elsewhere")
    assert texts(tmp_path / "elsewhere") == before
    assert [path.name for path in tmp_path.iterdir() if "tar" in path.name] == ["backup.tar"]


def test_a_backup_that_cannot_be_written_is_told_by_its_own_name(
    index: Path, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match=r"b\.tar \(No such file or directory\): check"):
        backup(index, tmp_path / "nowhere" / "b.tar")


@pytest.mark.parametrize("spoil", ["flipped", "cut", "not a backup"])
def test_a_spoilt_backup_changes_nothing(index: Path, tmp_path: Path, spoil: str) -> None:
    archive = tmp_path / "backup.tar"
    backup(index, archive)
    content = bytearray(archive.read_bytes())
    if spoil == "flipped":
        with tarfile.open(archive) as tar:
            member = next(m for m in tar.getmembers() if m.name.endswith(generation.VECTORS))
        content[member.offset_data + member.size // 2] ^= 1
    archive.write_bytes({"cut": content[: len(content) // 2], "flipped": content}.get(spoil, b"x"))
    before = manifests.read(index)
    with pytest.raises(StoreError, match="cannot be restored"):
        restore(archive, index)
    assert manifests.read(index) == before
    assert len(texts(index)) == 12


@pytest.mark.parametrize("module", [gzip, bz2, lzma])
@pytest.mark.parametrize("spoil", ["early", "late", "within"])
def test_a_compressed_backup_that_is_spoilt_is_one_sentence(
    index: Path, tmp_path: Path, module: Any, spoil: str
) -> None:
    archive = tmp_path / "backup.tar"
    backup(index, archive)
    packed = module.compress(archive.read_bytes())
    half = len(packed) // 2
    archive.write_bytes(
        {
            "early": packed[:200],
            "late": packed[:-half],
            "within": packed[:half] + bytes([255]) * 64 + packed[half + 64 :],
        }[spoil]
    )
    before = manifests.read(index)
    with pytest.raises(StoreError, match="cannot be restored"):
        restore(archive, index)
    assert manifests.read(index) == before
    with pytest.raises(StoreError, match="cannot be restored"):
        restore(archive, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_every_flipped_byte_is_noticed(index: Path, dialogues: list[Dialogue]) -> None:
    folder = index / manifests.read(index).generation
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 8
    for path in files:
        content = path.read_bytes()
        for place in (0, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
            with pytest.raises(StoreError, match="is damaged"):
                IndexStore.open(index, EMBEDDED)
        path.write_bytes(content)
    assert len(texts(index)) == 12


def test_a_row_that_changes_after_opening_is_not_served(
    index: Path, dialogues: list[Dialogue], embedding: HuggingFaceEmbedding
) -> None:
    path = index / manifests.read(index).generation / generation.REPLIES
    with IndexStore.open(index, EMBEDDED) as store:
        with path.open("r+b") as file:
            content = file.read()
            file.seek(content.index(b"take ibuprofen early"))
            file.write(b"take everything now!")
        vector = embed_queries(embedding, [dialogues[0].title])[0]
        with pytest.raises(StoreError, match="is not what was written"):
            store.search(dialogues[0].title, vector, 1)


def test_an_approximate_index_keeps_its_factory_and_finds_nearly_the_same(
    dialogues: list[Dialogue], tmp_path: Path
) -> None:
    built = building.build(
        dialogues, tmp_path, EMBEDDED, source="rows.jsonl", factory="HNSW8", progress=False
    )
    assert built.manifest.factory == "HNSW8"
    built = add(MORE, tmp_path, EMBEDDED, source="more.jsonl", progress=False)
    assert built.manifest.factory == "HNSW8"
    with IndexStore.open(tmp_path, EMBEDDED) as store:
        measured = measure(store, EMBEDDED)
    assert measured.queries == 14
    assert measured.recall > 0.9


def test_the_last_rows_go_though_the_factory_needs_more(
    dialogues: list[Dialogue], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    building.build(
        dialogues, tmp_path, EMBEDDED, source="rows.jsonl", factory="IVF4,Flat", progress=False
    )
    kept = dialogues[0].id
    built = building.remove(lambda _, row: row.id != kept, tmp_path, EMBEDDED)
    assert (built.manifest.rows, built.manifest.factory) == (1, "Flat")
    assert "IVF4,Flat" in caplog.text and "searched by Flat" in caplog.text


def test_a_composite_factory_is_searched_as_far_as_a_plain_one(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(2000, 16)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    exact = faiss.IndexFlatIP(16)
    exact.add(values)
    _, wanted = exact.search(values[:100], 10)
    for factory in ("IVF64,Flat", "PCA16,IVF64,Flat", "PCA16,HNSW8", "IVF64,SQ8,RFlat"):
        vectors.write_nearest(tmp_path / "nearest", exact, factory)
        _, found = vectors.open_nearest(tmp_path / "nearest").search(values[:100], 10)
        same = np.mean([len({*a} & {*b}) / 10 for a, b in zip(found, wanted, strict=True)])
        assert same > 0.5, factory


def test_a_factory_that_faiss_does_not_know(dialogues: list[Dialogue], tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="factory 'Nonsense'"):
        building.build(dialogues, tmp_path, EMBEDDED, factory="Nonsense", progress=False)


def test_no_gpu_is_one_sentence(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faiss.get_num_gpus", lambda: 0, raising=False)  # nor on a machine with one
    with pytest.raises(StoreError, match="MEDRAFT_SEARCH_ON is gpu, and FAISS finds none"):
        IndexStore.open(index, EMBEDDED, "gpu")


def test_a_build_that_broke_off_embeds_nothing_twice(
    dialogues: list[Dialogue], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[str] = []
    embed = embed_texts

    def counting(model: HuggingFaceEmbedding, texts: list[str]) -> np.ndarray:
        if len(embedded) >= 8:
            raise KeyboardInterrupt
        embedded.extend(texts)
        return embed(model, texts)

    monkeypatch.setattr(generation, "CHUNK", 4)
    monkeypatch.setattr(generation, "embed_texts", counting)
    with pytest.raises(KeyboardInterrupt):
        building.build(dialogues, tmp_path, EMBEDDED, progress=False)
    assert len(embedded) == 8
    monkeypatch.setattr(generation, "embed_texts", embed)
    assert building.build(dialogues, tmp_path, EMBEDDED, progress=False).embedded == 4
    assert not list(tmp_path.glob("embedded-*"))


def test_a_record_that_was_cut_off_or_spoilt_is_left_out(tmp_path: Path) -> None:
    vectors = np.eye(4, 8, dtype=np.float32)
    ids = np.arange(4, dtype="<u8") + (1 << 63)
    Journal(tmp_path, "model").append(ids, vectors)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 4 + 12] ^= 1  # in the second record
    path.write_bytes(content[:-5])  # and the last one was cut off
    journal = Journal(tmp_path, "model")
    assert journal.rows_of(ids).tolist() == [0, -1, 1, -1]
    assert np.array_equal(journal.vectors(np.array([1])), vectors[2:3])
    journal.append(ids[3:], vectors[3:])
    assert (Journal(tmp_path, "model").rows_of(ids) >= 0).tolist() == [True, False, True, True]
    assert Journal(tmp_path, "other").rows_of(ids).tolist() == [-1] * 4


CHANGE_FOR_EVER = """
import json, sys
from pathlib import Path
import bm25s, faiss
from index_store import generation
from index_store.build import add, build, compact, remove
from index_store.dataset import Dialogue
from index_store.embedding import question_embedder
embed = question_embedder("embedded")  # the same vectors, loaded in a moment
generation.load_embedding = lambda name: None
generation.embed_texts = lambda model, texts: embed(texts)
directory, rows = Path(sys.argv[1]), [Dialogue(*row) for row in json.loads(sys.argv[2])]
while True:
    build(rows, directory, "embedded", source="rows", progress=False)
    remove(lambda _, row: row.id == rows[-1].id, directory, "embedded")
    add(rows[-1:], directory, "embedded", source="last", progress=False)
    compact(directory, "embedded")
    print("round", flush=True)
"""
KILLS = 50


def test_killed_at_fifty_moments_nothing_is_damaged_or_lost(
    index: Path, dialogues: list[Dialogue]
) -> None:
    rows = json.dumps([[d.title, d.patient, d.doctor] for d in dialogues])
    whole, without = {d.doctor for d in dialogues}, {d.doctor for d in dialogues[:-1]}
    moments = random.Random(7)
    kills, stages = 0, set()
    while kills < KILLS:
        with subprocess.Popen(
            [sys.executable, "-c", CHANGE_FOR_EVER, str(index), rows],
            stdout=subprocess.PIPE,
            cwd=Path(building.__file__).parent.parent,
        ) as process:
            assert process.stdout is not None
            # The first round loads the model, which leaves the index alone for seconds.
            assert process.stdout.readline() == b"round\n"
            # One process is stopped and looked at many times; at the end it is killed.
            for _ in range(10):
                time.sleep(moments.uniform(0, 0.2))
                process.send_signal(signal.SIGSTOP)
                os.waitid(os.P_PID, process.pid, os.WSTOPPED)
                kills += 1
                stages.add(tuple(sorted(p.name.split("-")[0] for p in index.iterdir())))
                killed = Path(shutil.copytree(index, index.with_name(f"killed-{kills}")))
                assert texts(killed) in (whole, without)
                assert compact(killed, EMBEDDED).manifest.rows in (11, 12)
                shutil.rmtree(killed)
                process.send_signal(signal.SIGCONT)
            process.kill()
            assert process.wait() == -signal.SIGKILL
        assert texts(index) in (whole, without)
    assert len(stages) > 1
    compact(index, EMBEDDED)
    assert sorted(path.name.split("-")[0] for path in index.iterdir()) == [
        "build.lock",
        "generation",
        "manifest.json",
    ]
    assert identity(EMBEDDED) == manifests.read(index).embed_model
