"""What an example teaches: sentences of its own documents, nothing of another patient's."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence

import numpy as np
import pytest

from agent.chat.claims import Borne
from agent.chat.particulars import of_another, stands_alone
from agent.chat.support import sentences
from agent.finetuning.altered import Altered, kinds, medicines
from agent.finetuning.examples import MEDICINES
from agent.finetuning.grounded import grounded
from agent.finetuning.targets import (
    CLOSES,
    NO_CLAIM,
    NONE,
    OPENINGS,
    Target,
    TargetMaker,
    borne_alone,
)
from index_store.dataset import Dialogue
from index_store.split import split

ASKED = (
    "Q. How do I stop burning in my chest after late meals on the road?\n"
    "I drive a lorry, 34, male. For two months I get this burn from stomach to throat, worst when "
    "I eat at 10 pm. Chewing chalky antacids helps for an hour. My wife says it is my heart."
)
MESSAGE = "I wake with acid in my throat at night. I am 61 and take clopidogrel."

MAY_BE_SAID = [
    "Keep supper small and at least three hours before you lie down.",
    "Raise the head end of the bed by 15 to 20 cm rather than piling up pillows.",
    "Black stools, vomiting blood or any new chest pain means calling an ambulance.",
    "If you vomit blood, go to hospital at once.",
    "Should that not be enough, your doctor can prescribe omeprazole.",
    "If you are pregnant or have lost weight, ask a doctor before you treat it.",
    "An alginate liquid after meals works longer than other remedies.",
    "It fades within weeks in most people.",
]
BELONGS_TO_ANOTHER = [
    "A camera test is not needed at your age.",
    "At 34 a camera test is not needed.",
    "Your scan shows a small hernia.",
    "As you said, it is worst after late meals.",
    "You mentioned a sour taste in the morning.",
    "Please go to hospital now, not on the twentieth.",
    "Make an appointment this week.",
    "Phone the clinic on Monday.",
    "Your wife is right to worry.",
    "She should be examined by a doctor.",
    "Chewing chalky antacids on the lorry helps little.",
    "You were right to stop the tablets.",
    "Since you've lost two kilos, blood should be taken.",
]


@pytest.mark.parametrize("sentence", MAY_BE_SAID)
def test_what_is_true_for_any_patient_may_be_said(sentence: str) -> None:
    assert not of_another(sentence, ASKED, MESSAGE)


@pytest.mark.parametrize("sentence", BELONGS_TO_ANOTHER)
def test_what_belongs_to_the_other_patient_may_not(sentence: str) -> None:
    assert of_another(sentence, ASKED, MESSAGE)


def test_what_this_patient_wrote_too_is_no_particular() -> None:
    asked = "I am 40 and take ramipril and 75 mg of aspirin; my daughter worries."
    said = "With ramipril, potassium wants watching."
    numbered = "Aspirin 75 mg protects the stent."
    about = "Let your daughter sleep upright."
    for sentence in (said, numbered, about):
        assert of_another(sentence, asked, "My knee hurts.")
        assert not of_another(sentence, asked, "I take ramipril, aspirin 75. My daughter coughs.")


def test_a_sentence_that_needs_the_one_before_it_does_not_stand_alone() -> None:
    assert stands_alone("Keep supper small.")
    for sentence in ("That alone is the cause.", "I would wait.", "Does it burn?", "Both work."):
        assert not stands_alone(sentence)


WORDS = ("acid", "throat", "bed", "meal", "rash", "cream", "skin", "fever")


def embed(texts: Sequence[str]) -> np.ndarray:
    """A text is the words of WORDS that it holds."""
    rows = [[float(word in text.lower()) + 0.01 for word in WORDS] for text in texts]
    return np.array([np.array(row) / np.linalg.norm(row) for row in rows], dtype=np.float32)


def documents() -> list[Dialogue]:
    return [
        Dialogue("Q. A rash?", "My skin itches.", "The skin heals with a cream for the rash."),
        Dialogue(
            "Q. Acid?",
            "I am a singer of 46.",
            "Acid in the throat is worst in bed after a late meal. "
            "At 46 acid in the throat wants a camera. "
            "Raise the head of the bed and keep the last meal small. "
            "An alginate 20 ml keeps acid out of the throat in bed.",
        ),
    ]


def target(message: str, given: list[Dialogue], reply: str, seed: int = 0) -> Target:
    maker = TargetMaker(embed, random.Random(seed))
    return maker.answer(message, embed([message])[0], reply, given)


ACID = "I wake with acid in my throat in bed."
REPLY = "Acid rises to the throat in bed. Keep the last meal small."


def test_a_target_is_sentences_of_its_documents_each_with_its_number() -> None:
    said = target(ACID, documents(), REPLY)
    assert said.cited == (2,)
    assert said.text.startswith(OPENINGS) and said.text.endswith(CLOSES)
    quoted = re.findall(r"([^.]+) \[(\d)\]\.", said.text)
    assert len(quoted) >= 2
    for sentence, number in quoted:
        assert number == "2" and sentence.strip() in documents()[1].doctor
    assert "46" not in said.text and "cream" not in said.text
    turned = target(ACID, documents()[::-1], REPLY)
    assert turned.cited == (1,)


def test_a_target_over_other_problems_says_so_advises_and_asks_back() -> None:
    said = target("My eye is red and swollen.", documents()[:1], "Bathe the eye.")
    assert said.cited == () and said.text.startswith(NONE)
    assert "[" not in said.text and said.text.endswith("?")
    assert re.search(r"doctor|pharmacist", said.text)


def test_the_same_draw_gives_the_same_target() -> None:
    made = {target(ACID, documents(), REPLY, seed).text for seed in (1, 1, 2, 3)}
    assert 1 < len(made) < 4


def test_numbers_and_medicines_change_alike_in_document_and_target() -> None:
    given = documents()
    given[1] = Dialogue(
        given[1].title,
        given[1].patient,
        "Acid in the throat in bed after a meal settles with omeprazole 20 mg. "
        "Raise the bed by 15 cm, and keep the last meal small.",
    )
    altered = Altered([d.doctor for d in given], random.Random(0))
    changed = [altered(d.doctor) for d in given]
    assert "omeprazole" not in changed[1] and " 20 mg" not in changed[1]
    assert medicines(changed[1]) < set(kinds()["omeprazole"])
    maker = TargetMaker(embed, random.Random(0))
    said = maker.answer(ACID, embed([ACID])[0], REPLY, given, altered).text
    quoted = re.findall(r"([^.]+) \[2\]\.", said)
    assert len(quoted) == 2 and all(sentence.strip() in changed[1] for sentence in quoted)


def test_no_change_leaves_a_number_or_a_medicine_as_it_was() -> None:
    text = "Ibuprofen 400 mg, 3 times a day for 10 days; not 37.5 degrees, nor 120/80."
    for seed in range(50):
        changed = Altered([text], random.Random(seed))(text)
        assert not {"400", "3", "10"} & set(re.findall(r"\b\d+\b(?![./])", changed))
        assert "37.5" in changed and "120/80" in changed
        assert "buprofen" not in changed and changed[0].isupper()


def test_every_medicine_has_another_of_its_kind() -> None:
    assert len(kinds()) > 150
    assert [name for name, kind in kinds().items() if len(set(kind)) < 2] == ["insulin"]


def test_an_answer_without_documents_claims_nothing_that_nobody_bears() -> None:
    reply = (
        "This sounds like reflux. Take omeprazole 20 mg once daily.\n\n"
        "Gaviscon helps. There is no need to see a doctor. Raise the bed."
    )
    said = "This sounds like reflux.\n\nRaise the bed."
    assert borne_alone(reply, ["It burns."]) == said
    assert borne_alone(reply, ["It burns. Which tablet helps?"]) == f"{said} {NO_CLAIM}"
    assert borne_alone("Rest, and drink plenty.", ["It burns."]) == "Rest, and drink plenty."
    own = "Omeprazole is a good choice. Raise the bed."
    assert borne_alone(own, ["May I take omeprazole?"]) == f"Raise the bed. {NO_CLAIM}"
    assert borne_alone("Take omeprazole 20 mg.", ["It burns."]) == NO_CLAIM
    assert borne_alone(NO_CLAIM, ["It burns."]) == NO_CLAIM


def test_answers_about_medicines_claim_nothing() -> None:
    talks = [json.loads(line)["messages"] for line in MEDICINES.read_text("utf-8").splitlines()]
    assert len(talks) >= 150
    for talk in talks:
        borne = Borne([], [each["content"] for each in talk if each["role"] == "user"])
        for answer in (each["content"] for each in talk if each["role"] == "assistant"):
            for start, end in sentences(answer):
                assert not borne.unborne(answer[start:end]), answer[start:end]


def test_answers_by_hand_cite_what_their_prompt_holds() -> None:
    answers = grounded()
    assert len(answers) > 500
    refusals = 0
    for each in answers:
        cited = {int(n) for n in re.findall(r"\[(\d+)\]", each.answer)}
        assert cited <= set(range(1, len(each.replies) + 1)), each.answer
        assert each.patient not in each.replies
        assert split(each.patient.patient) != "test"
        refusals += NONE in each.answer
        assert (NONE in each.answer) != bool(cited), each.answer
    assert 0.2 <= refusals / len(answers) <= 0.4
