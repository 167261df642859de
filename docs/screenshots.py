"""Draw the README's picture of the page: `python docs/screenshots.py` writes docs/page.png.

Owns the one conversation that is shown. Needs Chromium, and the index and models of `make setup`.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "page.png"
QUESTION = "Hello doctor, I have bad acne. How do I get rid of it?"
PATIENCE = 120_000  # milliseconds for loading the models and for the answer, each


def main() -> None:
    """Serve the page, ask, open what explains the answer, and take the picture."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("chromium is not on the PATH: install it to draw the page.")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    arguments = ["chainlit", "run", "agent/app.py", "--headless", "--port", str(port)]
    server = subprocess.Popen([sys.executable, "-m", *arguments], cwd=ROOT)
    try:
        draw(chromium, f"http://127.0.0.1:{port}", server)
    finally:
        server.terminate()
        server.wait()


def draw(chromium: str, url: str, server: subprocess.Popen[bytes]) -> None:
    """Take the picture of the page at `url`."""
    while True:
        try:
            urlopen(url).close()
            break
        except URLError:
            if server.poll() is not None:
                sys.exit(server.returncode)
            time.sleep(0.1)
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]) as browser,
    ):
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.goto(url)
        page.locator("#starters button:enabled", has_text=QUESTION).click()
        page.locator("#stop-button").wait_for()
        page.locator("#chat-submit").wait_for(timeout=PATIENCE)
        page.locator('[id^="step-RA"]').click()
        page.get_by_role("button", name="Source 1").click()
        page.locator("#side-view-content").get_by_text("A doctor replied").wait_for()
        page.locator('[id^="step-RA"]').scroll_into_view_if_needed()
        page.screenshot(path=PICTURE, animations="disabled")


if __name__ == "__main__":
    main()
