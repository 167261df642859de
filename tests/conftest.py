"""What the tests share: a real embedding model, and a small real index."""

from __future__ import annotations

import offline  # first of all: what is imported after it reads the environment

# isort: split

import asyncio
import contextlib
import gc
import json
import os
import select
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from agent import settings
from agent.llms import engines
from agent.llms.embedded import llama_cpp_file, transformers_directory
from agent.llms.interface import Engine
from agent.settings import ROOT
from agent.understanding.encoder import Encoder, shipped
from index_store.build import Built, build
from index_store.cleaning import Cleaner, clean
from index_store.dataset import Dialogue
from index_store.embedding import EMBEDDED, Embed, load_embedding, question_embedder

from browsing import (
    ARGUMENTS,
    CHROMIUM,
    COMMANDING,
    HOSTILE,
    Server,
    new_context,
    open_page,
    serve_loaded,
)
from misbehaving import Misbehaving
from outside import Postgres
from storyteller import Storyteller, storyteller
from terminal import Medraft, in_process

if TYPE_CHECKING:
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

DIALOGUES = [
    Dialogue(*texts)
    for texts in [
        (
            "Q. What helps against migraine?",
            "My head throbs on one side twice a month and light hurts.",
            "This sounds like migraine. Rest in a dark room, and take ibuprofen early.",
        ),
        (
            "Q. Why do my knees creak?",
            "I am 60 and my knees grind when I climb stairs.",
            "Creaking with pain on stairs points to wear of the joint. Strengthen the thighs.",
        ),
        (
            "Q. How is a bladder infection treated?",
            "It burns when I pass urine, and I have to go all the time.",
            "A urine test will confirm cystitis. Drink plenty; antibiotics clear it in days.",
        ),
        (
            "Q. My baby has a rash under the nappy, what can I do?",
            "She is five months old and her bottom is red and sore.",
            "Nappy rash heals with air, warm water instead of wipes, and a zinc cream.",
        ),
        (
            "Q. Is my blood pressure too high?",
            "The machine says 150 over 95 at most times.",
            "That is above the normal range. Measure for a week, cut down on salt, see your GP.",
        ),
        (
            "Q. Can I stop my antidepressant?",
            "I have taken sertraline for a year and feel well again.",
            "Never stop at once. Reduce the dose over weeks together with your doctor.",
        ),
        (
            "Q. What can I do about hay fever?",
            "Every May my eyes itch and my nose runs.",
            "An antihistamine and a steroid nasal spray, begun before the season, help most.",
        ),
        (
            "Q. Does my child need an inhaler?",
            "My son of six coughs at night and wheezes after running.",
            "Wheeze after exercise suggests asthma. A peak flow test comes first, then an inhaler.",
        ),
        (
            "Q. Why am I always tired?",
            "I sleep eight hours, have heavy periods, and feel worn out.",
            "Heavy periods cause iron deficiency. A blood count and ferritin will show it.",
        ),
        (
            "Q. How do I treat acne?",
            "I am 17 and have spots on my face and back.",
            "Benzoyl peroxide once a day for eight weeks is the usual first step.",
        ),
        (
            "Q. What causes heartburn at night?",
            "Acid comes up to my throat when I lie down.",
            "Reflux is worse lying flat. Raise the head of the bed and eat early.",
        ),
        (
            "Q. Is dupilumab an option?",
            "Creams no longer control the eczema in the crooks of my arms.",
            "It is used when creams fail, given as an injection every two weeks.",
        ),
    ]
]


gc.disable()  # until `pytest_collection_finish`: what is imported stays


def pytest_collection_finish() -> None:
    """From here on garbage is collected, but not looked for among what was imported."""
    gc.freeze()
    gc.enable()


MODELS = {"embedding", "embed_questions", "encoder", "build_index", "models_home"}
SERVERS = {"playwright", "app_root", "served"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as `slow` what uses a model, a browser or a server of page, endpoint or Postgres.

    The files with most of these first: a long one that came last would be run alone.
    """
    slow: Counter[Path] = Counter()
    for item in items:
        needed = {mark.args[0] for mark in item.iter_markers("needs")}
        if {"chromium", "postgresql"} & needed or (MODELS | SERVERS) & set(
            getattr(item, "fixturenames", ())
        ):
            item.add_marker("slow")
            slow[item.path] += 1
    items.sort(key=lambda item: -slow[item.path])


def pytest_runtest_setup(item: pytest.Item) -> None:
    """The one place that skips: for want of an outside thing, and never in CI, which has all."""
    for thing in [mark.args[0] for mark in item.iter_markers("needs") if not mark.args[1]]:
        without = pytest.fail if os.environ.get("CI") else pytest.skip
        without(f"{thing} is not installed: this was NOT tested")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test of the page that fails tells what stood on the screen and what the server said."""
    report = yield
    used = getattr(item, "funcargs", {})
    if report.failed and isinstance(server := used.get("server"), Server):
        report.sections.append(("the server's log", server.log.read_text("utf-8")[-4000:]))
    if report.failed and report.when == "call" and isinstance(page := used.get("page"), Page):
        with contextlib.suppress(PlaywrightError):
            told = f"{page.url}\n{page.locator('body').inner_text(timeout=5000)}"
            report.sections.append(("the page", told[-4000:]))
    return report


@pytest.fixture(scope="session")
def reached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """What was reached for beyond this machine. No `.env` lies where the tests run, either."""
    here = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("here"))
    with offline.guard() as reached:
        yield reached
    os.chdir(here)


@pytest.fixture(autouse=True)
def alone(reached: list[str]) -> Iterator[None]:
    """A test that reaches for the network fails, even if what it tests makes do without."""
    yield
    beyond = reached.copy()
    reached.clear()
    assert not beyond, f"the test reached for the network: {', '.join(beyond)}"


@pytest.fixture(scope="session")
def dialogues() -> list[Dialogue]:
    """Twelve questions about twelve things."""
    return DIALOGUES


@pytest.fixture(scope="session")
def embedding() -> HuggingFaceEmbedding:
    """The embedding model that comes with medraft."""
    return load_embedding(EMBEDDED)


@pytest.fixture(scope="session")
def embed_questions() -> Embed:
    """The same as a conversation loads it, for questions."""
    return question_embedder(EMBEDDED)


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """The encoder that triage and router read a message with."""
    return shipped()


@pytest.fixture(scope="session")
def build_index() -> Callable[[list[Dialogue], Path], Built]:
    """Clean rows and build an index of them, with the model that comes with medraft."""

    def run(rows: list[Dialogue], directory: Path) -> Built:
        return build(rows, directory, EMBEDDED, source="rows.jsonl", progress=False)

    return run


@pytest.fixture(scope="session")
def sample_index(
    tmp_path_factory: pytest.TempPathFactory,
    build_index: Callable[[list[Dialogue], Path], Built],
) -> Path:
    """The directory of an index of `dialogues`. Read it; copy it to change it."""
    directory = tmp_path_factory.mktemp("index")
    build_index(DIALOGUES, directory)
    return directory


@pytest.fixture(scope="session")
def models_home() -> Path:
    """The MEDRAFT_HOME of this checkout, where the embedded weights are converted only once."""
    home = ROOT / ".medraft"
    llama_cpp_file(home / "models")
    transformers_directory(home / "models")
    return home


@pytest.fixture(scope="session")
def adapter(models_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of the embedded model with random weights, as PEFT saves one."""
    checkpoint = transformers_directory(models_home / "models")
    return random_adapter(checkpoint, tmp_path_factory.mktemp("adapter"))


@pytest.fixture(scope="session")
def tiny_checkpoint(models_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two small layers with random weights, in the Hub's layout."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(transformers_directory(models_home / "models"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=tokenizer.eos_token_id,
    )
    directory = tmp_path_factory.mktemp("tiny")
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(str(directory))
    return directory


@pytest.fixture(scope="session")
def tiny_adapter(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of the tiny Llama with random weights."""
    return random_adapter(tiny_checkpoint, tmp_path_factory.mktemp("tiny-adapter"))


class Names(BaseHTTPRequestHandler):
    """A server as vLLM with a LoRA module: the model `base`, and `doctor` with the adapter."""

    llama_cpp: httpx.Client
    broken = threading.Event()  # while it is set, connections break off

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self.forward("GET", json.dumps({"data": [{"id": "base"}, {"id": "doctor"}]}))
        else:
            self.forward("GET")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body["lora"] = [{"id": 0, "scale": float(body.get("model") == "doctor")}]
        if self.broken.is_set():
            return
        self.forward("POST", body=body)

    def forward(self, method: str, instead: str = "", body: object = None) -> None:
        headers = {"Authorization": self.headers["Authorization"]}
        with (
            contextlib.suppress(OSError),
            self.llama_cpp.stream(method, self.path, json=body, headers=headers) as answered,
        ):
            self.send_response(answered.status_code)
            self.send_header("Content-Type", answered.headers["Content-Type"])
            self.end_headers()
            for part in [instead.encode()] if instead else answered.iter_raw():
                if self.broken.is_set():
                    return
                if select.select([self.connection], [], [], 0)[0]:
                    return  # the client is gone: leave llama.cpp, too
                self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Named:
    """The proxy's address, the engine whose server it stands before, and how to break it."""

    url: str
    key: str
    embedded: Engine
    broken: threading.Event

    def engine(self, **values: Any) -> Engine:
        wanted: dict[str, Any] = {"engine": "openai_like", "base_url": self.url}
        wanted |= {"api_key": self.key, "fine_tuned_model": "doctor"}
        return engines.load(settings.load(**wanted | values))


@pytest.fixture(scope="session")
def named(models_home: Path, adapter: Path) -> Iterator[Named]:
    # One thread: llama.cpp's wait for each other, which on a busy machine takes far longer.
    wanted: dict[str, Any] = {"engine": "llama_cpp", "model": "embedded", "threads": 1}
    embedded = engines.load(settings.load(**wanted, home=models_home, adapter=str(adapter)))
    base: Any = embedded.base
    llama_cpp = httpx.Client(
        base_url=base.api_base.rstrip("/").removesuffix("/v1"),
        limits=httpx.Limits(max_keepalive_connections=0),
        timeout=60,
        trust_env=False,
    )
    handler = type("Handler", (Names,), {"llama_cpp": llama_cpp})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield Named(
            f"http://127.0.0.1:{proxy.server_port}/v1", base.api_key, embedded, Names.broken
        )
        proxy.shutdown()


@pytest.fixture
def medraft_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Medraft:
    """What a command that is refused says, and its exit code."""
    return in_process(monkeypatch, capsys)


@pytest.fixture
async def misbehaving() -> AsyncIterator[Misbehaving]:
    """A server that does what the test tells it."""
    server = Misbehaving()
    server.listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = server.listening.sockets[0].getsockname()[1]
    server.url = f"http://127.0.0.1:{port}/v1"
    yield server
    server.listening.close()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server that runs."""
    with tempfile.TemporaryDirectory(prefix="medraft-postgres-") as folder:
        server = Postgres(folder)
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def app_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for Chainlit's own files, with our configuration in it."""
    root = tmp_path_factory.mktemp("app-root")
    for name in (".chainlit", "public"):
        shutil.copytree(ROOT / name, root / name)
    for readme in ROOT.glob("chainlit*.md"):
        shutil.copy(readme, root)
    return root


@pytest.fixture(scope="session")
def index(
    tmp_path_factory: pytest.TempPathFactory,
    dialogues: list[Dialogue],
    models_home: Path,
) -> Path:
    """An index of `dialogues`, of one whose texts try to be more than texts, and of one that
    gives orders to a model."""
    directory = tmp_path_factory.mktemp("page-index")
    as_it_is = Cleaner(as_is=True)  # a build that cleans takes some of its markup away
    rows = [*clean([*dialogues, COMMANDING])[0], HOSTILE]
    build(rows, directory, EMBEDDED, source="rows.jsonl", progress=False, cleaner=as_it_is)
    return directory


@pytest.fixture(scope="session")
def environment(
    models_home: Path, index: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """A server's environment: short, repeatable answers of the embedded model, and a home of its
    own, so that no history and no account of this checkout's is there."""
    home = tmp_path_factory.mktemp("home")
    (home / "models").symlink_to(models_home / "models")
    (models_home / "adapters").mkdir(exist_ok=True)  # what is converted once is there for all
    (home / "adapters").symlink_to(models_home / "adapters")
    return os.environ | {
        "MEDRAFT_HOME": str(home),
        "MEDRAFT_INDEX_DIR": str(index),
        "MEDRAFT_MODEL": "embedded",
        "MEDRAFT_ENGINE": "llama_cpp",
        "MEDRAFT_LLM": "base",
        "MEDRAFT_TEMPERATURE": "0",
        "MEDRAFT_MAX_TOKENS": "120",
        "MEDRAFT_MIN_RELEVANCE": "0.01",
    }


@pytest.fixture(scope="session")
def server(
    app_root: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The page is served, and the models are loaded."""
    with serve_loaded(app_root, environment, tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="session")
def narrator() -> Iterator[Storyteller]:
    """An LLM for pages of which it does not matter what it says: it says it at once."""
    with storyteller() as narrator:
        yield narrator


@pytest.fixture
def teller(narrator: Storyteller) -> Iterator[Storyteller]:
    """The same for a test that makes it slow; for the next one it is quick again."""
    yield narrator
    narrator.slow = False


@pytest.fixture(scope="session")
def telling(environment: dict[str, str], narrator: Storyteller) -> dict[str, str]:
    """The environment of a server whose LLM it is."""
    return environment | narrator.settings


@pytest.fixture(scope="session")
def told(
    app_root: Path, telling: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server like `server` in that environment, for a module that has it for its `server`."""
    with serve_loaded(app_root, telling, tmp_path_factory.mktemp("told")) as server:
        yield server


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """Playwright, with a browser at hand; while it runs, no asynchronous test can."""
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """One browser."""
    with playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS) as chromium:
        yield chromium


@pytest.fixture(scope="module")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """One patient's browser, which has compiled Chainlit's page after the first test."""
    with new_context(browser) as opened:
        yield opened


@pytest.fixture
def page(server: Server, context: BrowserContext) -> Iterator[Page]:
    """A new conversation."""
    opened = open_page(context, server)
    yield opened
    opened.close()


def random_adapter(checkpoint: Path, directory: Path) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = LoraConfig(
        r=8,
        lora_alpha=16,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        init_lora_weights=False,
    )
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    get_peft_model(model, config).save_pretrained(str(directory))
    return directory
