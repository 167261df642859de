"""Which weights an engine loads, and what it says of settings that it cannot follow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent import settings
from agent.errors import AgentError
from agent.llms import engines
from agent.llms.embedded import embedded_gguf

from asking import answer, said
from storyteller import storyteller

if TYPE_CHECKING:
    from agent.llms.huggingface.engine import HuggingFaceChatLLM

ENGINES = ("llama_cpp", "huggingface")


async def test_without_an_adapter_fine_tuned_says_how_to_get_one(models_home: Path) -> None:
    loaded = engines.load(settings.load(engine="llama_cpp", home=models_home, adapter="none"))
    with pytest.raises(AgentError, match="MEDRAFT_ADAPTER"):
        loaded.llm("fine-tuned")


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "/no/such/model"),
        ("model", "/no/such/model.gguf"),
        ("adapter", "/no/adapter"),
        ("fine_tuned_model", "/no/such/model"),
    ],
)
def test_a_missing_file_is_named(models_home: Path, name: str, field: str, value: str) -> None:
    values = {"model": "embedded"} | {field: value}
    with pytest.raises(AgentError, match=value):
        engines.load(settings.load(engine=name, home=models_home, **values))


@pytest.mark.parametrize("name", ENGINES)
def test_a_folder_without_an_adapter_is_named(models_home: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(AgentError, match=str(tmp_path)):
        engines.load(
            settings.load(engine=name, model="embedded", home=models_home, adapter=str(tmp_path))
        )


@pytest.mark.parametrize("name", ENGINES)
def test_an_adapter_of_another_architecture_is_named(
    models_home: Path, tiny_adapter: Path, name: str
) -> None:
    wanted = {"engine": name, "model": "embedded", "home": models_home}
    with pytest.raises(AgentError, match="was not made for"):
        engines.load(settings.load(**wanted, adapter=str(tiny_adapter)))


def test_an_adapter_and_a_full_model_are_one_too_many(models_home: Path, adapter: Path) -> None:
    with pytest.raises(AgentError, match="unset one"):
        engines.load(
            settings.load(home=models_home, adapter=str(adapter), fine_tuned_model="embedded")
        )


async def test_a_full_checkpoint_is_the_fine_tuned_llm(
    models_home: Path, tiny_checkpoint: Path
) -> None:
    wanted = {"engine": "huggingface", "model": "embedded", "home": models_home}
    loaded = engines.load(settings.load(**wanted, fine_tuned_model=str(tiny_checkpoint)))
    base = await answer(loaded.base)
    tuned = await answer(loaded.llm("fine-tuned"))
    assert tuned and tuned != base
    alone = engines.load(settings.load(**wanted | {"model": str(tiny_checkpoint)}, adapter="none"))
    assert tuned == await answer(alone.base)
    assert await answer(loaded.base) == base


async def test_a_full_gguf_is_the_fine_tuned_llm(models_home: Path) -> None:
    wanted = {"engine": "llama_cpp", "model": "embedded", "home": models_home}
    loaded = engines.load(settings.load(**wanted, fine_tuned_model=str(embedded_gguf())))
    assert loaded.llm("fine-tuned").metadata.model_name.endswith("Q4_1")
    assert await answer(loaded.llm("fine-tuned")) and await answer(loaded.base)


def test_a_damaged_model_is_one_sentence(models_home: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "model.gguf"
    damaged.write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(AgentError, match="cannot load"):
        engines.load(settings.load(engine="llama_cpp", model=str(damaged), home=models_home))


async def test_an_engine_that_fails_says_so_and_lives_on(
    models_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = engines.load(settings.load(engine="huggingface", model="embedded", home=models_home))
    llm: HuggingFaceChatLLM = loaded.base  # type: ignore[assignment]
    with monkeypatch.context() as patch:
        patch.setattr(llm._shared.model, "generate", lambda **_: 1 / 0)
        with pytest.raises(AgentError, match="division"):
            await answer(llm)
    assert await answer(llm, tokens=2)


async def test_a_prompt_that_the_server_refuses_is_one_sentence(models_home: Path) -> None:
    loaded = engines.load(settings.load(engine="llama_cpp", home=models_home))
    with pytest.raises(AgentError, match="context size"):
        await answer(loaded.base, said("", "It hurts. " * 5000))


FIRST_ANSWER = """
import asyncio, sys
from agent import settings
from agent.llms import engines
from asking import answer

engine = engines.load(settings.load())
loaded = set(sys.modules)
assert asyncio.run(answer(engine.base, tokens=4))
new = set(sys.modules) - loaded
print(sorted(name for name in new if name.split(".")[0] in ("openai", "transformers", "torch")))
"""


@pytest.mark.parametrize("name", [*ENGINES, "openai_like"])
def test_the_first_answer_imports_no_library_in_the_event_loop(
    models_home: Path, name: str
) -> None:
    with storyteller() as teller:
        theirs = teller.settings if name == "openai_like" else {"MEDRAFT_MODEL": "embedded"}
        done = subprocess.run(
            [sys.executable, "-c", FIRST_ANSWER],
            cwd=Path(__file__).parent,
            env=os.environ | {"MEDRAFT_HOME": str(models_home), "MEDRAFT_ENGINE": name} | theirs,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
