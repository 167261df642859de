"""History, accounts and feedback on the page: a real server, ended and started again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, Request, Route, WebSocketRoute, expect
from websockets import Origin
from websockets.sync.client import connect

from browsing import (
    HEADACHE,
    PATIENCE,
    ROOT,
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
    step,
    stored_steps,
)
from storyteller import Storyteller

THROBS = "It throbs on one side twice a month, and light hurts."
COMMENT = "Clear, and it helped."
ELBOW = "I have a strange rash on my elbow."
DRAFT = "And if it comes back"
OPINION = "Too long by half."
PRESSURE = "Is my blood pressure too high?"
CHEST = "my chest hurts badly and my left arm is numb"


class Restarted:
    """One server after the other, with the same home, at the same port."""

    def __init__(self, app_root: Path, environment: dict[str, str], folder: Path) -> None:
        self.environment, self.home = environment, folder / "home"
        self.environment |= {"MEDRAFT_HOME": str(self.home), "MEDRAFT_MAX_TOKENS": "40"}
        self.home.mkdir()
        (self.home / "models").symlink_to(ROOT / ".medraft" / "models")
        self._app_root, self._folder, self._port = app_root, folder, free_port()
        self._running = ExitStack()
        self.server: Server | None = None

    def start(self) -> Server:
        """Begin, if it has ended, with what the files hold."""
        if self.server is None:
            started = serve(self._app_root, self.environment, self._folder, self._port)
            self.server = self._running.enter_context(started)
        return self.server

    def end(self) -> str:
        """As by Control-C; returns the log."""
        self._running.close()
        assert self.server is not None
        log, self.server = self.server.log, None
        return log.read_text(encoding="utf-8")

    def kill(self) -> None:
        """As when the machine fails."""
        assert self.server is not None
        self.server.process.kill()
        self.end()

    def medraft(self, *arguments: str, standard_input: str = "") -> str:
        """What a command prints."""
        medraft = [str(Path(sys.executable).parent / "medraft"), *arguments]
        options: Any = {"env": self.environment, "capture_output": True, "text": True}
        done = subprocess.run(medraft, input=standard_input, check=True, **options)
        return str(done.stdout)


@pytest.fixture(scope="module")
def server(told: Server) -> Server:
    """What the LLM says is no matter here."""
    return told


@pytest.fixture(scope="module")
def restarted(
    app_root: Path, telling: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Restarted]:
    """For the one user of this machine."""
    servers = Restarted(app_root, dict(telling), tmp_path_factory.mktemp("restarted"))
    yield servers
    if servers.server:
        servers.end()


@pytest.fixture
def accounts(app_root: Path, telling: dict[str, str], tmp_path: Path) -> Iterator[Restarted]:
    """Ana and Ben have passwords, and a proxy may stand before the server."""
    header = {"MEDRAFT_USER_HEADER": "X-Forwarded-User"}
    servers = Restarted(app_root, telling | header, tmp_path)
    for name in ("ana", "ben"):
        servers.medraft("accounts", "add", name, standard_input=f"{name}'s secret\n")
    servers.start()
    yield servers
    servers.end()


def judge(page: Page, comment: str) -> None:
    """Thumbs up for the last answer, with a comment."""
    page.locator(".positive-feedback-off").last.click()
    page.get_by_role("dialog").locator("textarea").fill(comment)
    page.locator("#submit-feedback").click()
    expect(page.locator(".positive-feedback-on")).to_have_count(1)


def messages(page: Page) -> Locator:
    """All that was said, from top to bottom, with the buttons below it."""
    return page.locator("[data-step-type$=_message]")


def threads(page: Page) -> Locator:
    """The names in the sidebar, which is opened."""
    page.locator("#chat-settings-open-modal:enabled").wait_for()
    closed = page.locator("#header #sidebar-trigger-button")
    if closed.count():
        closed.click()
        closed.wait_for(state="detached")
    return page.locator("[id^=thread-] a")


def choose_of(page: Page, name: str, option: str) -> None:
    """An option in the menu of the thread of this name."""
    thread = threads(page).filter(has_text=name)
    thread.hover()
    thread.locator("#thread-options").click()
    page.locator(f"#{option}").click()


class Provider(BaseHTTPRequestHandler):
    """An OAuth provider where Zoe is logged in: it sends her back with a code at once."""

    CODE, TOKEN, ZOE = "a code", "a token", "zoe@example.org"

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        asked = dict(parse_qsl(address.query))
        if address.path == "/authorize":
            back = urlencode({"code": self.CODE, "state": asked["state"]})
            self.send_response(302)
            self.send_header("Location", f"{asked['redirect_uri']}?{back}")
            self.end_headers()
        else:
            assert self.headers["Authorization"] == f"Bearer {self.TOKEN}"
            self.tell({"email": self.ZOE})

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"])).decode()
        assert dict(parse_qsl(sent))["code"] == self.CODE
        self.tell({"access_token": self.TOKEN})

    def tell(self, what: dict[str, str]) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(what).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def oauth(app_root: Path, telling: dict[str, str], tmp_path: Path) -> Iterator[Server]:
    """Whom a provider knows may log in, at any address of this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Provider) as provider:
        threading.Thread(target=provider.serve_forever).start()
        at = f"http://127.0.0.1:{provider.server_port}"
        about = {"NAME": "clinic", "CLIENT_ID": "medraft", "CLIENT_SECRET": "a secret"}
        about |= {"AUTH_URL": f"{at}/authorize", "TOKEN_URL": f"{at}/token"}
        about |= {"USER_INFO_URL": f"{at}/user", "SCOPES": "email"}
        named = {f"OAUTH_GENERIC_{name}": value for name, value in about.items()}
        with serve(app_root, telling | named, tmp_path) as server:
            yield server
        provider.shutdown()


def log_in(page: Page, name: str, password: str) -> None:
    page.locator("#email").fill(name)
    page.locator("#password").fill(password)
    page.locator("button[type=submit]").click()


@needs_browser
def test_a_conversation_is_there_again_after_a_restart(
    restarted: Restarted, teller: Storyteller, browser: Browser
) -> None:
    page = open_page(new_context(browser), restarted.start())
    choose(page, "retrieval", "always")
    ask(page, HEADACHE)
    answered(page)
    judge(page, COMMENT)
    ask(page, THROBS)
    answered(page)
    ask(page, CHEST)
    answered(page)
    before = messages(page).all_inner_texts()
    assert "/thread/" in page.url
    log = restarted.end()
    page.locator("#chat-input").fill(DRAFT)
    # Back from another window: then Chainlit asks who is logged in, every five seconds at most.
    page.wait_for_timeout(5500)
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    page.wait_for_timeout(500)
    url = restarted.start().url

    # In the page that was open all the time, and in another one.
    fresh = new_context(browser).new_page()
    fresh.goto(url)
    threads(fresh).filter(has_text=HEADACHE).click()
    for shown in (page, fresh):
        shown.locator("#chat-settings-open-modal:enabled").wait_for(timeout=PATIENCE)
        # A page that was open all the time gets its buttons one by one, in place of the old ones.
        expect(messages(shown)).to_have_text(before, use_inner_text=True, timeout=PATIENCE)
        expect(shown.locator(".positive-feedback-on")).to_have_count(1)
        expect(shown.locator('[id^="step-RAG"]')).to_have_count(2)
        expect(shown.locator('[id^="step-medraft"]')).to_have_count(1)  # the emergency's
        expect(shown.get_by_role("button", name="Source 1")).to_have_count(2)
    expect(page.locator("#chat-input")).to_have_text(DRAFT)
    source = open_source(fresh, 1)
    expect(source).to_contain_text("A patient asked")
    fresh.locator("#chat-settings-open-modal").click()
    expect(fresh.locator("#chat-settings #retrieval")).to_contain_text("always")
    fresh.get_by_role("button", name="Cancel").click()  # a key may come before the dialog listens
    fresh.locator("#chat-settings").wait_for(state="detached")

    ask(fresh, "thank you doctor")
    answered(fresh)
    rows = [json.loads(line) for line in restarted.medraft("feedback", "export").splitlines()]
    assert [(row["value"], row["comment"]) for row in rows] == [("up", COMMENT)]
    assert rows[0]["question"] == HEADACHE
    assert rows[0]["behaviour"] == "RAG"
    assert rows[0]["retrieval"] == "always"
    assert len(rows[0]["sources"]) == 1
    assert rows[0]["answer"][:20] in " ".join(before)

    teller.slow = True
    ask(fresh, "Write a very long story about a doctor, with many chapters.")
    last = fresh.locator("[data-step-type]").last
    expect(last).not_to_have_attribute("data-step-type", "user_message")
    questions = 0
    while questions < 5:  # what was sent is stored by another task than what is shown
        questions = sum(each["type"] == "user_message" for each in stored_steps(fresh))
    restarted.kill()
    teller.slow = False
    restarted.start()
    fresh.reload()
    expect(fresh.get_by_role("button", name="Try again")).to_have_count(1, timeout=PATIENCE)
    expect(fresh.locator("[data-step-type=user_message]")).to_have_count(5)
    ask(fresh, "thank you doctor")
    answered(fresh)
    log = (log + restarted.end()).lower()
    assert "your app is available" in log
    assert [word for word in ("headache", "throbs", "chest hurts", "helped") if word in log] == []
    for shown in (page, fresh):
        shown.context.close()


@needs_browser
def test_threads_are_searched_renamed_exported_and_deleted_for_good(
    restarted: Restarted, browser: Browser
) -> None:
    page = open_page(new_context(browser), restarted.start())
    choose(page, "retrieval", "always")
    ask(page, ELBOW)
    answered(page)
    judge(page, OPINION)
    page.locator("#header #new-chat-button").click()
    page.locator("#confirm").click()
    page.locator("#starters button:enabled").first.wait_for()
    ask(page, PRESSURE)
    answered(page)
    expect(threads(page).filter(has_text=PRESSURE)).to_have_count(1)

    page.locator("#search-chats-button").click()
    page.get_by_role("dialog").locator("input").fill("ELB rash strange")
    expect(page.get_by_role("option")).to_have_text([ELBOW])
    page.get_by_role("option").click()
    expect(page.locator(".positive-feedback-on")).to_have_count(1, timeout=PATIENCE)

    with page.expect_download() as download:
        page.locator('a[href^="/export"]').click()
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert download.value.suggested_filename.endswith("-i-have-a-strange-rash-on.md")
    for part in (ELBOW, "(RAG)", "Sources:", f"Judged helpful: {OPINION}"):
        assert part in text

    address = page.url
    choose_of(page, ELBOW, "rename-thread")
    page.get_by_role("dialog").locator("input").fill("Arm trouble")
    page.get_by_role("dialog").get_by_role("button", name="Confirm").click()
    expect(threads(page).filter(has_text="Arm trouble")).to_have_count(1)
    page.reload()
    expect(threads(page).filter(has_text="Arm trouble")).to_have_count(1)

    database = restarted.home / "history.db"
    assert b"elbow" in database.read_bytes()
    choose_of(page, "Arm trouble", "delete-thread")
    page.get_by_role("alertdialog").get_by_role("button", name="Confirm").click()
    expect(threads(page).filter(has_text="Arm trouble")).to_have_count(0)
    page.context.close()  # which stores what the session holds
    restarted.end()
    left = b"".join(path.read_bytes() for path in restarted.home.glob("history.db*"))
    assert b"pressure" in left
    for gone in (b"elbow", b"Arm trouble", OPINION.encode(), address[-36:].encode()):
        assert gone not in left


@needs_browser
def test_an_answer_that_ended_while_the_connection_was_lost_is_shown(
    server: Server, teller: Storyteller, page: Page
) -> None:
    connections: list[WebSocketRoute] = []

    def relay(route: WebSocketRoute) -> None:
        route.connect_to_server()
        connections.append(route)

    page.route_web_socket(re.compile("/ws/"), relay)
    page.reload()
    choose(page, "retrieval", "always")
    teller.slow = True
    ask(page, HEADACHE)
    step(page)
    page.wait_for_url("**/thread/*")
    page.context.set_offline(True)
    connections[-1].close()
    shown: list[str] = []
    while shown != (shown := messages(page).all_inner_texts()):  # what came before may be drawn yet
        page.wait_for_timeout(500)
    teller.slow = False
    with httpx.Client(base_url=server.url, timeout=60) as other:
        other.post("/auth/header")
        thread = page.url.rsplit("/", 1)[-1]
        for _ in range(PATIENCE // 500):
            stored = other.get(f"/project/thread/{thread}").json()["steps"]
            if any(step["type"] == "assistant_message" for step in stored):
                break
            page.wait_for_timeout(500)
    assert messages(page).all_inner_texts() == shown
    page.context.set_offline(False)
    expect(page.get_by_role("button", name="Source 1")).to_have_count(1, timeout=PATIENCE)
    expect(page.get_by_role("button", name="Try again")).to_have_count(1)
    expect(messages(page)).to_have_count(2)
    assert len(messages(page).last.inner_text()) > len("".join(shown[1:]))
    ask(page, "thank you doctor")
    answered(page)


@needs_browser
def test_one_account_never_sees_anothers(accounts: Restarted, browser: Browser) -> None:
    url = accounts.start().url
    ana = browser.new_context().new_page()
    ana.goto(url)
    log_in(ana, "ana", "ben's secret")
    expect(ana.get_by_role("alert")).to_contain_text("Unable to sign in: check")
    log_in(ana, "ana", "ana's secret")
    ana.locator("#starters button:enabled").first.wait_for()
    ask(ana, HEADACHE)
    answered(ana)
    judge(ana, COMMENT)
    thread = ana.url.rsplit("/", 1)[-1]

    ben = browser.new_context().new_page()
    ben.goto(url)
    log_in(ben, "ben", "ben's secret")
    ben.locator("#starters button:enabled").first.wait_for()
    expect(threads(ben)).to_have_count(0)
    ben.goto(f"{url}/thread/{thread}")
    ben.wait_for_url(f"{url}/", timeout=PATIENCE)
    expect(ben.get_by_text(HEADACHE)).to_have_count(1)  # the starter

    def cookies(page: Page) -> dict[str, str]:
        return {str(c.get("name")): str(c.get("value")) for c in page.context.cookies()}

    with httpx.Client(base_url=url, timeout=60, cookies=cookies(ana)) as own:
        found = own.get(f"/project/thread/{thread}").json()
        answer = next(step for step in found["steps"] if step.get("feedback"))
        exported = own.get(f"/export/{thread}")
        assert HEADACHE in exported.text
        assert exported.headers["cache-control"] == "no-store"
        assert own.get("/user").json()["display_name"] == "ana"
    judged = {"forId": answer["id"], "value": 0, "threadId": thread, "comment": "Ben was here."}
    feedback = answer["feedback"]["id"]
    proxied = {"X-Forwarded-User": "ana"}
    with (
        httpx.Client(base_url=url, timeout=60, headers=proxied) as proxys,
        httpx.Client(base_url=url, timeout=60) as none,
    ):
        assert proxys.post("/auth/header").status_code == 200
        assert proxys.get("/user").json()["identifier"] == "header:ana"
        # A login ends when the proxy names somebody else, or nobody.
        named = {"X-Forwarded-User": "zoe"}
        assert proxys.get("/user", headers=named).status_code == 401
        for stranger in (
            httpx.Client(base_url=url, timeout=60, cookies=cookies(ben)),
            proxys,
            none,
        ):
            tried = [
                stranger.get(f"/project/thread/{thread}"),
                stranger.get(f"/project/thread/{thread}/element/x"),
                stranger.get(f"/project/share/{thread}"),
                stranger.get(f"/export/{thread}"),
                stranger.put("/project/thread", json={"threadId": thread, "name": "Ben's"}),
                stranger.put("/project/thread/share", json={"threadId": thread, "isShared": True}),
                stranger.request("DELETE", "/project/thread", json={"threadId": thread}),
                stranger.put("/feedback", json={"feedback": judged, "sessionId": "x"}),
                stranger.request("DELETE", "/feedback", json={"feedbackId": feedback}),
            ]
            assert {answer.status_code for answer in tried} <= {401, 404}
            page = {"pagination": {"first": 9}, "filter": {"userId": found["userId"]}}
            mine = stranger.post("/project/threads", json=page)
            assert mine.status_code == 401 or mine.json()["data"] == []
    with httpx.Client(base_url=url, timeout=60, cookies=cookies(ana)) as own:
        again = own.get(f"/project/thread/{thread}").json()
        assert again == found
        accounts.medraft("accounts", "add", "ana", standard_input="another secret\n")
        assert own.get("/user").status_code == 401
    with httpx.Client(base_url=url, timeout=60, cookies=cookies(ben)) as own:
        assert own.get("/user").status_code == 200
        accounts.medraft("accounts", "remove", "ben")
        assert own.get("/user").status_code == 401
    assert accounts.medraft("accounts", "list") == "ana\n"
    https = {"X-Forwarded-Proto": "https", "X-Forwarded-User": "ana"}
    cookie = httpx.post(f"{url}/auth/header", headers=https).headers["set-cookie"]
    assert cookie.endswith("; Secure")
    assert "HttpOnly" in cookie
    for name in ("accounts.json", "auth_secret", "history.db"):
        assert (accounts.home / name).stat().st_mode & 0o777 == 0o600


@needs_browser
def test_whom_an_oauth_provider_knows_is_let_in(oauth: Server, browser: Browser) -> None:
    page = browser.new_context().new_page()
    page.goto(oauth.url)
    page.get_by_role("button", name="clinic").click()
    page.locator("#starters button:enabled").first.wait_for()
    user = page.request.get(f"{oauth.url}/user").json()
    assert (user["identifier"], user["display_name"]) == (f"clinic:{Provider.ZOE}", Provider.ZOE)
    login = next(c for c in page.context.cookies() if c.get("name") == "access_token")
    assert login.get("httpOnly") and login.get("sameSite") == "Lax"
    # A code that another website sends a patient's browser back with logs nobody in.
    forged = {"code": Provider.CODE, "state": "another's"}
    refusal = httpx.get(f"{oauth.url}/auth/oauth/clinic/callback", params=forged, timeout=60)
    assert "error" in refusal.headers["location"] and not refusal.cookies
    assert httpx.post(f"{oauth.url}/auth/header").status_code == 400
    assert httpx.get(f"{oauth.url}/user", timeout=60).status_code == 401
    assert "set-cookie" not in httpx.get(oauth.url, timeout=60).headers


def test_the_one_local_user_is_not_for_proxies_and_other_names(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as local:
        login = local.post("/auth/header")
        assert login.status_code == 200
        cookie = login.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert "secure" not in cookie
        assert local.get("/user").json()["identifier"] == "local"
        for headers in (
            {"Host": "rebound.example"},
            {"X-Forwarded-For": "203.0.113.5"},
            {"Forwarded": "for=203.0.113.5"},
        ):
            assert local.get("/user", headers=headers).status_code == 401
            assert httpx.post(f"{server.url}/auth/header", headers=headers).status_code == 401
            assert "set-cookie" not in httpx.get(server.url, headers=headers, timeout=60).headers


@needs_browser
def test_the_page_brings_the_login_along_and_is_loaded_once(
    server: Server, browser: Browser
) -> None:
    page = browser.new_context().new_page()
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))
    page.goto(server.url)
    page.locator("#starters button:enabled").first.wait_for()
    assert [each.url for each in asked if each.is_navigation_request()] == [f"{server.url}/"]
    page.context.close()
    with httpx.Client(base_url=server.url, timeout=60) as local:
        cookie = local.get("/thread/any").headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=lax" in cookie
        assert local.get("/user").json()["identifier"] == "local"
        assert "set-cookie" not in local.get("/").headers  # it has one


@needs_browser
def test_a_page_that_connects_before_it_knows_its_thread_gets_it(
    server: Server, browser: Browser
) -> None:
    page = open_page(new_context(browser), server)
    ask(page, ELBOW)
    answered(page)
    thread = page.url.rpartition("/")[2]
    page.context.close()
    with httpx.Client(base_url=server.url, timeout=60) as local:
        local.get("/")
        login = "; ".join(f"{name}={value}" for name, value in local.cookies.items())
    # As a page that is loaded does on a busy machine: as one session, first without its thread.
    who = {"sessionId": str(uuid.uuid4()), "clientType": "webapp", "userEnv": "{}"}
    address = f"{server.url.replace('http', 'ws')}/ws/socket.io/?EIO=4&transport=websocket"
    with ExitStack() as connected:
        for auth in (who, who | {"threadId": thread}):
            socket = connected.enter_context(
                connect(address, origin=Origin(server.url), additional_headers={"Cookie": login})
            )
            for said in (f"40{json.dumps(auth)}", '42["connection_successful"]'):
                socket.recv(PATIENCE / 1000)
                socket.send(said)
            socket.recv(PATIENCE / 1000)
        while not (event := str(socket.recv(PATIENCE / 1000))).startswith('42["resume_thread"'):
            pass
        assert json.loads(event[2:])[1]["id"] == thread


@needs_browser
def test_a_page_whose_first_connection_is_slow_shows_its_conversation(
    server: Server, browser: Browser
) -> None:
    page = open_page(new_context(browser), server)
    ask(page, ELBOW)
    answered(page)
    # Each connection waits for a cookie: the first, which knows of no conversation, for as long as
    # the other one does, but for two seconds at most.
    asked: list[Route] = []
    held: list[Route] = []

    def hold(route: Route) -> None:
        asked.append(route)
        if len(asked) == 1:
            held.append(route)
        else:
            route.fulfill(response=route.fetch())
            let_go()

    def let_go() -> None:
        while held:
            held.pop().continue_()

    page.route("**/set-session-cookie", hold)
    page.reload()
    page.wait_for_timeout(2000)
    let_go()
    expect(page.get_by_role("button", name="Try again")).to_have_count(1, timeout=PATIENCE)
    assert len(asked) == 2
    page.context.close()


def test_the_page_is_not_opened_to_everybody(app_root: Path, environment: dict[str, str]) -> None:
    everywhere = [*command(free_port()), "--host", "0.0.0.0"]
    refused(everywhere, app_root, environment, "the page would be open to everybody who reaches it")


def test_the_secret_is_made_once_and_never_readable_by_others(tmp_path: Path) -> None:
    program = (
        "import os; os.umask(0)\n"
        "from agent import settings; from agent.page.server import secret\n"
        "secret.provide(settings.load()); print(os.environ['CHAINLIT_AUTH_SECRET'])"
    )
    environment = os.environ | {"MEDRAFT_HOME": str(tmp_path / "home")}
    environment.pop("CHAINLIT_AUTH_SECRET", None)
    options: Any = {"capture_output": True, "text": True, "check": True, "cwd": tmp_path}
    run = [sys.executable, "-c", program]
    first = subprocess.run(run, env=environment, **options).stdout.strip()
    again = subprocess.run(run, env=environment, **options).stdout.strip()
    assert first == again
    assert len(first) >= 32
    assert (tmp_path / "home" / "auth_secret").stat().st_mode & 0o777 == 0o600
    given = subprocess.run(
        run, env=environment | {"CHAINLIT_AUTH_SECRET": "given"}, **options
    ).stdout
    assert given == "given\n"
