"""The page under odd texts, bursts and ten patients at once; what other programs may send to it."""

from __future__ import annotations

import http.client
import json
import re
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from playwright.sync_api import Browser, Page, WebSocketRoute, expect

from agent.storage.threads import is_answer, turns
from index_store.dataset import Dialogue

from browsing import (
    PATIENCE,
    Server,
    answered,
    choose,
    load_again,
    needs_browser,
    new_context,
    open_page,
    serve,
    stop_at_once,
    stored_steps,
)
from storyteller import Storyteller

MEBIBYTE = 2**20
LEAK = 150 * MEBIBYTE  # less than another engine, or another set of weights
WORD = "zwieback"  # in every text of these tests, and nowhere else
ASKED = f"What is a {WORD}?"  # nonsense alone may be taken for an emergency, which has a notice
ERROR = "Something went wrong"
TEXTS = {
    "emoji": f"{ASKED} \U0001f912\U0001f469\u200d\u2695\ufe0f \U0001f1ea\U0001f1f8 " * 5,
    "right to left": f"{ASKED} \u05d9\u05e9 \u05dc\u05d9 \u05db\u05d0\u05d1 \u05e8\u05d0\u05e9 "
    "\u0639\u0646\u062f\u064a \u0635\u062f\u0627\u0639 \u202egninnur\u202c",
    "html": f"{ASKED} <script>document.title='gone'</script>"
    "<img src=x onerror=document.title='gone'></div></main>"
    "<style>*{display:none}</style> [x](javascript:document.title='gone') :::x",
}
# As JSON, for what no text field would send: NUL, other controls, halves of surrogate pairs.
CONTROLS = rf"{ASKED} \u0000\u0007\u001b[2J\u009b\ud83d half \udc00 \ufeff\uffff end"


@pytest.fixture(scope="module")
def server(told: Server) -> Server:
    """What the LLM says is no matter here."""
    return told


class Wire:
    """The page's web socket, to send what the page itself would not."""

    def __init__(self, page: Page) -> None:
        self._sent = ""
        page.route_web_socket(re.compile("/ws/"), self._relay)
        page.reload()
        page.locator("#starters button:enabled").first.wait_for()

    def _relay(self, route: WebSocketRoute) -> None:
        # The page may open a socket while it closes another: each keeps to its own server.
        server = route.connect_to_server()

        def forward(message: str | bytes) -> None:
            if isinstance(message, str) and '"client_message"' in message:
                self._sent, self._server = message, server
            server.send(message)

        route.on_message(forward)

    def send(self, text: str) -> None:
        """The last message of the page once more, as a new one that says `text` (JSON)."""
        event, payload = json.loads(self._sent.removeprefix("42"))
        payload["message"] |= {"id": str(uuid.uuid4()), "output": "TEXT"}
        self._server.send("42" + json.dumps([event, payload]).replace("TEXT", text))


def send(page: Page, text: str) -> None:
    page.locator("#chat-settings-open-modal:enabled").wait_for()
    page.locator("#chat-input").fill(text)
    page.locator("#chat-submit:enabled").click()
    page.locator("#welcome-screen").wait_for(state="detached")


def stop_at_the_first_word(page: Page) -> None:
    """Have Stop clicked as soon as the next answer begins, by the page itself."""
    page.evaluate(
        """() => new MutationObserver((_, observer) => {
            const answer = [...document.querySelectorAll("[data-step-type]")].pop();
            const stop = document.querySelector("#stop-button");
            if (stop && answer?.dataset.stepType === "assistant_message" && answer.innerText) {
                observer.disconnect();
                stop.click();
            }
        }).observe(document.body, {childList: true, subtree: true, characterData: true})"""
    )


def thread(page: Page) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """What is stored of the conversation: each message, and its answers."""
    page.wait_for_url("**/thread/*")
    stored = turns(stored_steps(page))
    return [(question["output"], list(filter(is_answer, told))) for question, told in stored]


def metadata(answers: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [answer["metadata"] for answer in answers]


def until_answered(page: Page, messages: int) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """`thread`, when it has so many messages, the last of them answered. What came by `Wire` the
    page shows only when it is loaded again."""
    while not (len(stored := thread(page)) >= messages and stored[-1][1]):
        page.wait_for_timeout(500)
    page.locator("#chat-submit").wait_for(timeout=PATIENCE)
    return stored


def whole(page: Page) -> None:
    """The page is as it should be, and the next message is answered."""
    assert page.title() == "medraft"
    before = page.locator('[data-step-type="assistant_message"]').count()
    send(page, "thank you doctor")
    said = page.locator('[data-step-type="assistant_message"]')
    expect(said).to_have_count(before + 1, timeout=PATIENCE)
    answered(page)
    expect(page.get_by_text(ERROR)).to_have_count(0)


@needs_browser
def test_odd_texts_are_shown_as_text_and_answered(page: Page) -> None:
    choose(page, "retrieval", "never")
    for text in TEXTS.values():
        send(page, text)
        shown = page.locator('[data-step-type="user_message"]').last
        expect(shown).to_contain_text(text.strip())
        assert shown.locator("script, img[onerror], style, a").count() == 0
        answered(page)
    whole(page)
    expect(page.locator('[data-step-type="assistant_message"]')).to_have_count(len(TEXTS) + 1)
    load_again(page)
    for text in TEXTS.values():
        expect(page.locator("main, body").first).to_contain_text(text.strip())
    assert page.title() == "medraft"


@needs_browser
def test_a_message_of_100000_characters_is_refused_in_a_sentence(page: Page) -> None:
    text = f"{WORD} my head aches \U0001f912. "
    send(page, (text * 100_000)[:100_000])
    refusal = page.get_by_text("This message is longer than the model can read")
    expect(refusal).to_be_visible(timeout=PATIENCE)
    answered(page)
    whole(page)


@needs_browser
def test_control_characters_through_the_socket_are_answered(page: Page) -> None:
    wire = Wire(page)
    for number, retrieval in enumerate(("never", "always")):
        choose(page, "retrieval", retrieval)
        send(page, "hello")
        answered(page)
        wire.send(CONTROLS)
        stored = until_answered(page, 2 * number + 2)
        assert stored[-1][0].startswith(ASKED)
    page.reload()
    shown = page.locator('[data-step-type="user_message"]')
    expect(shown).to_have_count(4)
    expect(shown.last).to_contain_text("end")
    whole(page)


@needs_browser
def test_twenty_messages_in_a_burst_are_each_answered_once_and_in_order(page: Page) -> None:
    wire = Wire(page)
    choose(page, "retrieval", "never")
    send(page, "hello")
    answered(page)
    burst = [f"My knee number {number} hurts, {WORD}." for number in range(20)]
    for text in burst:
        wire.send(text)
    stored = until_answered(page, 1 + len(burst))
    assert [question for question, _ in stored] == ["hello", *burst]
    assert [len(answers) for _, answers in stored] == [1] * len(stored)
    times = [answers[0]["createdAt"] for _, answers in stored]
    assert times == sorted(times)
    whole(page)


@needs_browser
def test_ten_patients_at_once(
    server: Server, teller: Storyteller, browser: Browser, dialogues: list[Dialogue]
) -> None:
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    subjects = dialogues[:10]
    browsers = [new_context(browser), new_context(browser)]
    pages = [open_page(browsers[number % 2], server) for number in range(len(subjects))]
    asked = [[subject.title, subject.patient, f"{WORD}: {subject.title}"] for subject in subjects]
    for turn in range(3):
        teller.slow = turn == 1
        for number, page in enumerate(pages):
            if teller.slow:
                (stop_at_once if number % 2 else stop_at_the_first_word)(page)
            send(page, asked[number][turn])
        for page in pages:
            answered(page)
    for page, subject, questions in zip(pages, subjects, asked, strict=True):
        assert page.get_by_text(ERROR).count() == 0
        stopped = page.get_by_text(re.compile("^Stopped")).count()
        stored = thread(page)
        assert [question for question, _ in stored] == questions
        answers_to = [len(answers) for _, answers in stored]
        assert answers_to[::2] == [1, 1]
        # What was stopped before its first word has no answer, but says so; words of medraft's own,
        # as for an emergency, may have ended before the click.
        own = [about["behaviour"] for about in metadata(stored[1][1])] == [None]
        assert answers_to[1] <= 1 and (stopped == 1 or own)
        # Words of medraft's own have no source, nor has what the router leaves alone.
        told = [about for _, answers in stored for about in metadata(answers)]
        shown = [source["title"] for about in told for source in about.get("sources", [])[:1]]
        assert set(shown) == {subject.title}
    for each in browsers:
        each.close()
    grown = process.memory_info().rss - before
    print(f"ten sessions of three turns: {grown / MEBIBYTE:.0f} MiB more")
    assert grown < LEAK


@needs_browser
def test_what_odd_patients_said_is_not_in_the_log(server: Server) -> None:
    log = server.log.read_text(encoding="utf-8", errors="replace")
    assert "Your app is available" in log
    assert WORD not in log.lower()
    assert "knee" not in log.lower()
    assert re.findall(r" - ERROR - (?:medraft|chainlit|asyncio) .*", log) == []


def test_a_page_without_a_web_socket_does_not_hold_up_the_end(
    app_root: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    with (
        serve(app_root, environment, tmp_path) as server,
        httpx.Client(base_url=server.url, timeout=60) as page,
        ThreadPoolExecutor() as threads,
    ):
        polling = {"EIO": "4", "transport": "polling"}
        opened = page.get("/ws/socket.io/", params=polling)
        session = json.loads(opened.text.removeprefix("0"))["sid"]
        held = threads.submit(page.get, "/ws/socket.io/", params=polling | {"sid": session})
        time.sleep(1)
        assert not held.done()
        server.process.terminate()
        server.process.wait(120)
        assert held.result().text == "1"  # engine.io's "close"


def test_uploads_are_refused_before_they_are_read(server: Server) -> None:
    # A file is announced, and nothing of it is sent.
    announced = {"Content-Length": str(10**9), "Content-Type": "multipart/form-data; boundary=x"}
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    connection.request("POST", "/project/file?session_id=x", headers=announced)
    response = connection.getresponse()
    assert (response.status, response.read()) == (403, b"medraft takes no files.")
    connection.close()


def test_headers_keep_the_page_to_itself(server: Server) -> None:
    page = httpx.get(server.url, timeout=60).headers
    assert page["X-Frame-Options"] == "DENY"
    assert page["Cross-Origin-Opener-Policy"] == "same-origin"
    assert "frame-ancestors 'none'" in page["Content-Security-Policy"]
    assert "Strict-Transport-Security" not in page
    https = httpx.get(server.url, headers={"X-Forwarded-Proto": "https"}, timeout=60).headers
    assert https["Strict-Transport-Security"] == "max-age=31536000"


def test_browsers_keep_nothing_that_patients_said(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        client.post("/auth/header")
        for path in ("/", "/thread/x", "/user", "/project/thread/x", "/export/x", "/ws/socket.io/"):
            assert client.get(path).headers["Cache-Control"] == "no-store", path
        asset = re.search(r"/assets/[\w.-]+\.js", client.get("/").text)
        assert asset is not None
        for path in (asset[0], "/public/medraft.css"):
            assert client.get(path).headers.get("Cache-Control") != "no-store", path
