"""The steps of Containerfile and compose.yaml that want no container tool and no network.

What pip would install is here already, and the image's file system is a folder: the sources that a
build is given, which cannot be written to, and `data`. No image is built.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from agent.settings import PREFIX, ROOT, Settings

from browsing import free_port

STEPS = [
    re.sub(r"\\\n", "", step).partition(" ")
    for step in re.findall(
        r"^[A-Z]+ (?:.*\\\n)*.*$", (ROOT / "Containerfile").read_text("utf-8"), re.MULTILINE
    )
]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
# Without it root, as whom tests run in many containers, writes wherever it likes.
NO_ROOT = ["setpriv", "--bounding-set", "-dac_override"] if os.geteuid() == 0 else []


def step(name: str) -> list[str]:
    """The arguments of every such step, in order."""
    return [arguments for each, _, arguments in STEPS if each == name]


HEALTHCHECK = step("HEALTHCHECK")[0].partition(" CMD ")
ASKS: list[str] = json.loads(HEALTHCHECK[2])
IMAGE = dict(each.split("=", 1) for each in shlex.split(step("ENV")[0]))


def left_out(folder: str, names: list[str]) -> set[str]:
    """What .dockerignore keeps from a build, for shutil.copytree."""
    patterns = (ROOT / ".dockerignore").read_text("utf-8").split()
    here = Path(folder).relative_to(ROOT)
    return {
        name
        for name in names
        for pattern in patterns
        if str(here / name) == pattern
        or (pattern.startswith("**/") and fnmatch(name, pattern.removeprefix("**/")))
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """/medraft of the image: what a build is given. Only Chainlit's folders can be written to."""
    source = tmp_path_factory.mktemp("image") / "medraft"
    shutil.copytree(ROOT, source, ignore=left_out)
    made, owned = re.findall(r"install -d -o \S+ -g \S+ (\..+) && chown \S+ (.+)", step("RUN")[-1])[
        0
    ]
    writable = [source / each for each in (*made.split(), *owned.split())]
    for folder in writable:
        folder.mkdir(parents=True, exist_ok=True)
    everything = [source, *source.rglob("*")]
    for path in everything:
        path.chmod(0o755 if path in writable else 0o555 if path.is_dir() else 0o444)
    yield source
    for path in everything:
        if path.is_dir():
            path.chmod(0o755)


@pytest.fixture(scope="module")
def container(
    source: Path,
    environment: dict[str, str],
    index: Path,
    models_home: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """The environment of a container whose volume has the model and an index already, behind a
    proxy that does not answer."""
    data = tmp_path_factory.mktemp("data")
    (data / "home").mkdir()
    (data / "home" / "models").symlink_to(models_home / "models")
    shutil.copytree(index, data / "index")
    here = {"/data": str(data), "/opt/venv/bin": str(Path(sys.executable).parent)}
    given = {name: value.replace("$PATH", os.environ["PATH"]) for name, value in IMAGE.items()}
    for there, instead in here.items():
        given = {name: value.replace(there, instead) for name, value in given.items()}
    given |= {"PYTHONPATH": str(source), "PORT": str(free_port())}
    return environment | given | {"http_proxy": f"http://127.0.0.1:{free_port()}"}


def run(
    command: list[str], source: Path, container: dict[str, str], said: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*NO_ROOT, *command],
        cwd=source,
        env=container,
        input=said,
        capture_output=True,
        text=True,
        check=False,
    )


@contextmanager
def healthy(
    command: list[str], source: Path, container: dict[str, str], log: Path
) -> Iterator[str]:
    """The address of what a command of the image serves, once its healthcheck says so; before and
    after, that says that there is nothing."""
    assert run(ASKS, source, container).returncode == 1
    with log.open("wb") as output:
        serving = subprocess.Popen(
            [*NO_ROOT, *command], cwd=source, env=container, stdout=output, stderr=output
        )
    try:
        while run(ASKS, source, container).returncode != 0:
            assert serving.poll() is None, log.read_text("utf-8")
            time.sleep(0.5)  # each look starts an interpreter
        yield f"http://127.0.0.1:{container['PORT']}"
    finally:
        serving.terminate()
        serving.wait(120)
    assert run(ASKS, source, container).returncode == 1


def test_a_build_is_given_what_it_copies(source: Path) -> None:
    for arguments in step("COPY"):
        *names, _ = arguments.split()
        assert names[0].startswith("--from=") or all((source / name).exists() for name in names)
    for name in ("tests", ".git", ".venv", ".medraft", "index_store/persisted"):
        assert not (source / name).exists()
    assert step("USER") == ["medraft"]


@pytest.mark.parametrize("extra", ["cpu", "gpu", "gpu-search"])
def test_a_build_asks_pip_for_what_pyproject_names(source: Path, extra: str) -> None:
    wanted = re.findall(r'(python3 -c "import tomllib.*?") > wanted.txt', "\n".join(step("RUN")))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    said = run(["sh", "-c", wanted[0]], source, os.environ | {"FAISS": extra})
    assert said.stdout.splitlines() == [
        *project["dependencies"],
        *project["optional-dependencies"][extra],
    ]


def test_page_and_endpoint_start_and_become_healthy(
    source: Path, container: dict[str, str], tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in source.rglob("*") if path.is_file()}
    assert run(["sh", "-c", "echo > x"], source, container).returncode != 0
    page, endpoint = json.loads(step("CMD")[0]), SERVICES["endpoint"]["command"]
    said = run(["medraft", "accounts", "add", "ana"], source, container, "ana's secret\n")
    assert said.returncode == 0, said.stderr
    with healthy(page, source, container, tmp_path / "page.log") as url:
        assert "medraft" in httpx.get(url, trust_env=False, timeout=60).text
    said = run(["medraft", "keys", "add", "ana"], source, container)
    key = said.stdout.split()[-1]
    command = [part.replace("$$", "$") for part in endpoint]
    with healthy(command, source, container, tmp_path / "endpoint.log") as url:
        answered = httpx.post(
            f"{url}/v1/chat/completions",
            json={
                "model": "base",
                "max_tokens": 4,
                "messages": [{"role": "user", "content": "Hi"}],
            },
            headers={"Authorization": f"Bearer {key}"},
            trust_env=False,
            timeout=60,
        )
        assert answered.status_code == 200, answered.text
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    added = {path.relative_to(source).parts[0] for path in source.rglob("*") if path.is_file()}
    assert added - {path.relative_to(source).parts[0] for path in before} <= {".files"}


@pytest.mark.parametrize("name", ["page", "endpoint"])
def test_compose_asks_for_health_as_the_image_does(name: str) -> None:
    asked = SERVICES[name]["healthcheck"]
    assert asked["test"] == ["CMD", *ASKS]
    flags = {f"--{each.replace('_', '-')}={asked[each]}" for each in asked if each != "test"}
    assert flags == set(HEALTHCHECK[0].split())
    waits = [on for each in SERVICES.values() for on in each.get("depends_on", {})]
    assert waits and all("healthcheck" in SERVICES[on] for on in waits)


@pytest.mark.parametrize("name", ["page", "endpoint"])
def test_compose_gives_a_container_the_file_but_not_its_folders(name: str) -> None:
    assert SERVICES[name]["env_file"] == [{"path": ".env", "required": False}]
    given = SERVICES[name]["environment"]
    ours = {each: IMAGE[each] for each in (f"{PREFIX}HOME", f"{PREFIX}INDEX_DIR")}
    assert given.items() >= (ours | {"PORT": "8000" if name == "page" else "8001"}).items()
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    assert {each for each in given if each.startswith(PREFIX)} <= known


def test_what_compose_reads_is_named_and_stops_no_other_service() -> None:
    text = (ROOT / "compose.yaml").read_text("utf-8")
    told = text.partition("x-medraft:")[0] + (ROOT / ".env.example").read_text("utf-8")
    read = re.findall(r"\$\{(\w+)(:?[?-]?)", text)
    assert {name for name, _ in read if name not in told} == set()
    # It is read as a whole, whatever is started of it.
    assert "?" not in {how[-1:] for _, how in read}
