"""How urgent a message is: totals on messages by authors of whom nothing was learned, the phrases,
and what may not change a verdict."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from agent.cli import app
from agent.errors import AgentError
from agent.evaluation.parts import router
from agent.evaluation.parts import triage as evaluation
from agent.evaluation.parts.labelled import Times
from agent.safety import phrases
from agent.safety.triage import CALM, Verdict, judge, triage, verdicts
from agent.settings import ROOT
from agent.understanding.encoder import Encoder, Reading, shipped
from agent.understanding.examples import examples
from agent.understanding.labels import Kind
from index_store.split import split

KINDS = get_args(Kind)


def reading(now: float, soon: float = 0.0, kind: str = "cardiac") -> Reading:
    degree = {"none": 1 - now - soon, "soon": soon, "now": now}
    kinds = {name: 0.9 if name == kind else 0.1 / 15 for name in KINDS}
    return Reading(degree, kinds, {"health": 1.0}, {"opens": 1.0}, (now + soon) * kinds["suicide"])


def test_the_degrees() -> None:
    assert judge("It hurts.", reading(0.95)) == Verdict("now", "cardiac")
    assert judge("It hurts.", reading(0.1, 0.85)) == Verdict("soon", "cardiac")
    assert judge("It hurts.", reading(0.02, 0.05)) == Verdict("none", None)
    assert judge("It hurts.", reading(0.95)).emergency
    assert not judge("It hurts.", reading(0.1, 0.85)).emergency


def test_a_crisis_of_suicide_is_an_emergency_whether_now_or_not() -> None:
    wish = judge("It hurts.", reading(0.2, 0.7, "suicide"))
    assert wish == Verdict("soon", "suicide") and wish.emergency
    # Whatever else is likelier in the same message.
    both = replace(reading(0.9, kind="overdose"), crisis=0.6)
    assert judge("It hurts.", both) == Verdict("now", "suicide")
    # And where it is not likely enough, it is not half a crisis.
    faint = replace(reading(0.1, 0.5, "suicide"), crisis=0.3)
    assert not judge("It hurts.", faint).emergency


def test_a_phrase_raises_the_odds_and_does_not_overrule_an_encoder_that_is_sure() -> None:
    text = "Doctor, I CAN\u2019T breathe!"
    assert phrases.unmistakable(text) == ["breathing"]
    assert judge(text, reading(0.3, kind="infant")).degree == "now"
    assert judge(text, reading(0.04)) == Verdict("none", None)
    assert judge("I can breathe.", reading(0.3)) == Verdict("none", None)


def test_a_crisis_is_not_hidden_by_another_phrase() -> None:
    text = "I can't breathe, I cry all night and I want to kill myself"
    assert phrases.unmistakable(text) == ["breathing", "suicide"]
    torn = replace(reading(0.5, kind="breathing"), crisis=0.2)
    assert judge(text, torn) == Verdict("now", "suicide")


def test_without_the_encoder_the_phrases_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Encoder:
        raise AgentError("The encoder cannot be loaded.")

    monkeypatch.setattr("agent.safety.triage.shipped", broken)
    assert verdicts(["my knee hurts", "I can't breathe"])[1] == Verdict("now", "breathing")
    assert triage("I can't breathe and I want to die") == Verdict("now", "suicide")
    with pytest.raises(AgentError, match="cannot be loaded"):
        triage("my knee hurts")


def test_phrases_are_found_as_people_type_them() -> None:
    assert phrases.unmistakable("me QUIERO matar") == ["suicide"]
    assert phrases.unmistakable("Se le ha torcido la c\u00e1ra") == ["stroke"]
    assert phrases.unmistakable("i want to\nkill\n  myself") == ["suicide"]
    for apostrophe in "'`\u2019\u00b4\u02bc\u2032\uff07":
        assert phrases.unmistakable(f"I can{apostrophe}t breathe") == ["breathing"]
    assert phrases.unmistakable("I can't brea\u00adthe") == ["breathing"]
    assert phrases.unmistakable("I cannot breathalyse him") == []
    assert phrases.unmistakable("") == []


@pytest.mark.usefixtures("encoder")
@pytest.mark.parametrize(
    "text", ["38,5", "16 weeks", "im 16 weeks pregnant", "he is 2 years old", "6 month old", "???"]
)
def test_who_somebody_is_alone_is_no_emergency(text: str) -> None:
    assert triage(text) == CALM


def test_what_says_more_than_who_somebody_is_is_read() -> None:
    for text in (
        "baby 3 weeks, 39",
        "mi bebé de un mes tiene 38.6",
        "he is 2 years old and blue",
        "help",
        "suicide",
    ):
        assert not phrases.tells_no_more_than_who(text)
    urgent = [row["text"] for row in examples() if row.get("degree") in ("now", "soon")]
    assert not any(map(phrases.tells_no_more_than_who, urgent))


def test_a_row_of_the_same_words_is_read_once() -> None:
    assert phrases.tells_no_more_than_who("I'm " * 5000 + "3")
    assert not phrases.tells_no_more_than_who("I'm " * 5000 + "sick")


def test_phrases_stand_in_few_messages_that_are_none() -> None:
    # Those who wrote bare lines and twins of emergencies wrote idioms and such words on purpose.
    twins = ("_lines", "twins", "twins_es", "_hints", "_kinds", "_loud", "_daily")
    others = [r for r in examples() if not r["author"].endswith(twins)]
    calm = [row["text"] for row in others if row.get("degree") == "none"]
    assert sum(bool(phrases.unmistakable(text)) for text in calm) <= len(calm) / 800


def test_the_table_of_phrases_is_one_page() -> None:
    table = phrases._patterns()
    assert set(table) <= set(KINDS)
    assert sum(pattern.pattern.count("|") + 1 for pattern in table.values()) <= 80


def test_what_is_held_out_was_not_learned() -> None:
    def bare(text: str) -> str:
        words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
        return " ".join(words) or text

    learned = {bare(row["text"]) for row in examples()}
    authors = {row["author"] for row in examples()}
    last = evaluation.LETTERS.with_name("letters_last.jsonl")
    for path in (evaluation.LETTERS, last, evaluation.SHORT, evaluation.ORDINARY, router.TURNS):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        texts = [row.get("text") or row["messages"][-1]["content"] for row in rows]
        assert [text for text in texts if bare(text) in learned] == []
        assert authors.isdisjoint({row["author"] for row in rows if "author" in row})
    held_out = [row for row in examples() if row["author"] == "sample"]
    assert held_out and all(split(row["text"]) == "train" for row in held_out)


# What was measured, less a case or two: another processor rounds otherwise.
RECALL_LETTERS, RECALL_SHORT = 0.97, 0.94
ALARMS_LETTERS, ALARMS_SHORT, ALARMS_USUAL = 0.045, 0.04, 0.04


@pytest.mark.usefixtures("encoder")
def test_letters_and_lines_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is timed is forgotten and read anew, and the router reads the same letters below.
    monkeypatch.setattr(evaluation, "times", lambda _: Times(1.0, 1.0))
    shown = CliRunner().invoke(app, ["evaluate", "triage", "--json"])
    assert shown.exit_code == 0
    printed = {each["total"]["name"]: each["total"] for each in json.loads(shown.stdout)["sets"]}
    assert list(printed) == [
        "held-out letters",
        "held-out short messages",
        "ordinary short messages",
    ]
    letters, short, usual = printed.values()
    assert letters["recall"]["of"] >= 130 and letters["call_now"]["of"] >= 200
    for found, floor in ((letters, RECALL_LETTERS), (short, RECALL_SHORT)):
        assert share(found["recall"]) >= floor, found
    assert share(letters["call_now"]) <= ALARMS_LETTERS, letters
    assert share(short["call_now"]) <= ALARMS_SHORT, short
    assert share(usual["call_now"]) <= ALARMS_USUAL, usual


# Retrieved and left alone, as measured, less a case or two: another processor rounds otherwise.
SINGLE, TALK, LETTERS = (0.98, 0.95), (0.90, 0.80), (0.99, 0.85)


@pytest.mark.usefixtures("encoder")
def test_on_conversations_never_trained_on() -> None:
    result = router.measure("router", router.cases())
    turns = router.measure("turns", router.cases(router.TURNS))
    letters = router.measure("letters", router.letters())
    assert result.total.retrieved + result.total.missed > 250
    assert result.total.left_alone + result.total.needless > 250
    assert result.single.recall >= SINGLE[0] and result.single.specificity >= SINGLE[1], result
    for found in (result.in_conversation, turns.in_conversation):
        assert found.recall >= TALK[0] and found.specificity >= TALK[1], found
    assert letters.total.recall >= LETTERS[0] and letters.total.specificity >= LETTERS[1], letters
    assert result.calibration_error <= 0.05


def share(count: dict[str, int]) -> float:
    return count["found"] / count["of"]


@pytest.mark.usefixtures("encoder")
def test_a_first_set_of_an_earlier_hand() -> None:
    first = evaluation.measure(
        "first", evaluation.cases(ROOT / "tests" / "data" / "triage_first.jsonl")
    ).total
    assert first.recall.share >= 0.95 and first.call_now.share <= 0.06, first


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"text": 5}', "Line 2 of .* needs a text as text, not int"),
        ('{"text": "Hi", "kind": 5}', "Line 2 of .* needs a text as kind, or a list of texts"),
        ('{"text": "Hi", "kind": [5]}', "Line 2 of .* needs a text as kind, or a list of texts"),
        ('{"text": "Hi", "language": null}', "Line 2 of .* needs a text as language"),
        ('{"text": "Hi", "degree": "high"}', "Line 2 of .*'high' is no degree"),
    ],
)
def test_a_case_of_another_kind_is_one_sentence(line: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(f"\n{line}\n")
    with pytest.raises(AgentError, match=told):
        evaluation.cases(path)


@pytest.mark.usefixtures("encoder")
def test_what_surrounds_an_emergency_does_not_hide_it_nor_length_make_one() -> None:
    calm = (
        "I have had this itch between my toes since we came back from the lake in August, and the "
        "cream from the pharmacy made it better and then it came back. My sister says it is the "
        "rubber boots. Is there anything I could put in them overnight? "
    )
    urgent = "My father cannot lift his left arm since lunch and his speech is all slurred. "
    assert triage(calm).degree == "none"
    assert triage(calm * 20).degree == "none"
    for text in (urgent + calm, calm + urgent + calm, calm * 8 + urgent + calm * 8):
        assert triage(text) == Verdict("now", "stroke")


@pytest.mark.usefixtures("encoder")
def test_what_nobody_sees_within_a_word_hides_no_emergency() -> None:
    for text in ("Quiero matarme", "mi hijo est\u00e1 convulsionando", "I want to kill myself"):
        assert triage("\u200b".join(text)) == triage("\u00ad".join(text)) == triage(text)
        assert triage(text).emergency


@pytest.mark.usefixtures("encoder")
def test_any_text_has_a_verdict_and_company_changes_none() -> None:
    texts = ["", " ", "\ud800?".encode("utf-8", "replace").decode(), "a" * 20_000, "???", "\n" * 50]
    texts += ["i want to\nkill\nmyself", "thank you doctor"]
    together = verdicts(texts)
    shipped().forget()
    assert together == [triage(text) for text in texts]
    assert verdicts(texts)[-2] == Verdict("now", "suicide")
    assert verdicts(texts)[-1] == Verdict("none", None)


@pytest.mark.usefixtures("encoder")
def test_the_command_reads_many_lines_in_order() -> None:
    lines = ['{"text": "my dad has collapsed and is not breathing"}', '{"text": "thanks"}']
    shown = CliRunner().invoke(app, ["triage"], input="\n".join(lines))
    first, second = map(json.loads, shown.stdout.splitlines())
    assert first["emergency"] is True and first["degree"] == "now"
    assert second == {"emergency": False, "degree": "none", "kind": None}


@pytest.mark.usefixtures("encoder")
def test_a_message_is_timed() -> None:
    timed = evaluation.times(["thanks", "my knee hurts"])
    assert 0 < timed.median <= timed.percentile_99
