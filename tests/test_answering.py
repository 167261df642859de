"""An answer as it streams: words at once, claims at their sentence's end, citations behind it.

Without models: an LLM that says what the test tells it, and sources that are compared by words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponseAsyncGen, MessageRole

from agent import settings
from agent.chat.answering import Answering
from agent.chat.claims import Borne, may_claim
from agent.chat.engine import PatientChatEngine
from agent.chat.events import Delta, Finished, Timing
from agent.chat.gate import Ended, Gate, Words
from agent.chat.marks import UNCHECKED, left_out, without_marks
from agent.chat.parts import Parts
from agent.chat.prompting import Prompt
from agent.chat.support import Sources
from agent.errors import AgentError
from agent.llms.interface import Engine, Sampling

from scripted import ScriptedLLM

REPLIES = [
    "Raise the head of the bed and eat early. Omeprazole 20 mg once daily helps.",
    "Sleep on the left side. Avoid late meals and chocolate.",
]
NOTE = left_out({"dose"}, "en", again=False)
AGAIN = left_out({"dose"}, "en", again=True)


class Retold(ScriptedLLM):
    """Says another script each time it is asked; the last one from then on."""

    def __init__(self, *scripts: str | list[str | Exception]) -> None:
        super().__init__()
        self.scripts = [_tokens(s) if isinstance(s, str) else s for s in scripts]
        self.sampling: list[dict[str, Any]] = []

    async def astream_chat(
        self, messages: Sequence[ChatMessage], **sampling: Any
    ) -> ChatResponseAsyncGen:
        self.script = self.scripts[min(len(self.prompts), len(self.scripts) - 1)]
        self.sampling.append(sampling)
        return await super().astream_chat(messages, **sampling)


def _tokens(text: str) -> list[str | Exception]:
    """As LLMs have them: the space before the word."""
    first, *rest = text.split(" ")
    return [first, *(f" {word}" for word in rest)]


def embed(texts: Sequence[str]) -> np.ndarray:
    """Nothing is like anything else but by its words."""
    return np.zeros((len(texts), 2))


def answering(
    llm: ScriptedLLM, replies: Sequence[str] = REPLIES, patient: str = "It burns.", **values: Any
) -> Answering:
    asked = Prompt([ChatMessage(role=MessageRole.USER, content=patient)], len(replies), "")
    chosen = settings.load(**{"max_tokens": 200} | values)
    sources = Sources(replies, embed) if replies else None
    borne = Borne(replies, [patient])
    drawn = Sampling(chosen.max_tokens, chosen.temperature, chosen.top_p)
    mode = chosen.claims
    return Answering(llm, asked, drawn, (), mode, borne, sources, "en", [], Timing(), 0.0)


async def told(answer: Answering) -> list[str]:
    async with aclosing(answer.events()) as events:
        texts = [event.text async for event in events if isinstance(event, Delta)]
    assert "".join(texts) == "".join(answer.said) and "".join(texts).strip() == answer.answer
    return texts


async def test_words_go_on_at_once() -> None:
    llm = Retold("The acid comes up at night. That burns.")
    answer = answering(llm)
    texts = await told(answer)
    # Until a space comes, a word may go on.
    assert texts == ["The", " acid", " comes", " up", " at", " night. ", "That", " burns."]
    assert not answer.claims.asked_anew and answer.ended and answer.timing.tokens == 8


async def test_a_sentence_with_a_claim_waits_for_its_end_and_is_shown_whole() -> None:
    answer = answering(Retold("It can help: omeprazole 20 mg once daily helps. Sleep well."))
    texts = await told(answer)
    assert texts == [
        *("It", " can", " help:"),
        " omeprazole 20 mg once daily helps. [1] ",
        *("Sleep", " well."),
    ]


async def test_what_nobody_bears_is_asked_for_anew_from_where_it_began() -> None:
    llm = Retold("Eat early. For that omeprazole 400 mg helps.", "raise the head of the bed.")
    answer = answering(llm)
    await told(answer)
    assert answer.answer == "Eat early. [1] For that raise the head of the bed. [1]"
    assert (answer.claims.asked_anew, answer.claims.left_out) == (1, 0)
    again = llm.prompts[1]
    assert [m.role for m in again] == [MessageRole.USER, MessageRole.ASSISTANT]
    assert again[1].content == "Eat early. [1] For that"
    assert llm.sampling[1]["temperature"] > llm.sampling[0]["temperature"]
    assert llm.sampling[1]["max_tokens"] < llm.sampling[0]["max_tokens"]


async def test_an_answer_that_begins_with_our_order_is_asked_for_anew() -> None:
    llm = Retold("1. **Rewrite this** and rest.", "Raise the head of the bed. Rewrite this!")
    answer = answering(llm)
    answer.asked = replace(answer.asked, orders=("Rewrite this",))
    answer.stop = answer.asked.orders
    await told(answer)
    assert answer.answer == "Raise the head of the bed. [1]"
    assert len(llm.prompts) == 2
    stubborn = answering(Retold("Rewrite this", "Rewrite this", "Rewrite this", "Eat early."))
    stubborn.asked, stubborn.stop = answer.asked, answer.stop
    await told(stubborn)
    assert stubborn.answer == ""


async def test_after_two_more_tries_it_is_left_out_with_a_note() -> None:
    llm = Retold("Take aspirin 200 mg daily. Eat early. Take it for two years. Sleep well.")
    answer = answering(llm)
    await told(answer)
    assert len(llm.prompts) > 3
    assert answer.answer.startswith(f"{NOTE} Eat early. [1] ")
    assert "200" not in answer.answer and "years" not in answer.answer
    assert answer.claims.left_out >= 2 and answer.claims.asked_anew >= 4
    assert answer.answer.count(NOTE) == 1 and AGAIN in answer.answer


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("You may stop\nyour pills. Eat early.", "You may … "),
        ("There is no\nneed to see a doctor. Eat early.", "There is … "),
        ("take\ntwo tablets\nevery day. Eat early.", ""),
        ("Dose: 250\nmg. Eat early.", ""),
        ("do **not** take your pills. Eat early.", "do **not** … "),
    ],
)
async def test_a_claim_is_one_however_it_is_laid_out(said: str, shown: str) -> None:
    rest = said.removeprefix(shown.removesuffix("… "))
    answer = answering(Retold(said, rest))
    await told(answer)
    assert answer.claims.left_out == 1
    assert answer.answer.startswith(f"{shown}(") and answer.answer.endswith(") Eat early. [1]")


async def test_of_a_sentence_that_is_left_out_no_claim_was_on_its_way() -> None:
    end = "aspirin 200 mg is best. Eat early."
    answer = answering(Retold(f"For the pain some say {end}", end))
    texts = await told(answer)
    assert answer.answer == f"For the pain some say … {NOTE} Eat early. [1]"
    assert not any("aspirin" in text or "200" in text for text in texts)
    assert without_marks(answer.answer) == "For the pain some say Eat early."


async def test_space_before_the_first_word_of_a_stream_is_nobodys() -> None:
    llm = Retold(
        ["\n", "Eat ", "early.\n\n", "Take ", "aspirin."], ["\n\n", "\n", "Sleep ", "well."]
    )
    answer = answering(llm)
    await told(answer)
    assert answer.answer == "Eat early. [1]\n\nSleep well."


async def test_notes_that_would_stand_together_are_one() -> None:
    one, two = "Take aspirin. Take ibuprofen. Sleep well.", "Take codeine. Sleep well."
    answer = answering(Retold(one, one, one, two))
    await told(answer)
    assert answer.answer == f"{NOTE} Sleep well."
    assert answer.claims.left_out == 2


async def test_an_answer_of_claims_alone_ends() -> None:
    llm = Retold("Take aspirin 200 mg.")
    answer = answering(llm, replies=[])
    await told(answer)
    assert answer.answer == NOTE and len(llm.prompts) == 3 and answer.ended


async def test_asking_anew_ends_with_the_tokens() -> None:
    llm = Retold("It is warm. Take aspirin 200 mg daily with food.")
    answer = answering(llm, max_tokens=9)
    await told(answer)
    assert all(sampling["max_tokens"] >= 1 for sampling in llm.sampling)
    assert not answer.ended and "aspirin" not in answer.answer


@pytest.mark.parametrize("claims", ["marked", "raw"])
async def test_claims_may_be_marked_or_left_alone(claims: str) -> None:
    llm = Retold("Take aspirin 200 mg. Sleep on the left side.")
    answer = answering(llm, claims=claims)
    texts = await told(answer)
    mark = UNCHECKED if claims == "marked" else ""
    assert answer.answer == f"Take aspirin 200 mg.{mark} Sleep on the left side. [2]"
    assert texts[:2] == ["Take", " aspirin"] and len(llm.prompts) == 1
    (unborne,) = answer.claims.unborne
    assert answer.answer[unborne.start : unborne.end] == "Take aspirin 200 mg."
    assert unborne.kinds == ["dose", "medicine"]


async def test_the_patients_own_words_bear_a_dose() -> None:
    patient = "I take aspirin 200 mg daily."
    answer = answering(Retold("Your aspirin 200 mg may burn."), [], patient)
    await told(answer)
    assert answer.answer == "Your aspirin 200 mg may burn."


async def test_a_changed_dose_in_a_reply_changes_what_may_be_said() -> None:
    llm = Retold("Take omeprazole 20 mg once daily.", "Take omeprazole 40 mg once daily.")
    answer = answering(llm, [REPLIES[0].replace("20", "40")])
    await told(answer)
    assert answer.answer == "Take omeprazole 40 mg once daily. [1]"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("Raise the bed [1]. Eat early.", "Raise the bed. [1] Eat early. [1]"),
        ("Raise the bed. [1] That burns.", "Raise the bed. [1] That burns."),
        # Its source does not say so; another does, or none.
        ("Sleep on the left side. [1]", "Sleep on the left side. [2]"),
        ("Dance on the table. [2] Sing aloud [1].", "Dance on the table. Sing aloud."),
        ("Dance on the table. [9]", "Dance on the table."),
        # Where it has none, one is found.
        ("Avoid late meals and chocolate.", "Avoid late meals and chocolate. [2]"),
        ("Eat early. [1, 2] [2]", "Eat early. [1]"),
        ("[1] Raise the bed.", "Raise the bed. [1]"),
        ("[2]  Dance on the table. Eat early.", "Dance on the table. Eat early. [1]"),
        ("1. Eat early. [2]\n2. That burns.", "1. Eat early. [1]\n2. That burns."),
        ("It burns [so they say], eat", "It burns [so they say], eat"),
    ],
)  # fmt: skip
async def test_a_citation_stands_where_its_source_says_so(written: str, shown: str) -> None:
    at_once: list[str | Exception] = [written]
    for said in ([*written], at_once):  # a character at a time
        answer = answering(Retold(said))
        await told(answer)
        assert answer.answer == shown
        for part in answer.support:
            sentence = answer.answer[part.start : part.end]
            assert sentence[0].isupper() and "[" not in sentence.replace("[so", "")
    assert without_marks("Eat early. [1] [2] Rest. [?]") == "Eat early. Rest."


async def test_two_sources_that_both_say_so_are_both_cited() -> None:
    answer = answering(Retold("Eat early. [2][1]"), [*REPLIES, "Eat early, and less."])
    await told(answer)
    assert answer.answer == "Eat early. [1]"
    answer = answering(Retold("Eat early. [3][1]"), [*REPLIES, "Eat early, and less."])
    await told(answer)
    assert answer.answer == "Eat early. [3] [1]"
    assert (answer.support[0].source, answer.support[0].also) == (3, (1,))


async def test_citations_that_come_at_once_stay_with_their_sentences() -> None:
    bed, side = "Raise the head of the bed", "Sleep on the left side"
    answer = answering(Retold([f"{bed} [1]. {side} [2]. That burns."]))
    await told(answer)
    assert answer.answer == f"{bed}. [1] {side}. [2] That burns."


async def test_the_last_sentence_is_checked_though_it_was_shown_by_then() -> None:
    answer = replace(answering(Retold("Sleep on the left side. END")), stop=("END",))
    await told(answer)
    assert answer.answer == "Sleep on the left side. [2]" and len(answer.support) == 1


async def test_an_answer_that_was_cut_and_then_asked_for_anew_has_ended() -> None:
    llm = Retold("Eat early and rest. Omeprazole 400 mg helps very much.", "raise the bed.")
    answer = answering(llm, max_tokens=12)  # 9 are enough
    await told(answer)
    assert answer.claims.asked_anew == 1 and answer.timing.tokens == 8 and answer.ended


async def test_without_replies_there_is_nothing_to_cite() -> None:
    answer = answering(Retold("Eat early. [1]"), [])
    await told(answer)
    assert (answer.answer, answer.support) == ("Eat early.", [])


def engine(llm: ScriptedLLM) -> PatientChatEngine:
    """A conversation without an index and an encoder."""
    chosen = settings.load(max_tokens=100, retrieval="never", llm="base")
    served = Engine("scripted", "scripted", base=llm, fine_tuned=None)
    parts = Parts(chosen, served, cast(Any, None), cast(Any, None))

    async def loading() -> Parts:
        return parts

    begun = PatientChatEngine(chosen, loading)
    begun.watchful = False
    return begun


async def test_memory_holds_what_was_shown_and_the_llm_is_told_its_own_words() -> None:
    end = "ibuprofen is best. It burns."
    llm = Retold(f"Some say that {end}", end)
    talk = engine(llm)
    async with aclosing(talk.turn("It burns.")) as events:
        *_, finished = [event async for event in events]
    assert isinstance(finished, Finished)
    assert finished.answer == f"Some say that … {NOTE} It burns."
    assert [m.content for m in talk.chat_history] == ["It burns.", finished.answer]
    llm.scripts = [_tokens("Well.")]
    async with aclosing(talk.turn("And now?")) as events:
        [_ async for _ in events]
    assert [m.content for m in llm.prompts[-1][1:]] == [
        "It burns.",
        "Some say that It burns.",
        "And now?",
    ]


async def test_stop_in_the_middle_of_a_sentence_that_waits() -> None:
    llm = Retold(["Some ", "say ", "ibuprofen ", "400 ", "mg ", "is ", "best."])
    talk, seen, held = engine(llm), [], asyncio.Event()
    stream = llm._stream

    async def until_held() -> ChatResponseAsyncGen:
        async with aclosing(stream()) as responses:
            async for response in responses:
                yield response
                if response.delta == "mg ":
                    held.set()
                    await asyncio.Event().wait()

    llm._stream = until_held  # type: ignore[method-assign]

    async def patient() -> None:
        async with aclosing(talk.turn("It burns.")) as events:
            async for event in events:
                seen.append(event)

    task = asyncio.create_task(patient())
    await held.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [event.text for event in seen if isinstance(event, Delta)] == ["Some", " say"]
    assert llm.closed
    assert [m.content for m in talk.chat_history] == ["It burns.", "Some say"]


async def test_a_sentence_that_is_said_again_is_not_shown_again() -> None:
    words: list[str | Exception] = [
        "Eat early. ",
        "Rest ",
        "more. ",
        "Eat ",
        "early. ",
        "Rest ",
        "often. ",
    ]
    answer = answering(llm := Retold(words))
    deltas = [d.text async for d in answer.events() if isinstance(d, Delta)]
    assert answer.answer == "Eat early. [1] Rest more." and not answer.ended
    assert "Eat" not in "".join(deltas[1:]) and llm.closed


async def test_an_engine_that_fails_keeps_the_held_sentence_to_itself() -> None:
    talk = engine(Retold(["It ", "burns. ", "Take ", "ibuprofen ", AgentError("It failed.")]))
    with pytest.raises(AgentError, match="failed"):
        async with aclosing(talk.turn("It burns.")) as events:
            [event async for event in events]
    assert talk.chat_history[-1].content == "It burns."


def pieces(gate: Gate, text: str, size: int) -> list[Words | Ended]:
    found: list[Words | Ended] = []
    for start in range(0, len(text), size):
        found += gate.push(text[start : start + size])
    return [*found, *gate.close()]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_the_pieces_make_the_text(size: int) -> None:
    text = 'He said "eat early." Then:\n\n1. Take 20 mg, e.g. now.\n2. Rest in the dark! ¿Sí? Sí'
    whole = ""
    for piece in pieces(Gate(may_claim), text, size):
        whole += piece.text if isinstance(piece, Words) else piece.rest + piece.space
    assert whole == text
    ends = [p.sentence for p in pieces(Gate(may_claim), text, size) if isinstance(p, Ended)]
    assert [end for end in ends if end] == [
        'He said "eat early."',
        "Then:",
        *("1.", "Take 20 mg, e.g. now.", "2.", "Rest in the dark!"),
        *("¿Sí?", "Sí"),
    ]
