"""Whether an answer stands on what it was shown: claims, citations, leaks, doses, refusals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from agent import settings
from agent.chat import loading
from agent.chat.loading import Agent
from agent.evaluation.grounding import Grounding, grounding, is_claim, named, refuses
from agent.evaluation.parts import grounding as parts
from agent.evaluation.parts.grounding import Asked, as_text, figures
from agent.llms.interface import Engine
from agent.routing.embedding import TurnEmbedding
from index_store.build import Built
from index_store.dataset import Dialogue
from index_store.embedding import EMBEDDED, Embed
from index_store.live import LiveIndex
from index_store.retriever import DoctorReplyRetriever

from scripted import ScriptedLLM

MESSAGE = "I get acid in my throat at night."
LETTERS = ["I am 34 and drive a lorry; my chest burns at night.", "My skin itches."]
REPLIES = [
    (
        "Keep supper small and at least three hours before you lie down. An alginate liquid "
        "after meals soothes the gullet. Take omeprazole 20 mg once daily before breakfast."
    ),
    "A zinc cream protects sore skin from moisture.",
]
KEEP = "Keep supper small and at least three hours before you lie down"


def far_apart(texts: Sequence[str]) -> np.ndarray:
    """No two texts are alike: words alone decide."""
    return np.eye(len(texts), dtype=np.float32)


def count(answer: str) -> Grounding:
    return grounding(answer, MESSAGE, REPLIES, LETTERS, far_apart)


@pytest.mark.parametrize(
    "sentence",
    [
        "Thank you for writing.",
        "I am sorry that this troubles you.",
        "How long have you had it?",
        "If it gets worse, please see a doctor.",
        "A doctor who examines you can say more.",
        "Doctors have answered similar questions.",
        "Please ask your pharmacist.",
        "The replies that I found are about other problems.",
    ],
)
def test_courtesy_questions_and_advice_to_see_someone_are_no_claims(sentence: str) -> None:
    assert not is_claim(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        f"{KEEP}.",
        "Acid rises because the valve is weak.",
        "Take omeprazole 20 mg once daily.",
        "There is no need to wait.",
    ],
)
def test_what_could_be_wrong_is_a_claim(sentence: str) -> None:
    assert is_claim(sentence)


def test_claims_are_counted_and_those_that_a_reply_bears() -> None:
    counted = count(f"Thank you. {KEEP}. Acid comes from too weak a muscle. Shall I go on?")
    assert (counted.claims, counted.supported) == (2, 1)


@pytest.mark.parametrize(
    ("form", "citations"),
    [
        (f"{KEEP} [1].", 1),
        (f"{KEEP}. [1]", 1),
        (f"{KEEP}.[1] Rest well.", 1),
        (f"{KEEP}.\n[1]\n\nRest well.", 1),
        (f"**{KEEP}.** [1] Rest well.", 1),
        (f"{KEEP} [1][2]. Rest well.", 2),
        (f"{KEEP} [1, 2]. Rest well.", 2),
        (f"{KEEP}. [2;1] Rest well.", 2),
        (f"1. {KEEP}. [1]\n2. Rest well.", 1),
    ],
)
def test_a_citation_before_or_after_the_full_stop_is_the_sentence_s_own(
    form: str, citations: int
) -> None:
    counted = count(form)
    assert counted.cited == 1 and counted.right == 1
    assert counted.citations == citations
    assert counted.sentences == 1 + ("Rest" in form)


def test_a_citation_of_a_reply_that_says_otherwise_is_wrong() -> None:
    counted = count(f"{KEEP} [2].")
    assert (counted.supported, counted.cited, counted.right, counted.citations) == (1, 0, 0, 1)
    assert count(f"{KEEP} [7].").right == 0


def test_another_patient_s_particulars_leak() -> None:
    assert count("At 34 no camera is needed.").leaking == 1
    assert count("You drive a lorry by night.").leaking == 1
    assert count(f"{KEEP}.").leaking == 0


def test_doses_and_medicines_are_borne_by_a_shown_reply_or_the_patient() -> None:
    borne = count("Take omeprazole 20 mg once daily.")
    assert (borne.named, borne.borne) == (3, 3)
    other = count("Take omeprazole 40 mg twice daily, or lansoprazole.")
    assert (other.named, other.borne) == (4, 1)
    own = grounding("Keep taking ramipril.", "I take ramipril.", REPLIES, LETTERS, far_apart)
    assert (own.named, own.borne) == (1, 1)


def test_a_citation_is_no_dose() -> None:
    assert named("A zinc cream protects [2].") == set()
    assert named("400 mg of ibuprofen three times a day, 1 g every six hours, 2 tablets") == {
        *("400 mg", "ibuprofen", "3 a day", "1000 mg", "4 a day", "2 piece")
    }


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        ("The replies that I found are about other problems, so I cannot answer.", True),
        ("None of these replies fits what you describe.", True),
        ("None of them applies to you.", True),
        ("None of the replies answers your question.", True),
        ("None fits.", True),
        ("The replies do not mention your cough.", True),
        ("The replies don\u2019t really address your cough.", True),
        ("Your cough is not covered by these.", True),
        (f"{KEEP} [1].", False),
        ("Other problems may cause it, too.", False),
        ("None of the tablets is needed. Replies answer that.", False),
    ],
)
def test_saying_that_nothing_fits_is_seen(answer: str, refused: bool) -> None:
    assert refuses(answer) == refused


def test_figures_are_shares_over_all_answers() -> None:
    no = "The replies that I found are about other problems. Since when?"
    asked = [
        Asked("a", MESSAGE, distractors, [], answer, True, count(answer))
        for distractors, answer in [
            (False, f"{KEEP} [1]. Acid comes from too weak a muscle."),
            (False, no),
            (True, no),
            (True, no),
            (True, f"{KEEP} [1]."),
        ]
    ]
    told = figures(asked, too_long=1)
    assert (told.answers, told.claims, told.supported) == (5, 2, 0.5)
    assert (told.citation_precision, told.citation_recall) == (1.0, 0.5)
    assert told.false_refusals == 0.5
    assert told.refusal_f1 == pytest.approx(2 * 2 / (2 + 1 + 3))
    assert told.borne is None and "nothing to count" in as_text(told)
    assert told.leaking == 0 and told.ended == 1
    assert told.too_long == 1 and "patients left out" in as_text(told)
    assert "left out" not in as_text(figures(asked, too_long=0))


async def test_a_letter_longer_than_can_be_read_is_left_out(
    dialogues: list[Dialogue],
    build_index: Callable[[list[Dialogue], Path], Built],
    embed_questions: Embed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    long = Dialogue("Q. What helps a knee?", "My knee hurts. " * 2000, "Rest the knee for a week.")
    build_index([*dialogues[:3], long], tmp_path)
    llm = ScriptedLLM(name="larger")
    chosen = settings.load(index_dir=tmp_path, min_relevance=0)
    retriever = DoctorReplyRetriever(LiveIndex(tmp_path, EMBEDDED), embed_questions, 2, 0)
    engine = Engine("scripted", "larger", base=llm, fine_tuned=None)
    agent = Agent(chosen, engine, TurnEmbedding(embed_questions), retriever)
    monkeypatch.setattr(loading, "load", lambda _: agent)
    monkeypatch.setattr(parts, "split", lambda _: "test")
    asked, too_long = await parts.ask(chosen, "base", None)
    assert too_long == 1
    assert {each.message for each in asked} == {each.patient for each in dialogues[:3]}
