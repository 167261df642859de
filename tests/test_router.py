"""The router on conversations that it never saw in training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.errors import AgentError
from agent.evaluation.parts import router as evaluation
from agent.evaluation.parts import triage
from agent.routing.query import queries
from agent.routing.router import route

Messages = list[dict[str, str]]


def said(*texts: str) -> Messages:
    """A conversation: what the patient says, and the doctor, in turn."""
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]


@pytest.mark.usefixtures("encoder")
def test_calibration_counts_every_message(tmp_path: Path) -> None:
    rows = [
        {"messages": said(text), "retrieve": retrieve, "kind": kind}
        for text, retrieve, kind in [
            ("My knee is swollen and hot.", True, "complaint"),
            ("Good morning!", False, "greeting"),
            ("I have had a fever for three days.", False, "wrong on purpose"),
        ]
    ]
    result = evaluation.measure("three", rows)
    assert result.total == evaluation.Confusion(1, 0, 1, 1)
    assert result.by_kind["greeting"] == evaluation.Confusion(0, 0, 1, 0)
    assert sum(each.of for each in result.calibration) == 3
    assert result.calibration_error == pytest.approx(1 / 3, abs=0.1)
    evaluation.plot([result], tmp_path / "calibration.svg")
    assert "<svg" in (tmp_path / "calibration.svg").read_text()
    with pytest.raises(AgentError, match=r"must end in \.svg"):
        evaluation.check_plot(tmp_path / "calibration.doc")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"retrieve": true}', "needs the fields messages, retrieve"),
        ('{"messages": [], "retrieve": true}', "end with the user's"),
        (
            '{"messages": [{"content": "Hm"}, {"role": "user", "content": "H"}], "retrieve": true}',
            "line 3 of .* must be role and content",
        ),
        (
            '{"messages": [{"role": "user", "content": "Hi"}], "retrieve": 1}',
            "Line 3.*true or false",
        ),
        (
            '{"messages": [{"role": "user", "content": "Hi"}], "retrieve": true, "kind": ["a"]}',
            "Line 3 of .* needs a text as kind, not list",
        ),
        ("{", "is not JSON"),
    ],
)
def test_cases_that_are_none_are_one_sentence(line: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    whole = {"messages": said("Hi"), "retrieve": False}
    path.write_text(f"{json.dumps(whole)}\n\n{line}")
    with pytest.raises(AgentError, match=told):
        evaluation.cases(path)


@pytest.mark.parametrize("value", [None, ["flip"]])
def test_others_questions_and_intents_that_are_no_text_are_one_sentence(
    value: object, tmp_path: Path
) -> None:
    path = tmp_path / "others.jsonl"
    path.write_text(json.dumps({"question": value, "text": "flip", "intent": value}))
    with pytest.raises(AgentError, match=r"Line 1 of .* needs a text as question"):
        evaluation.questions(path)
    with pytest.raises(AgentError, match=r"Line 1 of .* needs a text as question"):
        triage.questions(path, "question")
    with pytest.raises(AgentError, match=r"Line 1 of .* needs a text as intent"):
        evaluation.clinc(path)


def test_clinc_without_health(tmp_path: Path) -> None:
    path = tmp_path / "clinc.jsonl"
    rows = [("which shots for ghana", "vaccines"), ("hi", "greeting"), ("flip", "flip_coin")]
    path.write_text("".join(json.dumps({"text": t, "intent": i}) + "\n" for t, i in rows))
    assert [row["kind"] for row in evaluation.clinc(path)] == ["small talk", "small talk"]


@pytest.mark.usefixtures("encoder")
def test_an_answer_is_looked_up_and_an_acknowledgement_is_not() -> None:
    sore = "I have a sore throat and a temperature."
    asks, tells = "I am sorry. Do you have white spots?", "I am sorry. Rest and drink plenty."
    assert route(said(sore, asks, "yes"))[0].retrieve
    assert not route(said(sore, tells, "ok"))[0].retrieve


@pytest.mark.usefixtures("encoder")
def test_a_follow_up_is_searched_with_what_it_follows() -> None:
    asked = said("I have had a headache for three days.", "Since when?", "yes, since Monday")
    _, turns = route(asked)
    assert turns == ["I have had a headache for three days.", "yes, since Monday"]


@pytest.mark.usefixtures("encoder")
def test_small_talk_is_no_context() -> None:
    asked = said("Good morning!", "Good morning, how can I help?", "My knee is swollen.")
    assert route(asked)[1] == ["My knee is swollen."]


@pytest.mark.usefixtures("encoder")
def test_a_conversation_of_any_length_and_any_text_is_routed() -> None:
    long = said(*["I cough.", "For how long?"] * 200, "x" * 5000)
    assert route(long)[1][-1] == "x" * 5000
    assert not route(said(""))[0].retrieve


def test_a_message_is_searched_alone_and_then_with_what_it_goes_on_from() -> None:
    headache, daughter = "I have a headache.", "By the way, my daughter has a rash on both arms."
    assert queries([headache]) == [headache]
    assert queries([headache, "since Monday"]) == [f"since Monday\n{headache}"]
    assert queries([headache, daughter]) == [daughter, f"{daughter}\n{headache}"]
