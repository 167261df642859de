"""A turn in the browser: its badge, its step, edit, another try, the choices.

What happens in each state of a turn is tested in test_conversation.py.
"""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from browsing import (
    HEADACHE,
    PATIENCE,
    Server,
    answered,
    ask,
    choose,
    load_again,
    needs_browser,
    step,
)


@pytest.fixture(scope="module")
def server(told: Server) -> Server:
    """What the LLM says is no matter here."""
    return told


def pick(page: Page, choice: str, option: str) -> None:
    """Pick an option in the composer."""
    page.locator(f"#mode-picker-trigger-{choice}").click()
    page.locator(f"#mode-picker-popover-{choice}").get_by_role("option", name=option).click()


def picked(page: Page, choice: str) -> str:
    return page.locator(f"#mode-picker-trigger-{choice}").inner_text()


def badge(page: Page) -> Locator:
    """The badge of the last answer."""
    last = page.locator('[data-step-type="assistant_message"]').last
    return last.get_by_role("img", name="Avatar for")


def again(page: Page) -> Locator:
    return page.get_by_role("button", name="Try again")


@needs_browser
def test_choices_badge_and_another_try_live_through_a_resume(page: Page) -> None:
    pick(page, "retrieval", "Retrieval: always")
    page.locator("#chat-settings-open-modal").click()
    panel = page.locator("#chat-settings")
    expect(panel.locator("#retrieval")).to_have_text("always")
    panel.get_by_role("button", name="Cancel").click()  # a key may come before it listens
    panel.wait_for(state="detached")
    ask(page, HEADACHE)
    answered(page)
    expect(badge(page)).to_have_accessible_name("Avatar for RAG")
    expect(badge(page)).to_have_js_property("complete", True)
    box = badge(page).bounding_box()
    assert box is not None and box["width"] > 30 and box["height"] < 24

    choose(page, "retrieval", "never")
    expect(page.locator("#mode-picker-trigger-retrieval")).to_have_text("Retrieval: never")
    expect(again(page)).to_have_count(1)
    again(page).click()
    expect(badge(page)).to_have_accessible_name("Avatar for base", timeout=PATIENCE)
    answered(page)
    answer = page.locator('[data-step-type="assistant_message"]')
    expect(answer).to_have_count(1)
    said = answer.inner_text()

    load_again(page)
    expect(answer).to_have_text(said, use_inner_text=True, timeout=PATIENCE)
    expect(badge(page)).to_have_accessible_name("Avatar for base")
    expect(page.locator("#mode-picker-trigger-retrieval")).to_have_text("Retrieval: never")
    pick(page, "retrieval", "Retrieval: always")
    again(page).click()
    expect(badge(page)).to_have_accessible_name("Avatar for RAG", timeout=PATIENCE)
    answered(page)
    expect(page.locator(".step")).to_have_count(3)  # the message, the step, the answer


@needs_browser
def test_the_step_says_why_and_how_long_in_the_pages_language(
    server: Server, browser: Browser
) -> None:
    page = browser.new_context(locale="es-MX").new_page()
    page.goto(server.url)
    page.locator("#starters button:enabled").first.wait_for()
    ask(page, "What helps against migraine?")
    answered(page)
    step(page).click()
    facts = page.locator('[data-step-type="retrieval"]')
    for fact in (
        "Modo: RAG",
        re.compile(r"Motivo: una pregunta de salud \(puntuación [01],\d\d\)"),
        "Fuentes: ",
        "tokens",
    ):
        expect(facts).to_contain_text(fact)
    expect(page.get_by_role("button", name="Intentar de nuevo")).to_be_visible()
    assert picked(page, "retrieval") == "Consulta: auto"
    page.context.close()


@needs_browser
def test_an_edited_message_is_answered_in_place_of_all_that_came_after(page: Page) -> None:
    pick(page, "retrieval", "Retrieval: never")
    ask(page, "What can I do about a cough?")
    answered(page)
    ask(page, "thank you doctor")
    answered(page)

    page.locator('[data-step-type="user_message"]').first.hover()
    page.locator(".edit-message").first.click()
    page.locator("#edit-chat-input").fill("What can I do about hay fever?")
    page.locator(".confirm-edit").click()
    messages = page.locator('[data-step-type="user_message"]')
    expect(messages.get_by_text("thank you doctor")).to_have_count(0)
    again(page).wait_for(timeout=PATIENCE)  # the end of the turn, whatever the page says meanwhile
    answered(page)
    expect(page.locator('[data-step-type="user_message"]')).to_have_text(
        ["What can I do about hay fever?"]
    )
    expect(page.locator(".step")).to_have_count(3)
    shown = page.locator(".step").all_inner_texts()
    load_again(page)
    page.locator('[data-step-type="assistant_message"]').wait_for(timeout=PATIENCE)
    expect(page.locator(".step")).to_have_text(shown, use_inner_text=True)


@needs_browser
def test_an_error_stands_with_another_try_below_it(page: Page) -> None:
    ask(page, HEADACHE)
    answered(page)
    page.locator("#chat-input").fill("It hurts. " * 4000)
    page.locator("#chat-submit:enabled").click()
    error = page.get_by_text("This message is longer than the model can read")
    error.wait_for(timeout=PATIENCE)
    shown = page.locator('[data-step-type="system_message"] [id^="step-"]')
    before = shown.get_attribute("id")
    expect(again(page)).to_have_count(1)
    again(page).click()
    expect(shown).not_to_have_attribute("id", before or "", timeout=PATIENCE)
    error.wait_for(timeout=PATIENCE)
    expect(page.locator('[data-step-type="user_message"]')).to_have_count(2)
    expect(page.locator('[data-step-type="system_message"]')).to_have_count(1)
