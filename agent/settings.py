"""Every setting, in one frozen object: defaults, then `.env`, then MEDRAFT_* variables.

Owns names, types, defaults, the words that `.env.example` has for each (`make reference`), and the
refusal of unknown names. Knows nothing of what the settings are used for, and imports nothing
heavy.
"""

from __future__ import annotations

import difflib
import io
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv.parser import parse_stream
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from agent.behaviour import LLMChoice, Retrieval
from agent.errors import AgentError
from index_store import PERSISTED

PREFIX = "MEDRAFT_"
ROOT = Path(__file__).resolve().parent.parent
ENCODING = "utf-8-sig"  # of `.env`: editors on Windows put a mark before it
NOT_UTF8 = ".env is not UTF-8: save it as UTF-8."
ROOM = 256  # tokens that a prompt needs at the least, beside the answer

# As browsers write a page's origin: in small letters, without a path and the scheme's own port.
ORIGIN = re.compile(r"(?!http://\S*:80$|https://\S*:443$)[a-z][a-z0-9+.-]*://[^\s/?#@*A-Z]+")

ClaimsMode = Literal["checked", "marked", "raw"]


class Settings(BaseSettings):
    """What a run needs to know. Field `x` is read from MEDRAFT_X."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_file_encoding=ENCODING,
        extra="ignore",
        frozen=True,
        env_ignore_empty=True,
    )

    home: Path = Field(
        ROOT / ".medraft",
        description="Where a run writes what is not the index: the history of conversations, "
        "accounts, converted weights, adapters.",
    )
    index_dir: Path = Field(PERSISTED, description="The persisted index.")
    embed_model: str = Field(
        "embedded",
        description="The embedding model: embedded, all-MiniLM-L6-v2 (below it), a directory of a "
        "model or of a LoRA (medraft finetune retriever), or a name on the Hub.",
    )
    search_on: Literal["cpu", "gpu"] = Field(
        "cpu", description="Where vectors are searched: cpu, or gpu (with the extra gpu-search)."
    )

    engine: Literal["auto", "llama_cpp", "huggingface", "openai_like"] = Field(
        "auto",
        description="The inference engine: auto (huggingface on CUDA, llama_cpp elsewhere and for "
        "a .gguf file), llama_cpp, huggingface, or openai_like (a server that speaks OpenAI's "
        "protocol, as vLLM does).",
    )
    model: str = Field(
        "auto",
        description="The LLM: auto (on CUDA Llama 3 8B Instruct, for whom the Hub gives it; "
        "otherwise embedded), embedded, a "
        ".gguf file or on the Hub OWNER/REPOSITORY[/FILE.gguf] (llama_cpp), a checkpoint's "
        "directory or a name on the Hub (huggingface), the server's name for it (openai_like).",
    )
    adapter: str = Field(
        "auto",
        description="The LoRA adapter of the fine-tuned LLM: auto (the one that ships, for the "
        "embedded model), none, a PEFT directory, or a .gguf file (llama_cpp).",
    )
    fine_tuned_model: str | None = Field(
        None,
        description="In place of an adapter, a full fine-tuned model: a .gguf file (llama_cpp), a "
        "checkpoint's directory or a name on the Hub (huggingface), as "
        "kingabzpro/llama-3-8b-chat-doctor, or the server's name for it (openai_like).",
    )
    base_url: str = Field(
        "http://127.0.0.1:8080/v1", description="openai_like: where the server is."
    )
    api_key: SecretStr | None = Field(
        None, description="openai_like: the server's key, if it wants one."
    )
    quantize: Literal["auto", "none", "8bit", "4bit"] = Field(
        "auto",
        description="huggingface on CUDA: the weights in none (16 bits), 8bit or 4bit "
        "(bitsandbytes); auto: 16 bits if the GPU has room, else 4.",
    )
    context_window: int = Field(4096, ge=512, description="Tokens of prompt and answer together.")
    threads: int = Field(
        0, ge=0, description="llama_cpp: CPU threads; 0 is one for each physical core."
    )
    gpu_layers: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        "auto",
        description="llama_cpp with a build for CUDA: layers on the GPU; auto: as many as fit.",
    )
    slots: int = Field(
        4,
        ge=1,
        le=64,
        description="llama_cpp: chats that are answered at once; openai_like: questions that an "
        "evaluation asks at once.",
    )

    llm: LLMChoice | None = Field(
        None,
        description="Which LLM a new conversation starts with: base or fine-tuned; unset: "
        "fine-tuned, if there is one.",
    )
    retrieval: Retrieval = Field(
        "auto", description="Which retrieval a new conversation starts with: auto, always or never."
    )
    sources: int = Field(2, ge=1, le=20, description="Doctors' replies in a prompt, at the most.")
    min_relevance: float = Field(
        0.2,
        ge=0,
        le=1,
        description="How likely a reply must concern the patient's problem to be in one, 0 to 1.",
    )
    max_tokens: int = Field(240, ge=1, description="The longest answer, in tokens.")
    temperature: float = Field(
        0.2, ge=0, le=2, description="How freely an answer is drawn; 0 is greedy."
    )
    top_p: float = Field(
        0.9, gt=0, le=1, description="The share of probability that tokens are drawn from."
    )
    llm_languages: str = Field(
        "auto",
        description="What the LLM writes: codes of ISO 639-1 (en,es), any, or auto (en for the "
        "embedded model, any for others). To who writes another language the replies found are "
        "shown, and the LLM says nothing.",
    )
    claims: ClaimsMode = Field(
        "checked",
        description="A sentence with a dose or a medicine that neither a shown reply nor the "
        "patient's own words bear, or to stop one or not to be seen, that no shown reply says: "
        "checked (asked for anew, or left out), marked ([?]), or raw (to measure an LLM).",
    )

    database_url: SecretStr | None = Field(
        None,
        description="Where histories are kept: postgresql://NAME:PASSWORD@HOST/DATABASE or "
        "sqlite:///FILE; empty: the file history.db in MEDRAFT_HOME.",
    )
    user_header: str | None = Field(
        None,
        description="The header in which a proxy before this server names the user that it has "
        "checked, as X-Forwarded-User; without it and without accounts (medraft accounts add) the "
        "page is for one user on this machine.",
    )

    endpoint: bool = Field(
        False,
        description="Whether the page's own port serves OpenAI's protocol under /v1, too, as "
        "medraft serve does.",
    )
    rate: int = Field(
        300, ge=1, description="Requests a minute that the endpoint takes of each client's key."
    )
    allow_origins: str = Field(
        "",
        description="Websites whose pages may ask the endpoint from a browser, as "
        "https://chat.example.org; several with spaces between; empty: none.",
    )

    country: str = Field(
        "",
        description="Whose numbers the emergency notice gives, two letters by ISO 3166 (US, ES "
        '...); the patient may choose another in the settings panel. Empty: "your local '
        'emergency number".',
    )

    @field_validator("home", "index_dir", "embed_model", "model", "adapter", "fine_tuned_model")
    @classmethod
    def _at_home(cls, given: Path | str | None) -> Path | str | None:
        if given is None or not str(given).startswith("~"):
            return given
        try:
            return type(given)(Path(given).expanduser())
        except RuntimeError:
            raise ValueError("there is no such user's home: write the whole path") from None

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, given: SecretStr | None) -> SecretStr | None:
        if given is None:
            return None
        key = given.get_secret_value().strip()
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise ValueError(
                "a key has plain letters, digits and signs, without spaces, line ends or accents"
            )
        return SecretStr(key)

    @field_validator("llm_languages")
    @classmethod
    def _codes(cls, given: str) -> str:
        codes = [code.strip().lower() for code in given.split(",")]
        if not all(
            code in ("auto", "any") or (len(code) == 2 and code.isalpha()) for code in codes
        ):
            raise ValueError("languages are codes of ISO 639-1, as in en,es, or any, or auto")
        return ",".join(codes)

    @field_validator("allow_origins")
    @classmethod
    def _as_browsers_send_them(cls, given: str) -> str:
        for origin in given.replace(",", " ").split():
            if not ORIGIN.fullmatch(origin):
                raise ValueError(
                    "name each website as its browser does, as https://chat.example.org or "
                    "http://localhost:3000: in small letters, no path or slash behind it, no *"
                )
        return given

    @field_validator("country")
    @classmethod
    def _by_iso(cls, given: str) -> str:
        if not given:
            return given
        from babel import Locale  # here, since it reads files

        code = given.upper()
        if not (len(code) == 2 and code.isalpha() and code in Locale("en").territories):
            raise ValueError("a country has two letters by ISO 3166, as in ES, US or GB")
        return code


def load(**overrides: Any) -> Settings:
    """Read the settings. Raises AgentError for an unknown name, a value out of range, values that
    exclude each other, and a `.env` that cannot be read."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    given = [name.upper() for name in (*os.environ, *_named_in_file())]
    for name in given:
        if name.startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "`.env.example` lists them all."
            raise AgentError(f"Unknown setting {name}: {hint}")
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        secret = "SecretStr" in str(Settings.model_fields[field].annotation)
        value = "the value that it has" if secret else repr(first["input"])
        raise AgentError(
            f"Setting {PREFIX}{field.upper()} does not take {value}: "
            f"{first['msg'].removeprefix('Value error, ').lower()}."
        ) from None
    check_room(settings, settings.context_window, "MEDRAFT_CONTEXT_WINDOW is")
    return settings


def check_room(settings: Settings, window: int, whose: str) -> None:
    """Raise AgentError if the longest answer leaves a prompt no room in a window of so many
    tokens."""
    if window <= ROOM:
        raise AgentError(f"{whose} {window} tokens, which is too few for a question and an answer.")
    if settings.max_tokens > window - ROOM:
        raise AgentError(
            f"MEDRAFT_MAX_TOKENS={settings.max_tokens} leaves no room for a question: {whose} "
            f"{window} tokens for prompt and answer together, so set it to {window - ROOM} or less."
        )


def _named_in_file() -> list[str]:
    """The names in `.env`. Raises AgentError if it is no text, or a line of it says nothing."""
    if not Path(".env").is_file():  # a folder of that name is an environment's
        return []
    try:
        text = Path(".env").read_text(ENCODING)
    except UnicodeDecodeError:
        raise AgentError(NOT_UTF8) from None
    except OSError as error:
        raise AgentError(f".env cannot be read: {error.strerror}.") from None
    if "\0" in text:  # UTF-16 without its mark
        raise AgentError(NOT_UTF8)
    names = []
    for read in parse_stream(io.StringIO(text)):
        if read.error:
            said = read.original.string
            line = read.original.line + said[: -len(said.lstrip())].count("\n")
            raise AgentError(
                f"Line {line} of .env is not NAME=value, or a quotation mark in it is not closed."
            )
        if read.key is not None:
            names.append(read.key)
    return names
