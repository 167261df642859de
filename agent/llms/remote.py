"""A server elsewhere that speaks OpenAI's protocol: where it is, and what people are told if it
fails.

Owns what counts as a failure of the server, and a sentence for each. Knows nothing of what it is
asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import httpx
import openai

from agent.errors import AgentError
from agent.llms.chunks import Finish, StreamedError

TOO_LONG = re.compile(
    r"context.?(length|size|window)|maximum model length|(prompt|input|message)s? (is|are) too long"
    r"|max_new_tokens.{0,9} must be|too many (input )?tokens|context overflow"
    r"|(exceeds?|greater than) (the )?(n_ctx|max_seq_len|max(imum)? (input|number of tokens))",
    re.IGNORECASE,
)
CANNOT_READ = "cannot read so long a conversation: send a shorter message or begin a new chat"
# What it means to read an answer that is no JSON, or JSON of another make: the openai package
# checks nothing.
GARBLED = (ValueError, LookupError, TypeError, AttributeError)
FAILURES = (openai.APIError, httpx.TransportError, TimeoutError, StreamedError, *GARBLED)


@dataclass(frozen=True)
class Server:
    """Where the server is, and its key ("none" if it wants none)."""

    url: httpx.URL
    key: str

    @property
    def place(self) -> str:
        """Host and port, without a password that the URL may hold."""
        return self.url.netloc.decode()

    @property
    def root(self) -> str:
        """What lies beside /v1."""
        return str(self.url).removesuffix("/v1")

    @property
    def trust_env(self) -> bool:
        """Whether the environment's proxy may stand between: never on this machine."""
        return self.url.host not in ("localhost", "127.0.0.1", "::1")

    def explain(self, error: Exception, begun: bool = False) -> AgentError:
        """`error` in one sentence; not in the server's words, which may quote the patient's."""
        match error:
            case StreamedError() if is_too_long(error):
                told = CANNOT_READ
            case openai.APIStatusError():
                told = f"{_refusal(error)} (HTTP {error.status_code})"
            case openai.APIConnectionError():
                told = "does not answer: check that it runs and that MEDRAFT_BASE_URL is right"
            case TimeoutError():
                told = "takes too long: it is busy or stuck, please try again in some minutes"
            case _ if isinstance(error, GARBLED):
                told = "does not speak OpenAI's protocol: check that MEDRAFT_BASE_URL is right"
            case _:
                told = "broke off: its own log says why, please ask again"
        kept = "; what it said so far is kept" if begun else ""
        return AgentError(f"The LLM server at {self.place} {told}{kept}.")

    def nothing(self, finish: Finish, thought: bool, max_tokens: int) -> AgentError:
        """Why there is no answer at all, though none failed."""
        if finish == "filtered":
            told = "held its answer back, by a filter of its own: please ask in other words"
        elif thought:
            told = (
                f"used all {max_tokens} tokens of the answer for the model's thoughts: raise "
                "MEDRAFT_MAX_TOKENS, or have the server turn its thinking off"
            )
        else:
            told = f"ended at {max_tokens} tokens without a word: raise MEDRAFT_MAX_TOKENS"
        return AgentError(f"The LLM server at {self.place} {told}.")


def is_too_long(error: openai.APIStatusError | StreamedError) -> bool:
    """Whether the prompt is longer than the model can read, by the server's own words."""
    told = str(error) if isinstance(error, StreamedError) else error.response.text
    return TOO_LONG.search(told) is not None


def _refusal(error: openai.APIStatusError) -> str:
    match error.status_code:
        case 401 | 403:
            return "refuses the key: correct MEDRAFT_API_KEY"
        case 404:
            return "has no such model or address: correct MEDRAFT_MODEL or MEDRAFT_BASE_URL"
        case 429 | 503:
            return "has no place free or is still loading: please try again in a minute"
        case _ if is_too_long(error):
            return CANNOT_READ
        case status if status < 500:
            return "refuses the request: its own log says why"
        case _:
            return "failed: its own log says why, please try again"


def address(text: str) -> httpx.URL:
    """The address of a setting. Raises AgentError if it is none."""
    try:
        url = httpx.URL(text.rstrip("/"))
        if url.scheme in ("http", "https") and url.host:
            return url
    except httpx.InvalidURL:
        pass
    raise AgentError(f"{text} is no http address: correct MEDRAFT_BASE_URL.")
