"""The router on messages that it never saw in training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agent import router, router_training
from agent.errors import AgentError
from index_store.embedding import EMBEDDED, identity

if TYPE_CHECKING:
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

TEST_SET = Path(__file__).parent / "data" / "router_test.jsonl"


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> router.Router:
    return router.load(identity(EMBEDDED), tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def turns(embedding: HuggingFaceEmbedding) -> router.TurnEmbedding:
    return router.TurnEmbedding(embedding)


def test_on_messages_never_trained_on(head: router.Router, turns: router.TurnEmbedding) -> None:
    trained = {
        json.loads(line)["text"].lower()
        for line in router_training.EXAMPLES.read_text(encoding="utf-8").splitlines()
    }
    right: dict[bool, list[bool]] = {True: [], False: []}
    for line in TEST_SET.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        asked = [m["content"] for m in case["messages"] if m["role"] == "user"]
        if len(asked) == 1 and asked[0].lower() in trained:
            continue
        route, _ = head.route(asked, turns.matrix(asked))
        right[case["retrieve"]].append(route.retrieve == case["retrieve"])
    assert len(right[True]) > 140 and len(right[False]) > 100
    assert np.mean(right[True]) >= 0.94, "health questions retrieved"
    assert np.mean(right[False]) >= 0.96, "others left alone"


def test_the_head_that_ships_is_what_training_gives(
    turns: router.TurnEmbedding, head: router.Router, tmp_path: Path
) -> None:
    report = router_training.train(turns.matrix, identity(EMBEDDED), tmp_path / router.HEAD.name)
    again = router.load(identity(EMBEDDED), tmp_path)
    np.testing.assert_allclose(again.opening, head.opening, atol=0.05)
    assert report.examples >= 300
    assert report.retrieved > 0.9 and report.left_alone > 0.85


def test_context_carries_a_follow_up(head: router.Router, turns: router.TurnEmbedding) -> None:
    asked = ["I have had a headache for three days.", "yes, since Monday"]
    alone, _ = head.route(asked[1:], turns.matrix(asked[1:]))
    route, query = head.route(asked, turns.matrix(asked))
    assert route.score is not None and alone.score is not None
    assert route.score > alone.score
    assert query.text == "\n".join(asked)
    assert np.linalg.norm(query.vector) == pytest.approx(1, abs=1e-5)
    headache = turns.matrix(asked[:1])[0]
    assert query.vector @ headache > turns.matrix(asked[1:])[0] @ headache


def test_small_talk_is_no_context(head: router.Router, turns: router.TurnEmbedding) -> None:
    asked = ["Good morning!", "My knee is swollen."]
    _, query = head.route(asked, turns.matrix(asked))
    assert query.text == asked[1]


def test_a_new_complaint_is_searched_by_its_own_words(
    head: router.Router, turns: router.TurnEmbedding
) -> None:
    asked = ["I have a headache.", "By the way, my daughter has a rash on both arms."]
    _, query = head.route(asked, turns.matrix(asked))
    headache, rash = turns.matrix(asked)
    assert query.text == asked[1]
    assert query.vector @ rash > 0.9 > query.vector @ headache


def test_another_embedding_model_needs_another_head(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="train-router"):
        router.load("another/model", tmp_path)


def test_a_damaged_head_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / router.HEAD.name).write_text('{"embed_model": "all-MiniLM-L6-v2"}')
    with pytest.raises(AgentError, match="train-router"):
        router.load(identity(EMBEDDED), tmp_path)
