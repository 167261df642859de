"""The page's looks, languages and safety: a real browser, Spanish and English, light and dark."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from babel import Locale
from playwright.sync_api import Browser, Locator, Page, expect

from agent.page.language import CATALOGS
from agent.safety.emergency import countries
from agent.storage.threads import is_answer

from browsing import (
    HEADACHE,
    NOT_A_DOCTOR,
    PATIENCE,
    ROOT,
    Server,
    answered,
    ask,
    choose,
    confirm,
    load_again,
    needs_browser,
    open_page,
    stored_steps,
)

CHEST = "my chest hurts badly and my left arm is numb"
PHONE = {"width": 390, "height": 844}
PINNED = '.step:has(img[src*="/avatars/Emergency"], img[src*="/avatars/Urgencia"])'
NO_ES_MEDICO = (
    "medraft no es un médico. En una urgencia, llame al número de emergencias de su país."
)

# What axe finds in Chainlit's own components, and neither a style sheet nor a name can mend.
CHAINLITS = [
    ("aria-allowed-attr", "#thread-options"),  # the menu of a thread is a <div> without a role
    ("list", '[data-sidebar="menu"]'),  # the threads of the sidebar are a <ul> of <div>s
    ("nested-interactive", "#header"),  # a link of the header is an <a> in a <button>
    ("aria-valid-attr-value", '[role="separator"]'),  # it controls a panel that has another id
]
AXE = """async known => {
    const found = await axe.run(document, {resultTypes: ['violations']});
    const hers = (rule, node) => known.some(([name, where]) =>
        name === rule && document.querySelector(node.target[0]).closest(where));
    return found.violations
        .filter(rule => ['serious', 'critical'].includes(rule.impact))
        .flatMap(rule => rule.nodes
            .filter(node => !hers(rule.id, node))
            .map(node => `${rule.id}: ${node.html}`));
}"""
# All that is read to a person or shown to one, but for what patients, models and doctors say.
SAID = """() => {
    const said = [...document.querySelectorAll('[aria-label], [placeholder], [title]')]
        .flatMap(e => ['aria-label', 'placeholder', 'title'].map(name => e.getAttribute(name)));
    for (const e of document.querySelectorAll('#welcome-screen')) {
        said.push(...['::before', '::after'].map(part => getComputedStyle(e, part).content));
    }
    let shown = document.body.innerText;
    for (const e of document.querySelectorAll('[id^="thread-"], [data-step-type="user_message"]')) {
        shown = shown.replace(e.innerText, '');
    }
    return [shown, ...said.filter(Boolean)].join('\\n');
}"""


@pytest.fixture(scope="module")
def server(told: Server) -> Server:
    """What the LLM says is no matter here."""
    return told


@contextmanager
def opened(browser: Browser, server: Server, **wanted: Any) -> Iterator[Page]:
    """A new conversation in a browser of its own: locale, viewport, color_scheme ..."""
    context = browser.new_context(**{"locale": "en-US", **wanted})
    yield open_page(context, server)
    context.close()


def english_left(page: Page) -> list[str]:
    """What the page says in English though there is Spanish for it: our words, and Chainlit's."""
    ours = [
        tomllib.loads((CATALOGS / f"{tag}.toml").read_text(encoding="utf-8"))
        for tag in ("en", "es")
    ]
    folder = ROOT / ".chainlit" / "translations"
    chainlits = [
        json.loads((folder / f"{tag}.json").read_text(encoding="utf-8")) for tag in ("en-US", "es")
    ]
    english = {
        en
        for catalogs in (ours, chainlits)
        for en, es in zip(*map(list, map(texts, catalogs)), strict=True)
        if en != es and "{" not in en
    }
    said = page.evaluate(SAID)
    lines = {line.strip().strip('"') for line in said.splitlines()}
    return [text for text in english if text in lines or (" " in text and text in said)]


def texts(catalog: dict[str, Any]) -> Iterator[str]:
    """The texts of a catalog, in the order of their keys."""
    for _, value in sorted(catalog.items()):
        if isinstance(value, str):
            yield value
        else:
            yield from texts(value)


def in_view(page: Page, what: Locator) -> bool:
    """Whether all of it is inside the window, and nothing lies over its middle."""
    box, window = what.bounding_box(), page.viewport_size
    assert box and window
    inside = box["y"] >= 0 and box["y"] + box["height"] <= window["height"]
    middle = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
    return inside and what.evaluate(
        "(e, [x, y]) => e.contains(document.elementFromPoint(x, y))", middle
    )


def comes_into_view(page: Page, what: Locator, at_the_end: bool = False) -> None:
    """Wait until it is: a page is scrolled smoothly, on a busy machine for long; to the end by
    whoever reads, as often as the page scrolls to a new message by itself."""
    for _ in range(PATIENCE // 100):
        if at_the_end:
            page.mouse.move(PHONE["width"] / 2, PHONE["height"] / 2)
            page.mouse.wheel(0, 2000)
        if in_view(page, what):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{what} is not in view")


@needs_browser
def test_a_spanish_browser_gets_a_page_without_english(server: Server, browser: Browser) -> None:
    with opened(browser, server, locale="es-MX") as page:
        assert page.locator("html").get_attribute("lang") == "es"
        welcome = page.evaluate(SAID)
        assert "¿Qué le preocupa?" in welcome and NO_ES_MEDICO in welcome
        assert "Entiende mejor el inglés" in welcome
        assert english_left(page) == []
        page.locator("#readme-button").click()
        expect(page.get_by_role("dialog")).to_contain_text("medraft no es un médico")
        # Its text is there before it listens for keys, which is when it has the focus.
        page.wait_for_function("document.activeElement.closest('[role=dialog]')")
        page.keyboard.press("Escape")

        page.locator("#chat-settings-open-modal").click()
        page.locator("#chat-settings #country").wait_for()
        assert english_left(page) == []
        confirm(page, "country", "España")

        ask(page, CHEST)
        expect(page.locator(PINNED)).to_contain_text("Llame al 112 ahora mismo")
        answered(page)
        expect(page.locator(".watermark")).to_have_text(NO_ES_MEDICO)
        page.locator('button[id^="step-"]').last.click()
        expect(page.get_by_text("No se preguntó a ningún modelo")).to_be_visible()
        assert english_left(page) == []

        ask(page, HEADACHE)
        answered(page)
        page.locator('button[id^="step-"]').last.click()
        expect(page.get_by_text("Motivo:")).to_be_visible()
        assert english_left(page) == []

        page.locator("#chat-input").fill("pain " * 9000)
        page.locator("#chat-submit:enabled").click()
        expect(page.get_by_text("es más largo de lo que el modelo puede leer")).to_be_visible()
        assert english_left(page) == []


@needs_browser
def test_a_browser_of_another_language_gets_english_throughout(page: Page) -> None:
    # Chainlit has German words, we have not: a page in both would be a mixture.
    assert page.evaluate("navigator.language") == "de-DE"
    assert page.locator("html").get_attribute("lang") == "en"
    placeholder = page.locator("#chat-input").get_attribute("placeholder")
    assert placeholder == "Describe what troubles you..."
    expect(page.locator("#readme-button")).to_have_text("About")


@needs_browser
def test_the_notice_stays_in_view_on_a_phone_also_when_the_page_is_loaded_again(
    server: Server, browser: Browser
) -> None:
    with opened(browser, server, viewport=PHONE) as page:
        ask(page, CHEST)
        answered(page)
        for message in ("thank you doctor", HEADACHE):
            ask(page, message)
            answered(page)
            comes_into_view(page, page.locator(PINNED))
            end = page.get_by_role("button", name="Try again").last
            comes_into_view(page, end, at_the_end=True)
            comes_into_view(page, page.locator(PINNED))
            expect(page.locator("#message-composer")).to_be_in_viewport(ratio=1)
            expect(page.locator(".watermark")).to_be_in_viewport(ratio=1)
        load_again(page)
        page.locator('[data-step-type="user_message"]', has_text=HEADACHE).wait_for()
        last = page.locator(".ai-message").last
        last.scroll_into_view_if_needed()
        comes_into_view(page, page.locator(PINNED))
        expect(last).to_be_in_viewport()
        expect(page.locator("#message-composer")).to_be_in_viewport(ratio=1)


@needs_browser
def test_only_the_newest_notice_is_pinned(page: Page) -> None:
    for message in (CHEST, "I want to kill myself"):
        ask(page, message)
        answered(page)
    positions = page.locator(PINNED).evaluate_all(
        "all => all.map(e => getComputedStyle(e).position)"
    )
    assert positions == ["static", "sticky"]


@needs_browser
def test_self_harm_is_told_the_crisis_line_of_the_chosen_country_first(page: Page) -> None:
    choose(page, "country", "Spain")
    ask(page, "I want to kill myself")
    notice = page.locator(PINNED)
    expect(notice).to_contain_text("call 024")
    told = notice.inner_text()
    assert told.index("024") < told.index("112")
    expect(page.locator(".ai-message").nth(1)).to_contain_text("Stay with someone you trust")
    answered(page)
    expect(page.locator(".ai-message").last).to_contain_text("a person rather than a program")
    spoke = page.locator('[data-step-type="assistant_message"]').last
    expect(spoke.get_by_role("img", name="Avatar for")).to_have_accessible_name(
        "Avatar for medraft"
    )
    explained = page.locator('[id^="step-medraft"]').last
    explained.click()
    expect(page.get_by_text("No model was asked")).to_be_visible()
    behaviours = [step["metadata"]["behaviour"] for step in stored_steps(page) if is_answer(step)]
    assert behaviours == [None]


@needs_browser
def test_every_country_can_be_chosen(page: Page) -> None:
    page.locator("#chat-settings-open-modal").click()
    page.locator("#chat-settings #country").click()
    names = Locale("en").territories
    offered = ["Another", *sorted(names[code] for code in countries())]
    expect(page.get_by_role("option")).to_have_text(offered)


@needs_browser
def test_it_is_no_doctor_is_said_on_the_welcome_and_in_the_conversation(
    server: Server, browser: Browser
) -> None:
    with opened(browser, server, viewport=PHONE) as page:
        said = page.locator("#welcome-screen").evaluate(
            "e => [getComputedStyle(e, '::after').content, e.getBoundingClientRect().bottom]"
        )
        assert said[0] == f'"{NOT_A_DOCTOR}"' and said[1] <= PHONE["height"]
        ask(page, "thank you doctor")
        answered(page)
        expect(page.locator(".watermark")).to_have_text(NOT_A_DOCTOR)
        expect(page.locator(".watermark")).to_be_in_viewport(ratio=1)


@needs_browser
@pytest.mark.parametrize("language", ["en-GB", "es-ES"])
def test_nothing_of_the_welcome_is_cut_on_the_smallest_phone(
    language: str, server: Server, browser: Browser
) -> None:
    with opened(browser, server, viewport={"width": 320, "height": 640}, locale=language) as page:
        choices = page.locator("[id^=mode-picker-trigger-] span")
        expect(choices).to_have_count(2)
        assert choices.evaluate_all("all => all.every(e => e.scrollWidth <= e.clientWidth)")
        welcome = page.locator("#welcome-screen")
        assert welcome.evaluate("e => e.parentElement.scrollHeight <= e.parentElement.clientHeight")
        assert welcome.evaluate(
            "e => e.getBoundingClientRect().top"
            " >= document.querySelector('#header').getBoundingClientRect().bottom"
        )


@needs_browser
def test_axe_finds_nothing_serious(server: Server, browser: Browser) -> None:
    spec = find_spec("axe_playwright_python")
    assert spec and spec.origin
    axe = (Path(spec.origin).parent / "axe.min.js").read_text(encoding="utf-8")
    with opened(browser, server, color_scheme="dark", reduced_motion="reduce") as page:
        expect(page.locator("html")).to_have_class("dark")
        page.evaluate(axe)
        # What fades has another contrast until it is there.
        page.add_style_tag(content="* {transition: none !important; animation: none !important}")

        def complaints() -> list[str]:
            found: list[str] = []
            for scheme in ("light", "dark"):
                # Chainlit asks for the browser's scheme when it is loaded, and then sets this.
                page.evaluate("scheme => document.documentElement.className = scheme", scheme)
                found += page.evaluate(AXE, CHAINLITS)
            return found

        assert complaints() == []
        page.locator("#chat-settings-open-modal").click()
        page.locator("#chat-settings").wait_for()
        assert complaints() == []
        page.keyboard.press("Escape")
        page.locator("#chat-settings").wait_for(state="detached")
        ask(page, CHEST)
        answered(page)
        page.locator('button[id^="step-"]').last.click()
        assert complaints() == []
        ask(page, "What helps against migraine?")
        answered(page)
        page.get_by_role("button", name="Source 1").click()
        page.locator("#side-view-content").wait_for()
        assert complaints() == []
        page.get_by_role("button", name="Close").click()
        page.locator(".ai-message").get_by_role("button", name="Compare all four").last.click()
        status = page.locator(".medraft-compare").get_by_role("status")
        expect(status).to_contain_text("All four have been", timeout=PATIENCE)
        page.locator("#header #sidebar-trigger-button").click()
        page.locator("[id^=thread-] a", has_text=CHEST).first.wait_for()
        assert complaints() == []


@needs_browser
def test_the_page_can_be_used_by_the_keyboard(page: Page) -> None:
    names = []
    for key in ("Shift+Tab", "Tab"):
        page.locator("#chat-input").focus()
        for _ in range(7):
            page.keyboard.press(key)
            names.append(
                page.evaluate(
                    "(e => e.ariaLabel || e.innerText || e.querySelector('img')?.alt || '')"
                    "(document.activeElement)"
                )
            )
    assert "" not in names
    assert {"How to answer", "About", "New conversation", "Compare all four"} <= set(names)
    page.locator("#chat-input").focus()
    page.keyboard.type("thank you doctor")
    page.keyboard.press("Enter")
    answered(page)
