"""How likely a reply concerns a question: the measure, its fit, and what is shown by it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.evaluation.parts import relevance as measured
from agent.evaluation.parts.cases import IN_SPANISH, Case, by_another, labels, left_alone
from agent.finetuning.retriever import pairs
from agent.finetuning.retriever import relevance as fitting
from agent.finetuning.retriever.pairs import Question, Row
from agent.finetuning.retriever.relevance import Found
from agent.routing.embedding import TurnEmbedding
from index_store.columns import Columns
from index_store.dataset import Dialogue
from index_store.embedding import EMBEDDED, Embed, load_embedding
from index_store.errors import StoreError
from index_store.relevance import FILE, UNFITTED, Background, Relevance
from index_store.store import IndexStore


def test_a_reply_stands_out_by_the_spread_of_its_questions_cosines() -> None:
    generator = np.random.default_rng(0)
    usual = generator.normal(0.2, 0.1, 2000)
    query = np.array([1.0, 0.0])
    background = Background(np.stack([usual, usual], axis=1))
    assert background.standing(query, np.array([0.2, 0.5])) == pytest.approx([0, 3], abs=0.2)
    one = Background(np.array([[0.3, 0.0]])).standing(query, np.array([0.3]))
    assert one == pytest.approx([0])  # an index of one reply


def test_the_probability_is_the_logistic_function_of_both() -> None:
    fitted = Relevance(cosine=2.0, standing=0.5, constant=-1.0)
    (likely,) = fitted.probability(np.array([0.5]), np.array([3.0]))
    assert likely == pytest.approx(1 / (1 + math.exp(-1.5)))
    assert fitted.probability(np.array([1e6]), np.array([0.0])) == [pytest.approx(1)]


def test_without_a_fit_the_default_asks_for_a_cosine(tmp_path: Path) -> None:
    from agent.settings import Settings

    default = Settings.model_fields["min_relevance"].default
    below, above = UNFITTED.probability(np.array([0.399, 0.401]), np.array([9.0, 0.0]))
    assert below < default < above
    assert Relevance.of(tmp_path) is UNFITTED and Relevance.of(Path("owner/name")) is UNFITTED


def test_what_was_fitted_lies_beside_its_model(tmp_path: Path) -> None:
    weights = {"cosine": 1.0, "standing": 2.0, "constant": -3.0}
    (tmp_path / FILE).write_text(json.dumps(weights))
    assert Relevance.of(tmp_path) == Relevance(1.0, 2.0, -3.0)
    (tmp_path / FILE).write_text('{"cosine": 1}')
    with pytest.raises(StoreError, match=r"relevance.json is damaged.*finetune retriever"):
        Relevance.of(tmp_path)


def test_a_fit_finds_what_makes_pairs_right() -> None:
    generator = np.random.default_rng(0)
    cosines = generator.uniform(0, 1, (200, 10))
    standing = generator.normal(0, 1, (200, 10))
    right = generator.uniform(size=(200, 10)) < 1 / (1 + np.exp(-(12 * cosines - 6)))
    fitted = fitting.fit([Found(cosines, standing, right)])
    assert fitted.cosine == pytest.approx(12, rel=0.2) and abs(fitted.standing) < 0.3
    likely = np.array(fitted.probability(cosines.ravel(), standing.ravel()))
    assert likely.mean() == pytest.approx(right.mean(), abs=0.01)  # calibrated as a whole


@pytest.mark.slow  # loads a model itself
def test_a_question_is_asked_with_the_replies_of_its_label_and_without() -> None:
    parts, _ = pairs.read("sample", Columns(), None, "condition")
    own, *_ = parts["validation"]
    about = ("acid reflux", own.label)
    rows = [row for n, row in enumerate(parts["train"]) if n < 60 or row.label in about]
    acid = "Acid comes up my throat at night, since I put on weight."
    letters = [
        pairs.Letter(acid, "", "acid reflux", held_out=True),
        pairs.Letter(acid, "", "hiccups", held_out=True),
        pairs.Letter(acid, "", "acid reflux"),
    ]
    asking = pairs.questions([own], letters)
    assert [each.label for each in asking] == [own.label, "acid reflux", "hiccups"]
    there, without = fitting.search(load_embedding(EMBEDDED), asking, [own, *rows])
    assert there.right[1].any() and not there.right[2].any() and not without.right.any()
    assert there.cosines.shape == without.standing.shape == (3, fitting.DEPTH)
    assert (there.cosines[0] < 0.99).all()  # its own row is not among what it finds
    assert (without.cosines[1] <= there.cosines[1]).all()
    assert (without.cosines[2] == there.cosines[2]).all()


def test_at_most_500_questions_are_asked_and_none_whose_label_is_nearly_every_rows() -> None:
    rows = [Row(Dialogue(f"Q {n}", f"I hurt {n}", "Rest."), "pain", named=True) for n in range(30)]
    others = [replace(row, label=f"{n}") for n, row in enumerate(rows[: fitting.DEPTH])]
    of_pain, of_gout = Question("It hurts.", "pain", ""), Question("My toe.", "gout", "")
    assert fitting.asked([of_pain, of_gout], [*rows, *others[1:]]) == [of_gout]
    assert fitting.asked([of_pain, of_gout], [*rows, *others]) == [of_pain, of_gout]
    many = [Question(f"My toe {n}.", "gout", "") for n in range(600)]
    some = fitting.asked(many, rows)
    assert len(set(some)) == 500 and some == fitting.asked(many, rows)


def test_what_is_hidden_counts_as_outside_the_index(
    sample_index: Path, embed_questions: Embed
) -> None:
    with IndexStore.open(sample_index, EMBEDDED) as store:
        rows = [row for _, row in store.rows()]
        cases = [Case([row.title], {row.id: 1}) for row in rows[:4]]
        nothing = [left_alone(case) for case in cases]
        never, always = measured.measure(
            store, cases, nothing, TurnEmbedding(embed_questions), at=(1.0, 0.0)
        )
        question = embed_questions([rows[0].patient])[0]
        hits = store.search(rows[0].patient, question, 12)
    assert never.recall == 0 and never.answered == never.answered_outside == 0
    assert never.refusal_f1 == pytest.approx(2 / 3) and always.refusal_f1 == 0
    assert always.recall == 1 and always.precision == pytest.approx(0.1)
    assert always.answered == always.answered_outside == 1
    likely = [hit.relevance for hit in hits]
    assert all(0 < each < 1 for each in likely)
    by_cosine = sorted(hits, key=lambda hit: hit.score)
    assert [hit.relevance for hit in by_cosine] == sorted(likely)
    assert not nothing[0].hidden.isdisjoint(cases[0].relevant)
    assert "| 1.0 |" in measured.as_markdown("Shown", 4, [never, always])


def test_questions_by_another_author_are_about_what_the_sample_has_and_has_not() -> None:
    asked = by_another(labels("sample", "condition"))
    assert len({case.turns[0] for case in asked}) == len(asked) >= 390
    spanish = by_another(labels("sample", "condition"), IN_SPANISH)
    assert len(spanish) == 133 and all(case.relevant for case in spanish)
    about_none = sum(not case.relevant for case in asked)
    assert about_none >= 130 and len(asked) - about_none >= 260
