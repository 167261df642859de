"""Every setting, in one frozen object: defaults, then `.env`, then MEDRAFT_* variables.

Owns names, types, defaults and the refusal of unknown names. Knows nothing of what the
settings are used for, and imports nothing heavy.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any, Literal

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from agent.behaviour import LLMChoice, Retrieval
from agent.errors import AgentError

PREFIX = "MEDRAFT_"
ROOT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """What a run needs to know. Field `x` is read from MEDRAFT_X."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True, env_ignore_empty=True
    )

    home: Path = Field(ROOT / ".medraft", description="where a run writes what is not the index")
    index_dir: Path = Field(ROOT / "index_store" / "persisted", description="the persisted index")
    embed_model: str = Field(
        "embedded", description="embedding model: embedded, a directory, or a Hub name"
    )
    search_on: Literal["cpu", "gpu"] = Field(
        "cpu", description="where vectors are searched; gpu needs faiss-gpu"
    )

    engine: Literal["auto", "llama_cpp", "huggingface", "openai_like"] = Field(
        "auto", description="inference engine; auto: huggingface on CUDA, llama_cpp elsewhere"
    )
    model: str = Field(
        "auto",
        description="the LLM: auto (Llama 3 8B Instruct on CUDA, embedded elsewhere), embedded, "
        "a .gguf file or its Hub name (llama_cpp), a checkpoint directory or a Hub name "
        "(huggingface), the "
        "server's name for it (openai_like)",
    )
    adapter: str = Field(
        "auto",
        description="LoRA adapter of the fine-tuned LLM: auto (the one that ships, for the "
        "embedded model), none, a PEFT directory, or a .gguf file (llama_cpp)",
    )
    fine_tuned_model: str | None = Field(
        None,
        description="a full fine-tuned LLM in place of an adapter: a .gguf file (llama_cpp), a "
        "checkpoint directory or a Hub name (huggingface), the server's name for it (openai_like)",
    )
    base_url: str = Field(
        "http://127.0.0.1:8080/v1", description="where the server of openai_like is"
    )
    api_key: SecretStr | None = Field(None, description="its key, if it wants one")
    quantize: Literal["none", "8bit", "4bit"] = Field(
        "none", description="weights of huggingface on CUDA, by bitsandbytes"
    )
    context_window: int = Field(4096, ge=512, description="tokens of prompt and answer together")
    threads: int = Field(0, ge=0, description="CPU threads of llama_cpp; 0: one a core")
    slots: int = Field(4, ge=1, le=64, description="chats that llama_cpp answers at once")

    llm: LLMChoice | None = Field(
        None,
        description="which LLM a new conversation starts with; unset: fine-tuned, if there is one",
    )
    retrieval: Retrieval = Field("auto", description="which retrieval it starts with")
    sources: int = Field(2, ge=1, le=20, description="doctors' replies in a prompt")
    min_score: float = Field(
        0.4, ge=-1, le=1, description="cosine below which a reply is not close enough to be used"
    )
    max_tokens: int = Field(240, ge=1, description="longest answer, in tokens")
    temperature: float = Field(0.2, ge=0, le=2, description="0 is greedy")
    top_p: float = Field(0.9, gt=0, le=1)

    database_url: SecretStr | None = Field(
        None,
        description="where histories are: postgresql://NAME:PASSWORD@HOST/DATABASE or "
        "sqlite:///FILE; empty: a file in MEDRAFT_HOME",
    )
    user_header: str | None = Field(
        None, description="the header in which a proxy that has checked it names the user"
    )

    country: str = Field(
        "",
        description="whose numbers the emergency notice gives, by ISO 3166 (US, ES ...); empty: "
        "your local emergency number",
    )

    @field_validator("country")
    @classmethod
    def _two_letters(cls, given: str) -> str:
        if given and not (len(given) == 2 and given.isascii() and given.isalpha()):
            raise ValueError("a country has two letters by ISO 3166, as in ES or US")
        return given.upper()


def load(**overrides: Any) -> Settings:
    """Read the settings. Raises AgentError for an unknown name or a value out of range."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    given = [name.upper() for name in (*os.environ, *dotenv_values(".env"))]
    for name in given:
        if name.startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "`.env.example` lists them all."
            raise AgentError(f"Unknown setting {name}: {hint}")
    try:
        return Settings(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + str(first["loc"][0]).upper()
        raise AgentError(
            f"Setting {name} does not take {first['input']!r}: "
            f"{first['msg'].removeprefix('Value error, ').lower()}."
        ) from None
