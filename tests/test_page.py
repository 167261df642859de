"""The page: a real server, a real browser, the models that come with medraft."""

from __future__ import annotations

import http.client
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from playwright.sync_api import (
    Browser,
    Locator,
    Page,
    Playwright,
    WebSocket,
    WebSocketRoute,
    expect,
    sync_playwright,
)

from agent.llms.weights import llama_cpp_file
from index_store.build import Built
from index_store.dataset import Dialogue

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 60_000  # milliseconds that a busy machine may take for an answer

HEADACHE = "Hi Doctor, I have a headache, help me."
NOT_A_DOCTOR = "medraft is not a doctor. In an emergency call your local emergency number."
HOSTILE = Dialogue(
    "Q. What helps against hiccups? <script>document.title = 'script'</script>",
    "I hiccup <img src=x onerror=\"document.title='image'\"> **all day** and `all night`.",
    "# Stop\nRead [this](https://third.example/link) or https://third.example/bare or "
    "www.third.example/www, write to doctor@third.example.\n"
    "Is 3 < 5 & 6_7_8?\n"
    "![picture](https://third.example/picture.png)\n:::caution\nHold your breath:slowly.\n:::",
)

needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed: the page was NOT tested in a browser"
)


@dataclass
class Server:
    """A running `chainlit run agent/app.py`."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def app_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for Chainlit's own files, with our configuration in it."""
    root = tmp_path_factory.mktemp("app-root")
    for name in (".chainlit", "public"):
        shutil.copytree(ROOT / name, root / name)
    shutil.copy(ROOT / "chainlit.md", root)
    return root


@pytest.fixture(scope="module")
def index(
    tmp_path_factory: pytest.TempPathFactory,
    dialogues: list[Dialogue],
    build_index: Callable[[list[Dialogue], Path], Built],
) -> Path:
    """An index of `dialogues`, and of one whose texts try to be more than texts."""
    directory = tmp_path_factory.mktemp("page-index")
    build_index([*dialogues, HOSTILE], directory)
    return directory


@pytest.fixture(scope="module")
def environment(models_home: Path, index: Path) -> dict[str, str]:
    """The server's environment: short, repeatable answers of the embedded model."""
    inherited = {name: os.environ[name] for name in os.environ if not name.startswith("MEDRAFT_")}
    return inherited | {
        "MEDRAFT_HOME": str(models_home),
        "MEDRAFT_INDEX_DIR": str(index),
        # By its path the model comes without any adapter.
        "MEDRAFT_MODEL": str(llama_cpp_file(models_home / "models")),
        "MEDRAFT_ENGINE": "llama_cpp",
        "MEDRAFT_TEMPERATURE": "0",
        "MEDRAFT_MAX_TOKENS": "120",
        "MEDRAFT_MIN_SCORE": "0.2",
    }


@pytest.fixture(scope="module")
def server(
    app_root: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The page is served; the models may still be loading."""
    with serve(app_root, environment, tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """Playwright, with a browser at hand."""
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """One browser; each test gets a page, and so a conversation, of its own."""
    with playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS) as chromium:
        yield chromium


@pytest.fixture(scope="module")
def first_message(server: Server, browser: Browser) -> list[str]:
    """What the page says to a message that comes while the models are being loaded."""
    page = open_page(browser, server)
    page.locator("#starters button", has_text="headache").click()
    texts = [page.locator(".ai-message").first.inner_text()]
    answered(page)
    return [*texts, page.locator(".ai-message").last.inner_text()]


@pytest.fixture
def page(server: Server, browser: Browser, first_message: list[str]) -> Iterator[Page]:
    """A new conversation with loaded models."""
    opened = open_page(browser, server)
    yield opened
    opened.context.close()


@needs_browser
def test_a_message_is_answered_though_the_models_are_still_being_loaded(
    first_message: list[str],
) -> None:
    told, answer = first_message
    assert "The models are being loaded" in told
    assert len(answer) > 20


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
    for fact in ("Behaviour: RAG", "retrieval is set to always", "Sources: 2", "tokens in"):
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
    assert notice.evaluate("e => getComputedStyle(e).borderTopStyle") == "solid"
    answered(page)


@needs_browser
def test_the_fine_tuned_llm_without_an_adapter_is_a_plain_sentence(page: Page) -> None:
    choose(page, "llm", "fine-tuned")
    ask(page, HEADACHE)
    answered(page)
    expect(page.locator(".ai-message").last).to_contain_text("There is no fine-tuned LLM for")


@needs_browser
def test_stop_keeps_what_was_said_and_the_next_message_is_answered(page: Page) -> None:
    frames = Frames.of(page)
    page.reload()
    choose(page, "retrieval", "never")
    ask(page, "Write a very long story about a doctor, with many chapters.")
    answer = page.locator(".ai-message").nth(1)
    answer.wait_for(timeout=PATIENCE)
    page.locator("#stop-button").dispatch_event("click")
    page.get_by_text("Task manually stopped").wait_for()
    step(page).click()
    expect(page.locator('[data-step-type="tool"]')).to_contain_text("ended before the answer")
    ended = [seconds for text, seconds in frames.since('"stop"') if "task_end" in text]
    spoke = [seconds for text, seconds in frames.since('"stop"') if "stream_token" in text]
    assert ended[0] < 1
    assert all(seconds < ended[0] for seconds in spoke)
    assert len(said := answer.inner_text().strip()) > 0

    ask(page, "Thank you.")
    answered(page)
    expect(page.locator(".ai-message")).to_have_count(5)
    assert answer.inner_text().strip() == said


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
    expect(page.locator("#chat-submit")).to_be_visible(timeout=PATIENCE)  # it has reconnected
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
    assert source.locator("span.font-bold").all_inner_texts() == [
        "A patient asked",
        "A doctor replied",
    ]
    assert page.title() == "medraft"


@needs_browser
def test_the_browser_talks_to_this_server_only(
    server: Server, playwright: Playwright, first_message: list[str], tmp_path: Path
) -> None:
    log = tmp_path / "net-log.json"
    requests: list[str] = []
    complaints: list[str] = []
    with playwright.chromium.launch(
        executable_path=CHROMIUM, args=[*ARGUMENTS, f"--log-net-log={log}"]
    ) as logged:
        page = open_page(logged, server)
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
        "Sec-WebSocket-Key": "bWVkcmFmdCBpcyBhIHRlc3Q=",
    }
    path = "/ws/socket.io/?EIO=4&transport=websocket"
    assert status(server, path, origin=server.url, **upgrade) == 101
    assert status(server, path, origin="https://third.example", **upgrade) == 403


@needs_browser
def test_the_log_holds_nothing_that_patients_said(server: Server, first_message: list[str]) -> None:
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
        page = open_page(browser, server)
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
        ({"MEDRAFT_MODEL": "nowhere.gguf"}, "There is no model at nowhere.gguf"),
        ({"MEDRAFT_ADAPTER": "nowhere"}, "There is no adapter at nowhere"),
    ],
)
def test_a_wrong_setting_is_one_sentence_and_exit_code_2(
    change: dict[str, str], said: str, app_root: Path, environment: dict[str, str]
) -> None:
    refused(command(free_port()), app_root, environment | change, said)


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


@dataclass
class Frames:
    """What the page's web sockets carried, with the time of each: direction, text, seconds."""

    seen: list[tuple[str, str, float]] = field(default_factory=list)

    @classmethod
    def of(cls, page: Page) -> Frames:
        """Listen from the page's next web socket on."""
        frames = cls()

        def listen(web_socket: WebSocket) -> None:
            web_socket.on("framesent", lambda data: frames._add("sent", data))
            web_socket.on("framereceived", lambda data: frames._add("received", data))

        page.on("websocket", listen)
        return frames

    def _add(self, direction: str, data: str | bytes) -> None:
        self.seen.append((direction, str(data), time.monotonic()))

    def since(self, event: str) -> list[tuple[str, float]]:
        """Everything from the last time that the browser sent `event`: text, seconds after it."""
        begin = max(
            i for i, (to, text, _) in enumerate(self.seen) if to == "sent" and event in text
        )
        return [(text, at - self.seen[begin][2]) for _, text, at in self.seen[begin:]]


def command(port: int) -> list[str]:
    """What a person types: `chainlit run agent/app.py`."""
    app = str(ROOT / "agent" / "app.py")
    return [sys.executable, "-m", "chainlit", "run", app, "--headless", "--port", str(port)]


@contextmanager
def serve(app_root: Path, environment: dict[str, str], folder: Path) -> Iterator[Server]:
    """Run the page until the block ends; its output goes to a file in `folder`."""
    log, port = folder / "server.log", free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(port), cwd=app_root, env=environment, stdout=output, stderr=output
        )
    server = Server(f"http://127.0.0.1:{port}", log, process)
    try:
        wait_until_served(server)
        yield server
    finally:
        process.terminate()
        process.wait(20)


def wait_until_served(server: Server) -> None:
    """Return when the page answers; fail with the log if its process ends before."""
    while True:
        try:
            urlopen(f"{server.url}/health").close()
        except URLError:
            assert server.process.poll() is None, server.log.read_text(encoding="utf-8")
            time.sleep(0.05)
        else:
            return


def refused(arguments: list[str], cwd: Path, environment: dict[str, str], said: str) -> None:
    """Assert that a server does not start, and says why in one sentence."""
    run = subprocess.run(
        arguments, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 2
    assert said in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
    assert "Your app is available" not in run.stdout


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def status(server: Server, path: str, origin: str, **headers: str) -> int:
    """The status of a GET request that a page of `origin` would send."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
    connection.request("GET", path, headers={"Origin": origin, **headers})
    try:
        return connection.getresponse().status
    finally:
        connection.close()


def third_parties() -> set[str]:
    """The hosts that Chainlit's page, as it is shipped, makes browsers talk to."""
    spec = importlib.util.find_spec("chainlit")
    assert spec and spec.origin
    page = Path(spec.origin).parent / "frontend" / "dist" / "index.html"
    return set(re.findall(r"https?://([\w.-]+)", page.read_text(encoding="utf-8")))


def open_page(browser: Browser, server: Server) -> Page:
    """A new conversation that can be written to."""
    page = browser.new_context(locale="de-DE").new_page()
    page.goto(server.url)
    page.locator("#starters button:enabled").first.wait_for()
    return page


def choose(page: Page, setting: str, choice: str) -> None:
    """Set one of the two choices in the settings panel."""
    page.locator("#chat-settings-open-modal").click()
    page.locator(f"#chat-settings #{setting}").click()
    page.get_by_role("option", name=choice, exact=True).click()
    page.locator("#confirm").click()
    page.locator("#chat-settings").wait_for(state="detached")


def ask(page: Page, message: str) -> None:
    """Send a message, once the page is connected."""
    page.locator("#chat-settings-open-modal:enabled").wait_for()
    page.locator("#chat-input").click()
    page.keyboard.type(message)
    page.keyboard.press("Enter")
    page.locator('[data-step-type="user_message"]', has_text=message).last.wait_for()


def answered(page: Page) -> None:
    """Wait until something follows the last message, and the page takes the next one."""
    last = page.locator("[data-step-type]").last
    expect(last).not_to_have_attribute("data-step-type", "user_message", timeout=PATIENCE)
    page.locator("#chat-submit").wait_for(timeout=PATIENCE)


def step(page: Page) -> Locator:
    """The line that names the behaviour of the last answer."""
    last = page.locator('[id^="step-base"], [id^="step-RAG"]').last
    last.wait_for(timeout=PATIENCE)
    return last


def open_source(page: Page, number: int) -> Locator:
    """Open a source of the last answer; returns what is shown of it."""
    page.get_by_role("button", name=f"Source {number}").last.click()
    expect(page.locator("#side-view-title")).to_have_text(f"Source {number}")
    content = page.locator("#side-view-content")
    expect(content).to_contain_text("A doctor replied")
    return content
