"""What an LLM makes of the replies that it is shown, with nothing between: held-out patients.

Owns what is asked: each question twice, with the replies that the retriever finds for it, and with
as many that it puts far down, which are about something else; and the counting. An answer is what
the LLM writes, before any check. Refusal is right where only distractors are shown, and its F1 is
over both askings (Trust-Align, Song et al. 2024, arXiv 2409.11242).

Knows nothing of training.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from llama_index.core.schema import QueryBundle

from agent.behaviour import LLMChoice
from agent.chat import loading
from agent.chat.length import is_enough
from agent.chat.prompting import as_read, fits, prompt
from agent.evaluation.grounding import Grounding, grounding
from agent.evaluation.metrics import repeats, word_tokens
from agent.evaluation.questions import own_reply
from agent.settings import Settings
from index_store.dataset import Dialogue
from index_store.node import dialogue_of
from index_store.split import split
from index_store.store import IndexStore

if TYPE_CHECKING:
    from agent.chat.loading import Agent

FAR = slice(30, 200)  # hits of a question's own search that distractors are drawn from


@dataclass(frozen=True)
class Asked:
    """One answer, what it was shown, and what was counted of it."""

    question: str
    message: str
    distractors: bool
    documents: list[str]
    answer: str
    ended: bool
    counted: Grounding


@dataclass(frozen=True)
class Figures:
    """Shares over all answers, None where nothing was there to count; `too_long` are the patients
    who were not asked, since the LLM cannot read so long a letter."""

    answers: int
    too_long: int
    claims: int
    supported: float | None
    citation_precision: float | None
    citation_recall: float | None
    leaking: float | None
    named: int
    borne: float | None
    refusal_f1: float | None
    false_refusals: float | None
    ended: float | None
    repeats: float | None


async def ask(
    settings: Settings, choice: LLMChoice, limit: int | None, seed: int = 0
) -> tuple[list[Asked], int]:
    """Ask the held-out patients of the index in use, at most `limit`; and how many of them wrote
    more than the LLM can read, and were left out.

    Raises AgentError or StoreError.
    """
    from tqdm import tqdm

    agent = loading.load(settings)
    llm = agent.engine.llm(choice)
    draw = random.Random(seed)
    asked, too_long = [], 0
    with IndexStore.open(settings.index_dir, settings.embed_model) as store:
        held_out = [dialogue for _, dialogue in store.rows() if split(dialogue.patient) == "test"]
        questions = sorted(held_out, key=lambda each: each.id)[:limit]
        for question in tqdm(questions, desc="Questions", unit="question", disable=None):
            if not await fits(llm, question.patient, settings.max_tokens):
                too_long += 1
                continue
            found, far = await _documents(agent, store, question, draw)
            for documents, distractors in ((found, False), (far, True)):
                if told := await _ask(agent, choice, question, documents, distractors):
                    asked.append(told)
    return asked, too_long


def figures(asked: Sequence[Asked], too_long: int) -> Figures:
    """What came of them: claims, citations and leaks where found replies were shown."""
    found = [each.counted for each in asked if not each.distractors]
    far = [each.counted for each in asked if each.distractors]

    def total(name: str) -> int:
        return sum(getattr(counted, name) for counted in found)

    right = sum(counted.refuses for counted in far)
    false = sum(counted.refuses for counted in found)
    return Figures(
        answers=len(asked),
        too_long=too_long,
        claims=total("claims"),
        supported=_share(total("supported"), total("claims")),
        citation_precision=_share(total("right"), total("citations")),
        citation_recall=_share(total("cited"), total("claims")),
        leaking=_share(total("leaking"), total("sentences")),
        named=total("named"),
        borne=_share(total("borne"), total("named")),
        refusal_f1=_share(2 * right, right + false + len(far)),
        false_refusals=_share(false, len(found)),
        ended=_share(sum(each.ended for each in asked), len(asked)),
        repeats=_share(sum(repeats(word_tokens(each.answer)) for each in asked), len(asked)),
    )


def as_text(told: Figures) -> str:
    """One line a figure."""
    lines = [f"{told.answers} answers, {told.claims} claims, {told.named} doses and medicines"]
    if told.too_long:
        lines.append(f"patients left out, whose letter the LLM cannot read whole: {told.too_long}")
    for name, value in asdict(told).items():
        if name not in ("answers", "too_long", "claims", "named"):
            shown = "nothing to count" if value is None else f"{value:.1%}"
            lines.append(f"{name.replace('_', ' '):<20}{shown}")
    return "\n".join(lines)


async def _documents(
    agent: Agent, store: IndexStore, question: Dialogue, draw: random.Random
) -> tuple[list[Dialogue], list[Dialogue]]:
    """What the retriever finds for a question, and as many that it puts far down."""
    vector = (await agent.embedding.turns([question.patient]))[0]
    blind = agent.retriever.hiding(own_reply(question))
    nodes = await blind.aretrieve(QueryBundle(question.patient, embedding=vector.tolist()))
    found = [dialogue_of(node) for node in nodes]
    hits = await asyncio.to_thread(store.search, question.patient, vector, FAR.stop)
    far = [Dialogue(hit.title, hit.patient, hit.doctor) for hit in hits[FAR]]
    return found, draw.sample(far, min(len(far), agent.settings.sources))


async def _ask(
    agent: Agent,
    choice: LLMChoice,
    question: Dialogue,
    documents: list[Dialogue],
    distractors: bool,
) -> Asked | None:
    """None if the documents hold nothing that the LLM reads."""
    settings = agent.settings
    llm = agent.engine.llm(choice)
    texts = [document.doctor for document in documents]
    letters = [document.letter for document in documents]
    read = as_read(llm, texts, letters, [question.patient])
    shown = [each for each in zip(read, letters, strict=True) if each[0]]
    if not shown:
        return None
    read, letters = map(list, zip(*shown, strict=True))
    made = await prompt(llm, choice, [], question.patient, read, settings.max_tokens)
    text, tokens, ended = made.opening, 0, True
    stream = await llm.astream_chat(
        made.messages,
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
    )
    async with aclosing(stream):
        async for response in stream:
            text += response.delta or ""
            tokens = (response.raw or {}).get("tokens", tokens)
            if is_enough(text, tokens, settings.max_tokens):
                ended = False
                break
    replies, letters = read[: made.used], letters[: made.used]
    matrix = agent.embedding.matrix
    counted = await asyncio.to_thread(grounding, text, question.patient, replies, letters, matrix)
    return Asked(
        question.id,
        question.patient,
        distractors,
        replies,
        text.strip(),
        ended and tokens < settings.max_tokens,
        counted,
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
