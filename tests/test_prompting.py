"""The prompt of a turn: plain for any LLM, with the one exception by name."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from llama_index.core.base.llms.types import ChatMessage, MessageRole

from agent.behaviour import LLMChoice
from agent.chat.length import StopStrings
from agent.chat.prompting import BLOCK, CHARACTERS, as_read, fits, prompt, readable
from agent.errors import AgentError
from agent.llms.embedded import EMBEDDED
from agent.templates import render

from scripted import ScriptedLLM

SOURCES = ["Raise the head of the bed.", "Eat early in the evening."]
MESSAGE = "I wake with acid in my throat."
LARGE = "Meta-Llama-3-8B-Instruct"


async def last(name: str, choice: LLMChoice, sources: list[str] = SOURCES) -> tuple[str, str]:
    """The patient's message as an LLM of that name gets it, and the opening."""
    made = await prompt(ScriptedLLM(name=name), choice, [], MESSAGE, sources, 200)
    user = [m.content or "" for m in made.messages if m.role == MessageRole.USER]
    assert made.messages[0].content == render("system")
    return user[-1], made.opening


async def test_sources_are_numbered_and_to_be_cited_by_any_llm() -> None:
    ends: dict[LLMChoice, tuple[str, str]] = {
        "base": ("the number of its reply, as in", MESSAGE),
        "fine-tuned": (MESSAGE, "cite them as [1]"),
    }
    for choice, (before, after) in ends.items():
        text, opening = await last(LARGE, choice)
        assert opening == ""
        assert "\n[1] Raise the head" in text and "\n[2] Eat early" in text
        assert text.index("\n[2] Eat") < text.index(before) < text.index(after)
        for asked in ("no medicine or dose", "missing") if choice == "base" else ("no dose",):
            assert asked in text
        assert "Rewrite" not in text


async def test_only_the_embedded_base_llm_has_a_prompt_and_an_opening_of_its_own() -> None:
    for name in (EMBEDDED, f"{EMBEDDED}.Q8_0"):
        text, opening = await last(name, "base")
        assert opening and "Rewrite" in text and "[1]" not in text
        assert await last(name, "fine-tuned") == await last(LARGE, "fine-tuned")


@pytest.mark.parametrize(
    "heading", ["Rewrite the input text** to help.", "Rewrite the text as it is now:"]
)
async def test_the_embedded_llm_is_stopped_at_the_beginning_of_our_order(heading: str) -> None:
    made = await prompt(ScriptedLLM(name=EMBEDDED), "base", [], MESSAGE, SOURCES, 200)
    stops = StopStrings(made.orders)
    heading = f"Sleep on your left side.\n\n**{heading}"
    told = "".join(stops.before(letter) for letter in heading if not stops.found)
    assert told == "Sleep on your left side.\n\n**"
    large = await prompt(ScriptedLLM(name=LARGE), "base", [], MESSAGE, SOURCES, 200)
    assert all(order in (large.messages[-1].content or "") for order in large.orders)


def test_a_long_string_that_ends_an_answer_is_looked_for_no_farther_than_the_text() -> None:
    stops = StopStrings(["ab" * 500_000, "b" * 500_000])
    told = "".join(stops.before("cab") for _ in range(20))
    assert told + stops.held == "cab" * 20 and stops.found is None


def test_only_the_embedded_llm_reads_nothing_that_concerns_another_patient_alone() -> None:
    replies = [
        "At 46 you need a camera test. Raise the head of the bed. It fades within weeks, I think.",
        "Aspirin 75 mg protects the stent.",
    ]
    letters = ["I am a singer of 46.", "I take aspirin 75."]
    assert as_read(ScriptedLLM(name=LARGE), replies, letters, [MESSAGE]) == replies
    small = ScriptedLLM(name=f"{EMBEDDED}.Q8_0")
    assert as_read(small, replies, letters, [MESSAGE]) == ["Raise the head of the bed.", ""]
    theirs = as_read(small, replies, letters, ["I take aspirin 75.", MESSAGE])
    assert theirs[1] == replies[1]


async def test_without_sources_the_message_stands_alone() -> None:
    for name in (EMBEDDED, LARGE):
        for choice in ("base", "fine-tuned"):
            assert await last(name, choice, []) == (MESSAGE, "")


def test_no_dose_is_to_be_given_from_memory() -> None:
    assert "no dose of a medicine from memory" in render("system")


def test_what_no_window_has_room_for_is_cut_in_blocks_and_begins_with_the_patient() -> None:
    said = [
        ChatMessage(role=("assistant", "user")[n % 2], content="x" * 10 * CHARACTERS)
        for n in range(41)
    ]
    assert readable(said, 410) == said
    for room in (40, 34, 33):  # the same until another block has to go
        assert readable(said, 10 * room) == said[BLOCK + 1 :]
    assert readable(said, 320) == said[2 * BLOCK + 1 :]
    assert readable(said, 1) == []


async def test_whoever_makes_a_prompt_tells_the_llm_to_answer_in_the_patient_s_language() -> None:
    async def ours(message: str, history: Sequence[ChatMessage] = (), language: str = "en") -> str:
        made = await prompt(ScriptedLLM(), "base", history, message, [], 200, "Briefly.", language)
        return made.messages[0].content or ""

    system = f"{render('system')}\n\nBriefly."
    spanish = f"{system}\n\nAnswer in Spanish, the language in which the patient writes."
    asked = "Me duele mucho la garganta desde ayer y tengo fiebre."
    assert await ours(MESSAGE) == system == await ours("38,5")
    assert await ours(asked) == spanish == await ours("38,5", language="es")
    assert await ours("38,5", [ChatMessage(role=MessageRole.USER, content=asked)]) == spanish
    assert await ours("38,5", [ChatMessage(role="assistant", content=asked)]) == system


async def test_a_message_fits_where_its_prompt_is_made() -> None:
    llm = ScriptedLLM(window=700)
    room = 500 - await llm.count_tokens([ChatMessage(content=render("system"))])
    assert await fits(llm, "word " * room, 200)
    await prompt(llm, "base", [ChatMessage(content=MESSAGE)], "word " * room, SOURCES, 200)
    assert not await fits(llm, "word " * (room + 1), 200)
    with pytest.raises(AgentError, match="longer than the model can read"):
        await prompt(llm, "base", [], "word " * (room + 1), [], 200)
    assert not await fits(llm, "x" * 501 * CHARACTERS, 200)  # as a turn refuses it
