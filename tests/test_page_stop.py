"""Stop in the browser, of an answer and of a comparison, with an LLM that speaks slowly enough to
be stopped on any machine.

What Stop does in each state of a turn is tested in test_conversation.py.
"""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from agent.storage.threads import is_answer

from browsing import (
    PATIENCE,
    Frames,
    Server,
    answered,
    ask,
    compared,
    load_again,
    needs_browser,
    region,
    step,
    stop_at_once,
    stored_steps,
)
from storyteller import Storyteller

ASKED = "Write a long story about a doctor, with many chapters."


@pytest.fixture(scope="module")
def server(told: Server) -> Server:
    return told


@pytest.fixture
def slow(teller: Storyteller) -> Storyteller:
    teller.slow = True
    return teller


@needs_browser
def test_stop_keeps_what_was_said_and_the_next_message_is_answered(
    slow: Storyteller, page: Page
) -> None:
    frames = Frames.of(page)
    page.reload()
    ask(page, ASKED)
    page.wait_for_url("**/thread/*")  # where the chat is drawn anew
    answer = page.locator('[data-step-type="assistant_message"]')
    expect(answer).to_contain_text("There was", timeout=PATIENCE)
    page.locator("#stop-button").click()
    stopped = page.get_by_text("Stopped. The conversation goes on")
    stopped.wait_for(timeout=PATIENCE)
    expect(page.get_by_text("Task manually stopped")).to_have_count(0)
    step(page).click()
    expect(page.locator('[data-step-type="tool"]')).to_contain_text("ended before the answer")
    while not any("task_end" in text for text in frames.since('"stop"')):
        page.wait_for_timeout(100)
    after = frames.since('"stop"')
    ended = next(place for place, text in enumerate(after) if "task_end" in text)
    assert not any("stream_token" in text for text in after[ended:])
    said = answer.inner_text().strip()

    slow.slow = False
    ask(page, "And what became of the doctor?")
    answered(page)
    assert answer.first.inner_text().strip() == said

    load_again(page)
    expect(stopped).to_have_count(1)
    expect(answer).to_have_count(2)
    assert answer.first.inner_text().strip() == said


@needs_browser
def test_what_was_stopped_before_its_first_word_says_so(slow: Storyteller, page: Page) -> None:
    stop_at_once(page)
    ask(page, ASKED)
    stopped = page.get_by_text("Stopped")
    stopped.wait_for(timeout=PATIENCE)
    slow.slow = False
    page.get_by_role("button", name="Try again").click()
    expect(stopped).to_have_count(0)
    answered(page)
    expect(page.locator('[data-step-type="assistant_message"]')).to_have_count(1)


@needs_browser
def test_an_answer_that_the_patient_leaves_ends_there_and_can_be_tried_again(
    slow: Storyteller, page: Page
) -> None:
    ask(page, ASKED)
    page.wait_for_url("**/thread/*")
    answer = page.locator('[data-step-type="assistant_message"]')
    expect(answer).to_contain_text("There was", timeout=PATIENCE)
    address = page.url
    page.locator("#header #new-chat-button").click()
    page.locator("#confirm").click()
    page.locator("#starters button:enabled").first.wait_for()
    page.goto(address)
    page.get_by_text("Stopped. The conversation goes on").wait_for(timeout=PATIENCE)
    slow.slow = False
    page.get_by_role("button", name="Try again").click()
    answered(page)
    stored = [said for said in stored_steps(page) if is_answer(said)]
    assert len(stored) == 1
    expect(answer).to_have_count(1)


@needs_browser
def test_stop_of_a_comparison_keeps_what_was_said(slow: Storyteller, page: Page) -> None:
    slow.slow = False
    ask(page, ASKED)
    answered(page)
    slow.slow = True
    below = page.locator(".ai-message").get_by_role("button", name="Compare all four").last
    below.click()
    column = region(page, "base")
    expect(column).to_contain_text("There was", timeout=PATIENCE)
    page.locator("#stop-button").click()
    status = page.locator(".medraft-compare").get_by_role("status")
    expect(status).to_contain_text("Stopped.", timeout=PATIENCE)
    expect(column).to_contain_text("There was")

    slow.slow = False
    below.click()
    compared(page)
