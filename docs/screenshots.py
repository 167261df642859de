"""Draw the page: `python docs/screenshots.py` writes docs/pictures/*.png and docs/page.png.

Owns the conversations that are shown. Needs Chromium, and the index and models of `make setup`;
the history is one of its own, so that nobody's conversations get into a picture.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
README = ROOT / "docs" / "page.png"
QUESTION = "Hello doctor, I have bad acne. How do I get rid of it?"
THROAT = "I wake with acid in my throat at night. What helps?"
CHEST = "my chest hurts badly and my left arm is numb"
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
TALL, LONG_PHONE = {"width": 1280, "height": 1700}, {"width": 390, "height": 2800}
PATIENCE = 120_000  # milliseconds for loading the models and for an answer, each


def main() -> None:
    """Serve the page, and take one picture after the other."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("chromium is not on the PATH: install it to draw the page.")
    PICTURES.mkdir(exist_ok=True)
    with (
        served() as url,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]) as browser,
    ):
        draw_welcome(browser, url)
        draw_conversation(browser, url)
        draw_comparison(browser, url)
        draw_emergency(browser, url)
        draw_error(browser, url)
        draw_spanish(browser, url)


@contextmanager
def served() -> Iterator[str]:
    """The page's address, until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:///{folder}/history.sqlite"
        arguments = ["chainlit", "run", "agent/app.py", "--headless", "--port", str(port)]
        server = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env=os.environ | {"MEDRAFT_DATABASE_URL": database, "MEDRAFT_TEMPERATURE": "0"},
        )
        try:
            while True:
                try:
                    urlopen(f"http://127.0.0.1:{port}").close()
                    break
                except URLError:
                    if server.poll() is not None:
                        sys.exit(server.returncode)
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


@contextmanager
def opened(browser: Browser, url: str, **wanted: Any) -> Iterator[Page]:
    """A new conversation; `wanted` are Playwright's: viewport, locale, color_scheme."""
    context = browser.new_context(**{"viewport": DESKTOP, "locale": "en-GB"} | wanted)
    page = context.new_page()
    page.goto(url)
    page.locator("#starters button:enabled").first.wait_for()
    page.locator(".command-button").wait_for()
    yield page
    context.close()


def take(page: Page, name: str) -> None:
    """docs/pictures/NAME.png"""
    page.mouse.move(0, 0)
    page.screenshot(path=PICTURES / f"{name}.png", animations="disabled")


def ask(page: Page, message: str) -> None:
    """Send a message, and wait until it is answered."""
    page.locator("#chat-settings-open-modal:enabled").wait_for()
    page.locator("#chat-input").click()
    page.keyboard.type(message)
    page.keyboard.press("Enter")
    answered(page)


def answered(page: Page) -> None:
    """Wait until the one turn of a page has ended."""
    again = page.get_by_role("button", name=re.compile("Try again|Intentar de nuevo"))
    again.wait_for(timeout=PATIENCE)
    page.locator("#chat-submit").wait_for()


def draw_welcome(browser: Browser, url: str) -> None:
    """The first thing that a patient sees."""
    each: dict[str, dict[str, Any]] = {
        "welcome": {},
        "welcome-dark": {"color_scheme": "dark"},
        "welcome-phone": {"viewport": PHONE},
    }
    for name, wanted in each.items():
        with opened(browser, url, **wanted) as page:
            if "color_scheme" in wanted:
                page.evaluate("localStorage.setItem('vite-ui-theme', 'dark')")
                page.reload()
                page.locator(".command-button").wait_for()
            take(page, name)


def draw_conversation(browser: Browser, url: str) -> None:
    """An answer with its badge, what explains it, its sources, the settings and the history."""
    with opened(browser, url) as page:
        ask(page, THROAT)
        take(page, "answer")
        page.locator('button[id^="step-"]').last.click()
        take(page, "step")
        page.get_by_role("button", name="Source 1").click()
        page.locator("#side-view-content").get_by_text("A doctor replied").wait_for()
        take(page, "source")
        shutil.copy(PICTURES / "source.png", README)
        page.locator("#chat-settings-open-modal").click()
        page.locator("#chat-settings").wait_for()
        take(page, "settings")
    with opened(browser, url) as page:
        page.locator("#header #sidebar-trigger-button").click()
        page.locator("[id^=thread-] a").first.wait_for()
        page.wait_for_timeout(500)  # the sidebar slides in
        take(page, "history")
    with opened(browser, url, viewport=PHONE) as page:
        page.locator("#starters button", has_text=QUESTION).click()
        answered(page)
        take(page, "answer-phone")


def draw_comparison(browser: Browser, url: str) -> None:
    """The same question through the four behaviours."""
    for name, viewport in {"compare": TALL, "compare-phone": LONG_PHONE}.items():
        with opened(browser, url, viewport=viewport) as page:
            page.locator("#starters button", has_text=QUESTION).click()
            answered(page)
            answer = page.locator(".ai-message")
            answer.get_by_role("button", name="Compare all four").last.click()
            page.locator("#stop-button").wait_for()
            page.locator("#chat-submit").wait_for(timeout=PATIENCE)
            take(page, name)


def draw_emergency(browser: Browser, url: str) -> None:
    """The notice, and that it stays."""
    for name, viewport in {"emergency": DESKTOP, "emergency-phone": PHONE}.items():
        with opened(browser, url, viewport=viewport) as page:
            ask(page, CHEST)
            take(page, name)


def draw_error(browser: Browser, url: str) -> None:
    """A message that no model reads."""
    with opened(browser, url) as page:
        page.locator("#chat-settings-open-modal:enabled").wait_for()
        page.locator("#chat-input").fill("it hurts " * 9000)
        page.keyboard.press("Enter")
        page.get_by_text("longer than the model can read").wait_for(timeout=PATIENCE)
        page.locator("#chat-submit").wait_for(timeout=PATIENCE)
        take(page, "error")


def draw_spanish(browser: Browser, url: str) -> None:
    """What a Spanish browser gets."""
    with opened(browser, url, locale="es-ES") as page:
        take(page, "welcome-spanish")
        page.locator("#starters button").first.click()
        answered(page)
        page.locator('button[id^="step-"]').last.click()
        take(page, "answer-spanish")
    with opened(browser, url, locale="es-ES", viewport=PHONE) as page:
        ask(page, CHEST)
        take(page, "emergency-spanish-phone")


if __name__ == "__main__":
    main()
