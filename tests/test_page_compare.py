"""Compare all four on the page.

The first half drives Chainlit's own handlers with a scripted LLM, so that each state can be held;
the second half is a real browser with the models that come with medraft.
"""

# ruff: noqa: F811
from __future__ import annotations

import re
from typing import Any

import chainlit as cl
from chainlit.chat_context import chat_context
from chainlit.context import init_ws_context
from playwright.sync_api import Page, expect

from agent.errors import AgentError
from agent.page import columns, compare
from agent.page.columns import Comparison

from browsing import HEADACHE, PATIENCE, Frames, answered, ask, compared, needs_browser, region
from serving import until
from test_conversation import ANSWERED, COMPLAINT, Chat, chat  # noqa: F401

FOUR = ["base", "RAG", "fine-tuned", "RAFT"]
COMMAND = {"command": "Compare all four"}
KNEES = "Why do my knees creak?"


def comparison(chat: Chat) -> Comparison:
    """The last one, as it is kept."""
    init_ws_context(chat.sid)
    kept = [Comparison.of(message.metadata) for message in chat_context.get()]
    found = [each for each in kept if each is not None]
    assert found, "There is no comparison."
    return found[-1]


def states(chat: Chat) -> list[str]:
    return [column.state for column in comparison(chat).columns]


def behaviours(chat: Chat) -> list[str]:
    """Of the conversation's answers, as they stand on the screen."""
    kept = [step.get("metadata") or {} for step in chat.screen._tree()]
    return [each["behaviour"] for each in kept if "behaviour" in each]


async def click(chat: Chat, name: str, **payload: Any) -> None:
    """One of the buttons of the comparison, or below the last answer."""
    context = init_ws_context(chat.sid)
    assert context.session
    button = cl.Action(name=name, payload=payload)
    if name == columns.COMPARE:
        answer = [m for m in chat_context.get() if "behaviour" in (m.metadata or {})][-1]
        button.forId = answer.id
        await compare.by_click(chat.conversation, button)
    else:
        shown = [m for m in chat_context.get() if Comparison.of(m.metadata)][-1]
        button.payload["message"] = shown.id
        await compare.take_over(chat.conversation, button)


async def test_a_comparison_leaves_memory_as_it_was(chat: Chat) -> None:
    await chat.send(KNEES)
    await chat.idle()
    before = chat.memory()
    await chat.send(COMPLAINT, **COMMAND)
    await chat.idle()
    assert chat.memory() == before
    asked = comparison(chat)
    assert [column.behaviour for column in asked.columns] == FOUR
    assert states(chat) == ["finished", "finished", "failed", "failed"]
    assert "no fine-tuned LLM" in asked.columns[2].failure
    assert asked.columns[0].answer == ANSWERED
    assert asked.columns[1].sources and asked.columns[0].sources is None
    # All four were asked after what had been said before.
    assert all(KNEES in [m.content for m in prompt] for prompt in chat.llm.prompts[1:])


async def test_stop_keeps_what_was_said_and_it_can_be_tried_again(chat: Chat) -> None:
    chat.llm.go["writing"].clear()
    await chat.send(COMPLAINT, **COMMAND)
    await until(lambda: len(chat.llm.prompts) == 1)
    await until(lambda: any(Comparison.of(s.get("metadata")) for s in chat.screen._tree()))
    await chat.stop()
    await chat.idle()
    assert states(chat) == ["stopped"] * 4
    assert ANSWERED.startswith(comparison(chat).columns[0].answer.strip() or "nothing")
    assert len(chat.llm.prompts) == 1 and chat.llm.closed

    chat.llm.go["writing"].set()
    await chat.retry()
    await chat.idle()
    assert states(chat) == ["finished", "finished", "failed", "failed"]


async def test_a_comparison_waits_for_the_models_and_can_be_stopped_before(chat: Chat) -> None:
    chat.llm.go["loading"].clear()
    await chat.send(COMPLAINT, **COMMAND)
    await until(lambda: any("being loaded" in text for text in chat.screen.seen))
    await chat.stop()
    await chat.idle()
    chat.llm.go["loading"].set()
    await chat.retry()
    await chat.idle()
    assert states(chat) == ["finished", "finished", "failed", "failed"]
    assert not any("being loaded" in text for _, text in chat.screen.messages())


async def test_an_edited_question_is_compared_again(chat: Chat) -> None:
    asked = await chat.send(COMPLAINT, **COMMAND)
    await chat.idle()
    await chat.edit(asked, KNEES)
    await chat.idle()
    assert comparison(chat).question == KNEES
    assert [text for _, text in chat.screen.messages()] == [KNEES, ""]


async def test_the_command_alone_asks_for_a_question(chat: Chat) -> None:
    await chat.send("", **COMMAND)
    await chat.idle()
    assert "Write a question" in chat.screen.messages()[-1][1]
    assert chat.llm.prompts == []


async def test_an_answer_to_the_command_is_taken_over_where_it_was_asked(chat: Chat) -> None:
    await chat.send("thank you doctor")
    await chat.idle()
    await chat.send(COMPLAINT, **COMMAND)
    await chat.idle()
    chat.llm.script = ["Later."]
    await chat.send(KNEES)
    await chat.idle()
    before = chat.memory()

    await click(chat, columns.CONTINUE, behaviour="base")
    await chat.idle()
    exchange = [("user", COMPLAINT), ("assistant", ANSWERED)]
    assert chat.memory() == [*before[:2], *exchange, *before[2:]]
    assert comparison(chat).taken == "base"
    assert behaviours(chat) == ["RAG", "base", "RAG"]

    # Another one in its place; and what is asked again after it is remembered after it.
    await click(chat, columns.CONTINUE, behaviour="RAG")
    await chat.idle()
    rag = comparison(chat).columns[1].answer
    assert chat.memory()[2:4] == [("user", COMPLAINT), ("assistant", rag)]
    assert behaviours(chat) == ["RAG", "RAG", "RAG"]
    await chat.retry()
    await chat.idle()
    assert len(chat.memory()) == 6


async def test_below_an_answer_one_takes_its_place(chat: Chat) -> None:
    asked = await chat.send(COMPLAINT)
    await chat.idle()
    rag = chat.memory()
    await click(chat, columns.COMPARE, message=asked)
    await chat.idle()
    assert chat.memory() == rag
    await click(chat, columns.CONTINUE, behaviour="base")
    await chat.idle()
    assert chat.memory() == [("user", COMPLAINT), ("assistant", ANSWERED)]
    assert behaviours(chat) == ["base"]
    assert [text for _, text in chat.screen.messages()] == [COMPLAINT, "", ANSWERED]
    # One that was compared before takes its place again, and no second one's.
    await click(chat, columns.CONTINUE, behaviour="RAG")
    await chat.idle()
    assert behaviours(chat) == ["RAG"] and chat.memory() == rag
    # The step of the answer that is gone has gone with it.
    assert [s["type"] for s in chat.screen._tree() if not s["type"].endswith("message")] == ["run"]


async def test_an_error_in_the_middle_is_a_sentence_in_its_column(chat: Chat) -> None:
    chat.llm.script = ["Rest ", AgentError("The engine is gone.")]
    await chat.send(COMPLAINT, **COMMAND)
    await chat.idle()
    assert [column.state for column in comparison(chat).columns] == ["failed"] * 4
    assert comparison(chat).columns[0].answer == "Rest"
    assert comparison(chat).columns[0].failure == "The engine is gone."


async def test_after_a_resume_it_is_as_it_was_and_one_can_be_taken_over(chat: Chat) -> None:
    await chat.send(KNEES)
    await chat.idle()
    await chat.send(COMPLAINT, **COMMAND)
    await chat.idle()
    thread = await chat.thread()
    await chat.resume(thread)
    (element,) = thread["elements"] or []
    shown = element["props"]
    assert shown is not None
    assert [column["name"] for column in shown["columns"]] == FOUR
    assert ANSWERED in shown["columns"][1]["answer"]
    assert shown["columns"][0]["buttons"][-1]["name"] == columns.CONTINUE

    await click(chat, columns.CONTINUE, behaviour="base")
    exchange = [("user", COMPLAINT), ("assistant", ANSWERED)]
    assert chat.memory()[2:] == exchange


@needs_browser
def test_a_question_goes_through_all_four_and_one_is_taken_over(page: Page) -> None:
    frames = Frames.of(page)
    page.reload()
    ask(page, "thank you doctor")
    answered(page)
    page.locator(".command-button", has_text="Compare all four").click()
    ask(page, HEADACHE)
    page.locator(".medraft-compare").wait_for(timeout=PATIENCE)
    # It stays the same while it grows: focus and the reader's place are not lost.
    page.evaluate("window.first = document.querySelector('.medraft-compare section')")
    compared(page)
    assert page.evaluate("window.first.isConnected")
    drawn = [text for text in frames.since("client_message") if '"name":"Compare"' in text]
    assert len(drawn) > 8

    headings = page.locator(".medraft-compare").get_by_role("heading").all_inner_texts()
    assert headings == FOUR
    for name in FOUR:
        text = region(page, name).inner_text()
        assert re.search(r"First word after \d+\.\d s, \d+ tokens in \d+\.\d s", text), text
    expect(region(page, "base").get_by_role("button", name="Source")).to_have_count(0)
    region(page, "RAFT").get_by_role("button", name="Source 1").click()
    expect(page.locator("#side-view-content")).to_contain_text("A doctor replied")

    said = region(page, "RAFT").locator(".medraft-compare-answer").inner_text()
    taken = region(page, "RAFT").get_by_role("button", name="Continue with this one")
    expect(taken).to_be_enabled()  # not while a source is being opened
    taken.press("Enter")
    status = page.locator(".medraft-compare").get_by_role("status")
    expect(status).to_contain_text("goes on from the answer of RAFT")
    answer = page.locator('[data-step-type="assistant_message"]').last
    expect(answer).to_have_text(re.compile(rf"^\s*{re.escape(said[:40])}"), use_inner_text=True)


@needs_browser
def test_below_an_answer_on_a_phone_and_after_a_reload(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    ask(page, HEADACHE)
    answered(page)
    page.locator(".ai-message").get_by_role("button", name="Compare all four").last.click()
    compared(page)
    lefts = {region(page, name).evaluate("e => e.offsetLeft") for name in FOUR}
    assert len(lefts) == 1  # one below the other
    too_wide = """[...document.querySelectorAll('.medraft-compare *')].filter(
        e => e.getBoundingClientRect().right > innerWidth).length"""
    assert page.evaluate(too_wide) == 0
    texts = [region(page, name).inner_text() for name in FOUR]
    page.reload()
    page.locator(".medraft-compare").last.wait_for(timeout=PATIENCE)
    for name, text in zip(FOUR, texts, strict=True):
        expect(region(page, name)).to_have_text(text, use_inner_text=True)
