"""The page: a real server, a real browser, the models that come with medraft."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Playwright, WebSocketRoute, expect

from browsing import (
    ARGUMENTS,
    CHROMIUM,
    HEADACHE,
    HOSTILE,
    NOT_A_DOCTOR,
    PATIENCE,
    Server,
    answered,
    ask,
    choose,
    command,
    free_port,
    needs_browser,
    new_context,
    open_page,
    open_source,
    refused,
    serve,
    status,
    step,
    third_parties,
)


@needs_browser
def test_a_message_is_answered_though_the_models_are_still_being_loaded(
    index: Path, app_root: Path, environment: dict[str, str], browser: Browser, tmp_path: Path
) -> None:
    # Who reads a pipe waits until somebody writes: the check before serving and, after it, the
    # loading, for as long as this test wants.
    slow = tmp_path / "index"
    slow.mkdir()
    for generation in index.glob("generation-*"):
        (slow / generation.name).symlink_to(generation)
    manifest, pipe = slow / "manifest.json", tmp_path / "pipe"
    content = (index / manifest.name).read_bytes()
    os.mkfifo(manifest)
    threading.Thread(target=manifest.write_bytes, args=[content], daemon=True).start()
    with serve(app_root, environment | {"MEDRAFT_INDEX_DIR": str(slow)}, tmp_path) as server:
        page = open_page(new_context(browser), server)
        page.locator("#starters button", has_text="headache").click()
        expect(page.locator(".ai-message").first).to_contain_text("The models are being loaded")
        manifest.rename(pipe)
        manifest.write_bytes(content)
        # Nobody reads it where the loading has not come so far: then it reads the file.
        threading.Thread(target=pipe.write_bytes, args=[content], daemon=True).start()
        body = page.locator("body")
        expect(body).not_to_contain_text("The models are being loaded", timeout=PATIENCE)
        answered(page)
        assert len(page.locator(".ai-message").last.inner_text()) > 20
        page.context.close()


@needs_browser
def test_the_welcome_screen(page: Page) -> None:
    starters = page.locator("#starters button").all_inner_texts()
    assert starters[:2] == [
        "Hi Doctor, I have a headache, help me.",
        "Hello doctor, I have bad acne. How do I get rid of it?",
    ]
    footer = page.locator("#welcome-screen").evaluate("e => getComputedStyle(e, '::after').content")
    assert footer == f'"{NOT_A_DOCTOR}"'
    page.locator("#readme-button").click()
    expect(page.get_by_role("dialog")).to_contain_text("medraft is not a doctor")


@needs_browser
def test_a_starter_is_answered_with_sources_and_then_a_follow_up(page: Page) -> None:
    choose(page, "retrieval", "always")
    page.locator("#starters button", has_text="headache").click()
    assert "RAG" in step(page).inner_text()
    answered(page)
    expect(page.locator(".watermark")).to_have_text(NOT_A_DOCTOR)

    step(page).click()
    facts = page.locator('[data-step-type="retrieval"]')
    for fact in ("Behaviour: RAG", "retrieval is set to always", "Sources: 1", "tokens in"):
        expect(facts).to_contain_text(fact)

    ask(page, "It throbs on one side twice a month, and light hurts.")
    answered(page)
    expect(page.locator(".ai-message")).to_have_count(4)
    source = open_source(page, 1)
    expect(source).to_contain_text("My head throbs on one side twice a month")
    expect(source).to_contain_text("Rest in a dark room, and take ibuprofen early.")
    assert re.search(r"similarity 0\.\d\d\b", source.inner_text())


@needs_browser
def test_retrieval_never_answers_from_the_base_model(page: Page) -> None:
    choose(page, "retrieval", "never")
    ask(page, HEADACHE)
    answered(page)
    assert step(page).inner_text().split()[-1] == "base"
    expect(page.get_by_role("button", name="Source")).to_have_count(0)


@needs_browser
def test_thanks_are_not_looked_up(page: Page) -> None:
    ask(page, "thank you doctor")
    answered(page)
    assert step(page).inner_text().split()[-1] == "base"
    step(page).click()
    expect(page.locator('[data-step-type="tool"]')).to_contain_text("not a health question")


@needs_browser
def test_an_emergency_is_answered_by_the_notice_first(page: Page) -> None:
    ask(page, "my chest hurts badly and my left arm is numb")
    notice = page.locator(".ai-message").first
    expect(notice.get_by_alt_text("Avatar for Emergency")).to_be_visible(timeout=PATIENCE)
    assert "emergency" in notice.inner_text().lower()
    expect(notice).to_have_css("border-top-style", "solid")
    answered(page)


@needs_browser
def test_a_lost_connection_does_not_end_the_conversation(page: Page) -> None:
    connections: list[WebSocketRoute] = []

    def relay(route: WebSocketRoute) -> None:
        route.connect_to_server()
        connections.append(route)

    page.route_web_socket(re.compile("/ws/"), relay)
    page.reload()
    ask(page, HEADACHE)
    page.locator(".ai-message").nth(1).wait_for(timeout=PATIENCE)
    connections[-1].close()
    # It has reconnected, and shows all that was said meanwhile.
    expect(page.get_by_role("button", name="Try again")).to_have_count(1, timeout=PATIENCE)
    expect(page.locator("#chat-submit")).to_be_visible()
    ask(page, "thank you doctor")
    expect(page.locator(".ai-message")).to_have_count(4, timeout=PATIENCE)
    answered(page)
    assert len(connections) == 2


@needs_browser
def test_a_hostile_source_is_shown_as_text(page: Page) -> None:
    choose(page, "retrieval", "always")
    ask(page, "What helps against hiccups all day?")
    answered(page)
    source = open_source(page, 1)
    expect(source).to_contain_text("I hiccup")
    shown = source.inner_text().replace("\u2060", "")
    for text in (HOSTILE.title, HOSTILE.patient, *HOSTILE.doctor.split("\n")):
        assert text in shown
    assert source.locator("a, img, script, h1, code, ul, .rounded-lg").count() == 0
    # Bold are two headings, and what the answer draws on.
    bold = [
        text.replace("\u2060", "") for text in source.locator("span.font-bold").all_inner_texts()
    ]
    assert bold[:2] == ["A patient asked", "A doctor replied"]
    assert all(text in HOSTILE.doctor for text in bold[2:])
    assert page.title() == "medraft"


@needs_browser
def test_the_browser_talks_to_this_server_only(
    server: Server, playwright: Playwright, tmp_path: Path
) -> None:
    log = tmp_path / "net-log.json"
    requests: list[str] = []
    complaints: list[str] = []
    with playwright.chromium.launch(
        executable_path=CHROMIUM, args=[*ARGUMENTS, f"--log-net-log={log}"]
    ) as logged:
        page = open_page(new_context(logged), server)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("request", lambda request: requests.append(request.url))
        page.reload()
        choose(page, "retrieval", "always")
        ask(page, "What helps against hiccups all day?")
        answered(page)
        open_source(page, 1)
        page.locator("#readme-button").click()
        page.get_by_role("dialog").wait_for()
    assert len(requests) > 10
    assert {urlsplit(url).netloc for url in requests} == {urlsplit(server.url).netloc}
    assert [text for text in complaints if "Content Security Policy" in text] == []
    # What the page does not request but connects to (preconnect) is in the browser's own log,
    # beside what the browser wants for itself.
    logged_events = log.read_text(encoding="utf-8")
    assert urlsplit(server.url).netloc in logged_events
    assert len(third_parties()) > 2
    assert [host for host in third_parties() | {"third.example"} if host in logged_events] == []


def test_other_websites_may_not_talk_to_the_server(server: Server) -> None:
    path = "/ws/socket.io/?EIO=4&transport=polling"
    assert status(server, path, origin=server.url) == 200
    assert status(server, path, origin="https://third.example") == 403
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "bWVkcmFmdCBpcyBhdGVzdA==",
    }
    path = "/ws/socket.io/?EIO=4&transport=websocket"
    assert status(server, path, origin=server.url, **upgrade) == 101
    assert status(server, path, origin="https://third.example", **upgrade) == 403


@needs_browser
def test_the_log_holds_nothing_that_patients_said(server: Server, page: Page) -> None:
    ask(page, "My headache throbs, my chest hurts, and I have the hiccups.")
    answered(page)
    log = server.log.read_text(encoding="utf-8").lower()
    assert "your app is available" in log
    assert [word for word in ("headache", "throbs", "my chest", "hiccup") if word in log] == []


@needs_browser
def test_models_that_do_not_load_are_a_plain_sentence(
    index: Path,
    app_root: Path,
    environment: dict[str, str],
    browser: Browser,
    tmp_path: Path,
) -> None:
    damaged = tmp_path / "index"
    shutil.copytree(index, damaged)
    next(damaged.glob("*/vectors.faiss")).write_bytes(b"")
    with serve(app_root, environment | {"MEDRAFT_INDEX_DIR": str(damaged)}, tmp_path) as server:
        page = open_page(new_context(browser), server)
        for message in ("hello", "is anybody there"):
            ask(page, message)
            answered(page)
            expect(page.locator(".ai-message").last).to_contain_text("is damaged (vectors.faiss")
        assert server.process.poll() is None
        page.context.close()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"MEDRAFT_SOURCE": "3"}, "Unknown setting MEDRAFT_SOURCE: did you mean MEDRAFT_SOURCES?"),
        ({"MEDRAFT_INDEX_DIR": "nowhere"}, "There is no index in nowhere"),
    ],
)
def test_a_wrong_setting_is_one_sentence_and_exit_code_2(
    change: dict[str, str], said: str, app_root: Path, environment: dict[str, str]
) -> None:
    refused(command(free_port()), app_root, environment | change, said)


def test_the_page_is_served_before_the_models_libraries_are_imported(
    app_root: Path, environment: dict[str, str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        python, *rest = command(other.getsockname()[1])
        run = subprocess.run(
            [python, "-X", "importtime", *rest],
            cwd=app_root, env=environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    assert "cannot be served" in run.stderr
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
    assert "agent.chat.engine" in imported
    assert not {"torch", "transformers", "sentence_transformers", "faiss"} & imported


def test_a_port_in_use_is_one_sentence_and_exit_code_2(
    app_root: Path, environment: dict[str, str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused(command(port), app_root, environment, f"cannot be served at 127.0.0.1:{port}")


def test_chainlits_own_configuration_is_refused(
    environment: dict[str, str], tmp_path: Path
) -> None:
    refused(command(free_port()), tmp_path, environment, "opens this server to every website")
