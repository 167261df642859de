"""Where the answers of PEFT in transformers and of llama.cpp part, with the adapter and without.

    python -m benchmarks.parity

Greedy answers of 32 tokens to the held-out patients of the sample. llama.cpp runs them with
32-bit weights (the same numbers as transformers) and with Q8_0 as it is served; printed is how
many answers are the same, and after how many tokens, at the median, the others part.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from contextlib import aclosing
from pathlib import Path
from typing import get_args

from agent import settings
from agent.behaviour import LLMChoice
from agent.chat.prompting import prompt
from agent.llms import embedded, engines
from agent.llms.choice import SHIPPED_ADAPTER
from agent.llms.interface import Engine
from index_store.cleaning import clean
from index_store.dataset import read_rows
from index_store.split import split

QUESTIONS, TOKENS = 24, 32


async def greedy(engine: Engine, choice: LLMChoice, question: str) -> list[str]:
    """The answer, token by token."""
    llm = engine.llm(choice)
    messages = (await prompt(llm, "fine-tuned", [], question, [], TOKENS)).messages
    stream = await llm.astream_chat(messages, max_tokens=TOKENS, repetition_penalty=1.0)
    text = ""
    async with aclosing(stream):
        async for response in stream:
            text = response.message.content or ""
    return text.split()


async def compare(full: Path) -> None:
    chosen = settings.load()
    dialogues, _ = clean(read_rows("sample"))
    questions = [d.patient for d in dialogues if split(d.patient) == "test"][:QUESTIONS]
    peft = engines.load(chosen.model_copy(update={"engine": "huggingface", "model": "embedded"}))
    # A model named by its path comes without the adapter that ships, unless that is named too.
    named = {"engine": "llama_cpp", "model": str(full), "adapter": str(SHIPPED_ADAPTER)}
    others = {
        "F32": engines.load(chosen.model_copy(update=named)),
        "Q8_0": engines.load(
            chosen.model_copy(update={"engine": "llama_cpp", "model": "embedded"})
        ),
    }
    print(f"{len(questions)} greedy answers of {TOKENS} tokens, llama.cpp against PEFT")
    for choice in get_args(LLMChoice):
        expected = [await greedy(peft, choice, question) for question in questions]
        for name, engine in others.items():
            parted = []
            for question, words in zip(questions, expected, strict=True):
                said = await greedy(engine, choice, question)
                if said != words:
                    pairs = enumerate(zip(said, words, strict=False))
                    parted.append(next((i for i, (a, b) in pairs if a != b), len(words)))
            where = (
                f"; the others part after {statistics.median(parted):.0f} words" if parted else ""
            )
            same = len(questions) - len(parted)
            print(f"  {choice:<10} {name:<5} {same} of {len(questions)} the same{where}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        full = Path(folder) / "F32.gguf"
        embedded.rewrite(full, "F32")
        asyncio.run(compare(full))


if __name__ == "__main__":
    main()
