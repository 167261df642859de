"""Which reply supports which sentence: the measure, and its ends."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from agent.chat.support import Sources, sentence_end, sentences, states, support
from agent.routing.embedding import TurnEmbedding
from agent.settings import ROOT
from index_store.embedding import Embed

MIGRAINE = (
    "This sounds like migraine. Rest in a dark room, and take ibuprofen 400 mg early.\n\n"
    "Do not drive while your sight flickers."
)
ACNE = "Benzoyl peroxide once a day for eight weeks is the usual first step."


@pytest.fixture(scope="module")
def embed(embed_questions: Embed) -> Embed:
    return TurnEmbedding(embed_questions).matrix


def never(texts: Sequence[str]) -> np.ndarray:
    raise AssertionError("nothing needs to be embedded")


def split(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


def test_sentences() -> None:
    assert split(
        "Take a painkiller, e.g. ibuprofen 400 mg. Then see Dr. Lee at 5 p.m. today. Ok?"
    ) == [
        "Take a painkiller, e.g. ibuprofen 400 mg.",
        "Then see Dr. Lee at 5 p.m. today.",
        "Ok?",
    ]
    assert split("**Rest.** Then:\n\n1. Drink\n- *Sleep.*  \n\n***\n") == [
        "**Rest.**",
        "Then:",
        "Drink",
        "*Sleep.*",
    ]
    assert split("¿Le duele? Él descansa.") == ["¿Le duele?", "Él descansa."]
    assert split("") == split(" \n ") == []


def test_a_line_that_breaks_off_goes_on_in_the_next() -> None:
    assert split("Take\ntwo tablets\nevery\n12 hours, \nplease.\nRest.") == [
        "Take\ntwo tablets\nevery\n12 hours, \nplease.",
        "Rest.",
    ]
    assert split("Rest\n\ndrink\n1. eat\n- sleep:\nwell\nThen go") == [
        *("Rest", "drink", "eat", "sleep:", "well", "Then go"),
    ]
    assert sentence_end("Take\n") is sentence_end("Take\n2") is None
    assert sentence_end("Take\n\n") == sentence_end("Take\n\n2") == 6


def test_a_citation_belongs_to_its_sentence() -> None:
    assert split("Rest. [1] Drink [2]. Sleep.") == ["Rest. [1]", "Drink [2].", "Sleep."]


def test_what_states_something() -> None:
    for said in ("Rest in the dark.", "The acid comes up.", "Duerma sobre el lado izquierdo."):
        assert states(said)
    for said in ("Thank you.", "I hope this helps.", "How long?", '"Does it hurt?"', "Gracias."):
        assert not states(said)
    assert not states("If it gets worse, please see your doctor.")
    assert not states("Acuda al médico si empeora.")


def test_a_source_that_is_cited_goes_first_where_it_says_so() -> None:
    held = Sources(["Rest in the dark.", "Rest in the dark, and drink.", ACNE], never)
    for cited, source, also in (((), 1, ()), ((2,), 2, ()), ((2, 1), 2, (1,)), ((3, 2), 2, ())):
        told = held.support("Rest in the dark.", cited)
        assert told is not None and (told.source, told.also) == (source, also)
    assert held.support("Yes.") is None


@pytest.mark.parametrize("text", ["a. " * 30_000, ".'" * 50_000, " " * 100_000, "- 1. " * 20_000])
def test_a_long_text_is_split(text: str) -> None:
    """No pattern takes the square of the length, which would not end here; benchmarks/rules.py."""
    text *= 3
    places = [place for span in sentences(text) for place in span]
    assert places == sorted(places) and all(place <= len(text) for place in places)


def test_each_sentence_has_the_reply_that_says_it(embed: Embed) -> None:
    answer = "Lie down in a dark room. Apply benzoyl peroxide once daily. The moon is full tonight."
    dark, peroxide, moon = support(answer, [MIGRAINE, ACNE], embed)
    assert [part.source for part in (dark, peroxide, moon)] == [1, 2, None]
    assert answer[dark.start : dark.end] == "Lie down in a dark room."
    assert dark.passage is not None
    assert MIGRAINE[slice(*dark.passage)].startswith("Rest in a dark room")
    assert moon.passage is None and moon.score < dark.score


def test_the_replys_own_words_need_no_embedding() -> None:
    first, second = support(
        "Rest in a dark room. Do not drive while sight flickers.", [MIGRAINE], never
    )
    assert (first.source, first.score) == (1, 1.0)
    assert second.source == 1


@pytest.mark.parametrize(
    "answer",
    [
        "Take ibuprofen 800 mg early and rest in a dark room.",  # a number that is not there
        "Do not rest in a dark room.",
        "You may drive while your sight flickers.",
        "Rest in a bright room.",
        "Rest in a dark room, and take ibuprofen 400 mg late.",
        "Rest in a dark room, and take paracetamol 400 mg early.",
        "This sounds unlike migraine.",
        "Yes.",
    ],
)
def test_what_the_reply_does_not_say_is_not_supported(answer: str, embed: Embed) -> None:
    assert all(part.source is None for part in support(answer, [MIGRAINE], embed))


def test_the_number_of_a_lists_item_is_not_a_claim(embed: Embed) -> None:
    (item,) = support("7. Rest in a dark room.", [MIGRAINE], embed)
    assert item.source == 1


def test_nothing_said_and_nothing_found() -> None:
    assert support("", [MIGRAINE], never) == []
    assert support("Rest in a dark room.", [], never)[0].source is None
    assert support("Rest in a dark room.", ["", "\n"], never)[0].source is None


def test_paraphrases_are_supported_and_other_replies_support_nothing(embed: Embed) -> None:
    """As `python -m benchmarks.support` measures it on many more pairs."""
    rows = [
        json.loads(line)
        for line in (ROOT / "benchmarks" / "support.jsonl").read_text("utf-8").splitlines()[:12]
    ]
    said = [row["said"] for row in rows]
    for place, row in enumerate(rows):
        (part,) = support(row["paraphrase"], said, embed)
        assert part.source in (place + 1, None)
    found = [support(row["paraphrase"], said, embed)[0].source for row in rows]
    assert sum(source is not None for source in found) >= 11
