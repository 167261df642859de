"""The endpoint at the page's own port: beside Chainlit, and never in its way."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import openai
import pytest

from agent.storage.keys import Keys

from browsing import Server, command, free_port, refused, serve, serve_loaded
from storyteller import Storyteller

HELLO = "Hello there"
STORY = {
    "model": "base",
    "messages": [{"role": "user", "content": "Write a long story about a doctor."}],
    "stream": True,
}


@pytest.fixture(scope="module")
def both(
    app_root: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The page with the endpoint; its models may be loading still."""
    wanted = {"MEDRAFT_ENDPOINT": "true", "MEDRAFT_MAX_TOKENS": "16"}
    with serve(app_root, environment | wanted, tmp_path_factory.mktemp("both")) as server:
        yield server


@pytest.fixture(scope="module")
def http(both: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=both.url, trust_env=False, timeout=120) as client:
        yield client


def test_the_page_is_ready_when_all_is_there(http: httpx.Client) -> None:
    seen = []
    while (response := http.get("/ready")).status_code != 200:
        assert response.status_code == 503 and response.headers["retry-after"]
        seen.append(response.json())
    assert {state["models"] for state in seen} <= {"loading", "ready"}
    assert response.json() == dict.fromkeys(("models", "index", "database"), "ready") | {
        "ready": True
    }
    assert http.get("/health").status_code == 200
    assert "medraft_turns" in http.get("/metrics").text


def test_the_endpoint_answers_beside_the_page(both: Server, http: httpx.Client) -> None:
    client = openai.OpenAI(base_url=f"{both.url}/v1", api_key="none", max_retries=0)
    whole = client.chat.completions.create(
        model="base", messages=[{"role": "user", "content": HELLO}]
    )
    assert whole.choices[0].message.content
    assert "<html" in http.get("/").text  # and Chainlit's page is there as it was
    assert "Content-Security-Policy" in http.get("/").headers
    assert http.get("/v1/models", headers={"Origin": "https://a.example"}).status_code == 403


def test_an_answer_under_way_does_not_hold_up_the_end(
    app_root: Path, telling: dict[str, str], teller: Storyteller, tmp_path: Path
) -> None:
    teller.slow = True
    told: list[str] = []
    with (
        serve_loaded(app_root, telling | {"MEDRAFT_ENDPOINT": "true"}, tmp_path) as server,
        httpx.Client(base_url=server.url, trust_env=False, timeout=120) as client,
        client.stream("POST", "/v1/chat/completions", json=STORY) as answer,
        suppress(httpx.RemoteProtocolError),
    ):
        for line in answer.iter_lines():
            if "There" in line:
                server.process.terminate()
            told.append(line)
    assert told and "data: [DONE]" not in told


def test_a_key_is_the_endpoints_and_no_login(
    http: httpx.Client, environment: dict[str, str]
) -> None:
    keys = Keys(Path(environment["MEDRAFT_HOME"]))
    key = keys.add("ward 3")
    try:
        assert http.get("/v1/models").status_code == 401
        given = {"Authorization": f"Bearer {key}"}
        assert http.get("/v1/models", headers=given).status_code == 200
        assert http.get("/metrics").status_code == 401
        assert http.get("/ready").status_code == 200
    finally:
        keys.remove("ward 3")


def test_ready_while_the_history_is_gone_and_when_it_is_back(
    http: httpx.Client, environment: dict[str, str], tmp_path: Path
) -> None:
    kept = Path(environment["MEDRAFT_HOME"]) / "history.db"
    shutil.move(kept, tmp_path / "away")
    try:  # its answer holds for a second
        while (gone := http.get("/ready")).status_code == 200:
            pass
    finally:
        shutil.move(tmp_path / "away", kept)
    assert gone.status_code == 503 and gone.json()["database"] == "failed"
    while http.get("/ready").status_code != 200:
        pass


def test_without_the_setting_there_is_no_endpoint(server: Server) -> None:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as http:
        while http.get("/ready").status_code != 200:
            pass
        assert "data" not in http.get("/v1/models").text[:20]
        body = {"model": "base", "messages": [{"role": "user", "content": HELLO}]}
        assert http.post("/v1/chat/completions", json=body).status_code in (404, 405)


def test_beyond_loopback_the_endpoint_wants_a_key_besides_accounts(
    app_root: Path, environment: dict[str, str]
) -> None:
    beyond = environment | {"MEDRAFT_ENDPOINT": "true", "MEDRAFT_USER_HEADER": "X-User"}
    arguments = [*command(free_port()), "--host", "0.0.0.0"]
    refused(arguments, app_root, beyond, "medraft keys add")
