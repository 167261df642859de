"""Quotes by construction: `medraft evaluate grounding` with a grammar around the LLM.

    python -m benchmarks.quotes
    python -m benchmarks.quotes --llm base --limit 10    # a larger LLM: MEDRAFT_MODEL=...

An answer can then only be sentences of the shown replies, each at most once and with the number of
its reply, in the order in which they stand (after ReClaim, Xia et al. 2024, arXiv 2407.01796);
which ones is the LLM's choice. The fine-tuned one may open and close as it has learned to, the base
LLM may say the words for a refusal instead; the embedded base LLM, whose sources have no numbers,
is left as it is. llama.cpp alone takes such a grammar here.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

from llama_index.core.base.llms.types import ChatMessage

from agent import settings
from agent.behaviour import LLMChoice
from agent.chat.support import sentences
from agent.evaluation.parts import grounding
from agent.finetuning.targets import CLOSES, NONE, OPENINGS
from agent.llms.interface import Sampling
from agent.llms.llama_cpp.engine import LlamaCppLLM

WORDS = 4  # of the shortest sentence that can be quoted
_SOURCES = re.compile(r"^\[(\d+)\] (.*?)\s*(?=^\[\d+\] |^Now this patient writes:)", re.M | re.S)
_REFUSAL = f'"{NONE}" [^\\n\\[\\]]{{0,200}} "."'


def grammar(asked: str, choice: LLMChoice) -> str | None:
    """What may be answered to the last message of a prompt, in llama.cpp's notation; None where it
    holds no reply that could be quoted."""
    quotes = [
        f'{_literal(reply[start:end])} " [{number}]"'
        for number, reply in _SOURCES.findall(asked)
        for start, end in sentences(reply)
        if len(reply[start:end].split()) >= WORDS
    ]
    if not quotes:
        return None
    rules = [f"q{len(quotes) - 1} ::= {quotes[-1]}"]
    for place, quote in enumerate(quotes[:-1]):
        rules.append(f'q{place} ::= {quote} (" " q{place + 1})? | q{place + 1}')
    if choice == "fine-tuned":
        rules += [f"opening ::= {_one_of(OPENINGS)}", f"close ::= {_one_of(CLOSES)}"]
        return "\n".join(['root ::= (opening " ")? q0 (" " close)?', *rules])
    return "\n".join(["root ::= q0 | refusal", *rules, f"refusal ::= {_REFUSAL}"])


def _literal(text: str) -> str:
    """As the notation quotes it."""
    escaped = " ".join(text.split()).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _one_of(texts: tuple[str, ...]) -> str:
    return " | ".join(map(_literal, texts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llm", choices=("base", "fine-tuned"), default="fine-tuned")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--answers", action="store_true", help="print them, too")
    options = parser.parse_args()
    request = LlamaCppLLM._request

    def quoting(
        llm: LlamaCppLLM, messages: Sequence[ChatMessage], sampling: Sampling, slot: int
    ) -> dict[str, Any]:
        made = request(llm, messages, sampling, slot)
        if rules := grammar(messages[-1].content or "", options.llm):
            # A sentence that is quoted may have the words of the one before.
            made["extra_body"] |= {"grammar": rules, "repeat_penalty": 1.0}
        return made

    chosen = settings.load(engine="llama_cpp")
    with patch.object(LlamaCppLLM, "_request", quoting):
        asked, too_long = asyncio.run(grounding.ask(chosen, options.llm, options.limit))
    print(grounding.as_text(grounding.figures(asked, too_long)))
    for each in asked if options.answers else ():
        shown = "distractors" if each.distractors else "found"
        print(f"\n{each.message}\n-> {shown}: {each.answer}")


if __name__ == "__main__":
    main()
