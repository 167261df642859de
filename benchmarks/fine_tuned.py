"""Base against fine-tuned on patients that no training has seen, without and with documents.

    python -m benchmarks.fine_tuned perplexity            # with the adapter that ships
    python -m benchmarks.fine_tuned answers
    MEDRAFT_ADAPTER=folder python -m benchmarks.fine_tuned answers --questions 20

Over the held-out part of the sample (`index_store.split`), with an index of its other parts.
`perplexity` is that of the doctors' replies, in transformers with 32-bit weights. `answers` are as
they are served (MEDRAFT_TEMPERATURE and so on, 256 tokens at most): how many end by themselves, how
many say a run of eight words twice, and how many of their words stand in runs of five or more that
also stand in a document. --show prints them, too.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import get_args

from llama_index.core.base.llms.types import MessageRole

from agent import settings
from agent.behaviour import LLMChoice, behaviour
from agent.chat.prompting import Prompt, Reader, prompt
from agent.evaluation.metrics import repeats, share_copied, word_tokens
from agent.llms import engines
from agent.llms.interface import ChatLLM
from agent.routing.embedding import TurnEmbedding
from agent.settings import Settings
from index_store.build import build
from index_store.cleaning import clean
from index_store.dataset import Dialogue, read_rows
from index_store.embedding import load_embedding
from index_store.retriever import DoctorReplyRetriever
from index_store.split import split
from index_store.store import IndexStore

ANSWER = 256  # tokens
Case = tuple[Dialogue, list[str]]


def find_documents(settings: Settings, folder: Path) -> list[Case]:
    """The held-out dialogues, each with what the retriever finds for it among the others."""
    from llama_index.core.schema import QueryBundle

    dialogues, _ = clean(read_rows("sample"))
    known = [d for d in dialogues if split(d.patient) != "test"]
    build(known, folder, settings.embed_model, progress=False)
    embedding = load_embedding(settings.embed_model)
    turns = TurnEmbedding(embedding)
    cases = []
    with IndexStore.open(folder, settings.embed_model) as store:
        retriever = DoctorReplyRetriever(store, embedding, settings.sources, settings.min_relevance)
        for dialogue in dialogues:
            if split(dialogue.patient) == "test":
                vector = turns.matrix([dialogue.patient])[0]
                asked = QueryBundle(dialogue.patient, embedding=vector.tolist())
                found = retriever.retrieve(asked)
                cases.append((dialogue, [node.get_content() for node in found]))
    return cases


async def asked(llm: Reader, choice: LLMChoice, case: Case, with_documents: bool) -> Prompt:
    dialogue, documents = case
    return await prompt(
        llm, choice, [], dialogue.patient, documents if with_documents else [], ANSWER
    )


async def perplexities(settings: Settings, cases: Sequence[Case]) -> None:
    engine = engines.load(settings.model_copy(update={"engine": "huggingface"}))

    async def perplexity(choice: LLMChoice, with_documents: bool) -> float:
        llm = engine.llm(choice)
        nats, tokens = 0.0, 0
        for case in cases:
            made = await asked(llm, choice, case, with_documents)
            messages = [m for m in made.messages if m.role != MessageRole.ASSISTANT]
            loss = await llm.loss(messages, case[0].doctor)
            assert loss is not None
            nats, tokens = nats + loss.nats, tokens + loss.tokens
        return math.exp(nats / tokens)

    print(f"Perplexity of {len(cases)} held-out replies")
    for with_documents in (False, True):
        for choice in get_args(LLMChoice):
            value = await perplexity(choice, with_documents)
            print(f"  {behaviour(choice, with_documents):<12} {value:6.2f}")


async def answers(settings: Settings, cases: Sequence[Case], show: bool) -> None:
    engine = engines.load(settings)
    print(f"Answers to {len(cases)} held-out questions, on {engine.name} ({engine.model})")
    print("               end by themselves   with a loop   copied words   words")
    for with_documents in (False, True):
        for choice in get_args(LLMChoice):
            ended, loops, copied, lengths = 0, 0, [], []
            for case in cases:
                answer, tokens = await say(
                    engine.llm(choice), settings, case, choice, with_documents
                )
                if show:
                    print(f"\n{case[0].patient}\n-> {answer}")
                words = word_tokens(answer)
                ended += tokens < ANSWER
                loops += repeats(words)
                lengths.append(len(words))
                if with_documents and case[1]:
                    copied.append(share_copied(words, case[1]))
            print(
                f"  {behaviour(choice, with_documents):<12} {ended / len(cases):16.1%} "
                f"{loops / len(cases):13.1%} "
                f"{statistics.mean(copied) if copied else 0:14.1%} "
                f"{statistics.mean(lengths):7.0f}"
            )


async def say(
    llm: ChatLLM, settings: Settings, case: Case, choice: LLMChoice, with_documents: bool
) -> tuple[str, int]:
    made = await asked(llm, choice, case, with_documents)
    text, tokens = "", 0
    stream = await llm.astream_chat(
        made.messages,
        max_tokens=ANSWER,
        temperature=settings.temperature,
        top_p=settings.top_p,
    )
    async with aclosing(stream):
        async for response in stream:
            text, tokens = response.message.content or "", (response.raw or {})["tokens"]
    return text, tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("perplexity", "answers"))
    parser.add_argument("--questions", type=int, help="fewer of them, for a quick look")
    parser.add_argument("--show", action="store_true", help="print questions and answers")
    options = parser.parse_args()
    chosen = settings.load()
    with tempfile.TemporaryDirectory() as folder:
        cases = find_documents(chosen, Path(folder))[: options.questions]

    if options.what == "perplexity":
        asyncio.run(perplexities(chosen, cases))
    else:
        asyncio.run(answers(chosen, cases, options.show))


if __name__ == "__main__":
    main()
