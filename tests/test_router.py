"""The router on messages that it never saw in training."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agent.errors import AgentError
from agent.evaluation.parts import router as evaluation
from agent.routing import router, training
from agent.routing.embedding import TurnEmbedding
from index_store.embedding import EMBEDDED, embed_queries, identity

if TYPE_CHECKING:
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding


def _trigrams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return set(zip(words, words[1:], words[2:], strict=False))


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> router.Router:
    return router.load(identity(EMBEDDED), tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def turns(embedding: HuggingFaceEmbedding) -> TurnEmbedding:
    return TurnEmbedding(embedding)


@pytest.fixture(scope="module")
def examples() -> list[dict[str, str]]:
    lines = training.EXAMPLES.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def trained(embedding: HuggingFaceEmbedding, examples: list[dict[str, str]]) -> np.ndarray:
    """The examples' vectors."""
    return embed_queries(embedding, [row["text"] for row in examples])


def test_on_messages_never_trained_on(head: router.Router, turns: TurnEmbedding) -> None:
    result = evaluation.measure("router", evaluation.cases(), head, turns.matrix)
    assert result.total.retrieved + result.total.missed > 250
    assert result.total.left_alone + result.total.needless > 250
    assert result.single.recall >= 0.98 and result.single.specificity >= 0.97
    assert result.in_conversation.recall >= 0.91 and result.in_conversation.specificity >= 0.94
    assert result.calibration_error <= 0.03


def test_the_test_set_is_not_in_the_examples(
    turns: TurnEmbedding, examples: list[dict[str, str]], trained: np.ndarray
) -> None:
    follows = np.array(["context" in row for row in examples])
    held_out = [case["messages"] for case in evaluation.cases()]
    asked = [messages[-1]["content"] for messages in held_out]
    in_conversation = np.array([len(messages) > 1 for messages in held_out])
    near = turns.matrix(asked) @ trained.T > 0.9
    # "no" and "thanks" are what they are in any conversation; alone, a message stands for itself.
    near &= ~in_conversation[:, None] & ~follows
    assert not near.any(), asked[int(near.any(axis=1).argmax())]
    parts = [_trigrams(row["text"]) for row in examples]
    for text in asked:
        words = _trigrams(text)
        if len(words) > 1:
            assert not any(
                len(words & other) / len(words | other) >= 0.5 for other in parts if len(other) > 1
            ), text


def test_the_head_that_ships_is_what_training_gives(
    turns: TurnEmbedding, trained: np.ndarray, head: router.Router, tmp_path: Path
) -> None:
    report = training.train(lambda _: trained, identity(EMBEDDED), tmp_path / router.HEAD.name)
    again = router.load(identity(EMBEDDED), tmp_path)
    for text in ("my elbow is swollen", "thank you!", "who won the match?", "yes, since Monday"):
        vector = turns.matrix([text])[0]
        for stands in (router.OPENING, router.FOLLOWING, router.ANSWERING):
            assert again.score(text, vector, stands) == pytest.approx(
                head.score(text, vector, stands), abs=0.01
            )
    assert report.examples >= 8500
    assert report.retrieved > 0.94 and report.left_alone > 0.91


def test_calibration_counts_every_message(
    head: router.Router, turns: TurnEmbedding, tmp_path: Path
) -> None:
    rows = [
        {"messages": [{"role": "user", "content": text}], "retrieve": retrieve, "kind": kind}
        for text, retrieve, kind in [
            ("My knee is swollen and hot.", True, "complaint"),
            ("Good morning!", False, "greeting"),
            ("I have had a fever for three days.", False, "wrong on purpose"),
        ]
    ]
    result = evaluation.measure("three", rows, head, turns.matrix)
    assert result.total == evaluation.Confusion(1, 0, 1, 1)
    assert result.by_kind["greeting"] == evaluation.Confusion(0, 0, 1, 0)
    assert sum(each.of for each in result.calibration) == 3
    assert result.calibration_error == pytest.approx(1 / 3, abs=0.1)
    evaluation.plot([result], tmp_path / "calibration.svg")
    assert "<svg" in (tmp_path / "calibration.svg").read_text()
    with pytest.raises(AgentError, match=r"must end in \.svg"):
        evaluation.plot([result], tmp_path / "calibration.doc")


def test_times_are_measured(head: router.Router, turns: TurnEmbedding) -> None:
    times = evaluation.times(evaluation.cases()[:5], head, turns)
    assert 0 < times.median <= times.percentile_99 and times.embedding_median > 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"retrieve": true}', "needs the fields messages, retrieve"),
        ('{"messages": [], "retrieve": true}', "end with the user's"),
        ("{", "is not JSON"),
    ],
)
def test_cases_that_are_none_are_one_sentence(line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(line)
    with pytest.raises(AgentError, match=said):
        evaluation.cases(path)


def test_clinc_without_health(tmp_path: Path) -> None:
    path = tmp_path / "clinc.jsonl"
    rows = [("which shots for ghana", "vaccines"), ("hi", "greeting"), ("flip", "flip_coin")]
    path.write_text("".join(json.dumps({"text": t, "intent": i}) + "\n" for t, i in rows))
    assert [row["kind"] for row in evaluation.clinc(path)] == ["small talk", "small talk"]


def test_an_answer_is_looked_up_and_an_acknowledgement_is_not(
    head: router.Router, turns: TurnEmbedding
) -> None:
    complaint = {"role": "user", "content": "I have a sore throat and a temperature."}
    asks = {"role": "assistant", "content": "I am sorry. Do you have white spots?"}
    tells = {"role": "assistant", "content": "I am sorry. Rest and drink plenty."}

    def retrieves(reply: dict[str, str], message: str) -> bool:
        said, answers = router.patient_turns(
            [complaint, reply, {"role": "user", "content": message}]
        )
        return head.route(said, turns.matrix(said), answers)[0].retrieve

    assert retrieves(asks, "yes") and not retrieves(tells, "ok")


def test_context_carries_a_follow_up(head: router.Router, turns: TurnEmbedding) -> None:
    asked = ["I have had a headache for three days.", "yes, since Monday"]
    alone, _ = head.route(asked[1:], turns.matrix(asked[1:]))
    route, query = head.route(asked, turns.matrix(asked))
    assert route.score is not None and alone.score is not None
    assert route.score > alone.score
    assert query.text == "\n".join(asked)
    assert np.linalg.norm(query.vector) == pytest.approx(1, abs=1e-5)
    headache = turns.matrix(asked[:1])[0]
    assert query.vector @ headache > turns.matrix(asked[1:])[0] @ headache


def test_small_talk_is_no_context(head: router.Router, turns: TurnEmbedding) -> None:
    asked = ["Good morning!", "My knee is swollen."]
    _, query = head.route(asked, turns.matrix(asked))
    assert query.text == asked[1]


def test_a_new_complaint_is_searched_by_its_own_words(
    head: router.Router, turns: TurnEmbedding
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
    (tmp_path / router.HEAD.name).write_text("half a head")
    with pytest.raises(AgentError, match="train-router"):
        router.load(identity(EMBEDDED), tmp_path)
