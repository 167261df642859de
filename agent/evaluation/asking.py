"""The same questions through every behaviour, and what the engine tells of each answer.

Owns the order of asking, and what a run is made of, so that a restart asks only what is missing
and no two runs are mixed. Knows nothing of metrics.

Answers are as a patient gets them: the chat engine's own turns, with the settings in use. The
LLMs come one after the other, because an engine may have to switch between them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from llama_index.core.base.llms.types import MessageRole

from agent.behaviour import CHOICES, Behaviour, LLMChoice, Retrieval
from agent.chat.prompting import Prompt, as_read, fits, prompt
from agent.chat.record import collect
from agent.errors import AgentError
from agent.evaluation.eval_log import EvalLog, Row
from agent.evaluation.questions import APPROACHES, Approach, Questions, own_reply
from agent.llms.choice import decide
from agent.llms.interface import Engine, Loss
from agent.settings import ROOT, Settings
from index_store import manifest
from index_store.dataset import Dialogue

if TYPE_CHECKING:
    from agent.chat.loading import Agent

# What is not here changes neither answers nor times.
SETTINGS = {
    *("model", "adapter", "fine_tuned_model", "base_url", "context_window"),
    *("threads", "slots", "sources", "min_relevance", "max_tokens", "temperature", "top_p"),
    *("embed_model", "claims", "llm_languages", "gpu_layers", "search_on"),
}

# What asks with the prompt of another one comes long after it: or it would find that prompt read
# already, in the engine's cache, and its times would be too good.
ORDER: tuple[Approach, ...] = ("RAG", "RAFT", "base", "fine-tuned", "auto")
PROMPTS = ("system", "rag", "raft", "rag.embedded", "opening.rag.embedded")


class Answer(Row):
    """An answer with what the engine told of it: `letters` are what the documents were written in
    reply to; times in milliseconds."""

    behaviour: Behaviour
    answer: str
    ended: bool
    documents: list[str]
    letters: list[str]
    prompt_tokens: int
    tokens: int
    first_token_ms: float | None
    total_ms: float


class ReferenceLoss(Row):
    """The reference reply read after the prompt of an answer: nats over tokens."""

    nats: float
    tokens: int


def about_run(settings: Settings, questions: Questions) -> dict[str, Any]:
    """What tells a run from another one: the settings, and the contents of what they name."""
    choice = decide(settings)
    index = manifest.read(settings.index_dir)
    prompts = [ROOT / "prompts" / f"{name}.j2" for name in PROMPTS]
    return {
        "questions": questions.source,
        "engine": choice.engine,
        "weights": choice.base.name,
        "quantize": choice.quantize,
        **settings.model_dump(mode="json", include=SETTINGS),
        "index": index.generation,
        "prompts": _digest(prompts),
        "adapter weights": _digest(_files(choice.adapter)),
    }


def available(engine: Engine) -> list[Approach]:
    """All behaviours that an engine has the LLM for."""
    return [a for a in APPROACHES if engine.fine_tuned or choices(engine, a)[0] == "base"]


def choices(engine: Engine, approach: Approach) -> tuple[LLMChoice, Retrieval]:
    """LLM and retrieval of a behaviour; `auto` takes the fine-tuned LLM if there is one."""
    if approach == "auto":
        return ("fine-tuned" if engine.fine_tuned else "base"), "auto"
    return CHOICES[approach]


async def readable(agent: Agent, questions: Questions, approaches: Sequence[Approach]) -> Questions:
    """The questions that every LLM of the behaviours can read. Raises AgentError if it can read
    none, or if there is no such LLM."""
    wanted = {choices(agent.engine, approach)[0] for approach in approaches}
    short = questions.dialogues
    for llm in [agent.engine.llm(choice) for choice in sorted(wanted)]:
        short = [each for each in short if await fits(llm, each.patient, agent.settings.max_tokens)]
    if not short:
        raise AgentError(
            f"No question of {questions.source} is short enough for the model: raise "
            "MEDRAFT_CONTEXT_WINDOW, or ask shorter ones."
        )
    return replace(questions, dialogues=short, too_long=len(questions.dialogues) - len(short))


async def ask_all(
    agent: Agent,
    questions: Sequence[Dialogue],
    approaches: Sequence[Approach],
    answers: EvalLog[Answer],
) -> None:
    """Ask what was not asked before, as many at once as the engine answers. Raises AgentError."""
    from tqdm import tqdm

    ordered = [approach for approach in ORDER if approach in approaches]
    missing = [(q, a) for a in ordered for q in questions if (q.id, a) not in answers]
    with tqdm(total=len(missing), desc="Answers", unit="answer", disable=None) as bar:
        for llm in get_args(LLMChoice):
            todo = deque(job for job in missing if choices(agent.engine, job[1])[0] == llm)

            async def work(todo: deque[tuple[Dialogue, Approach]]) -> None:
                while todo:
                    answers.append(await ask(agent, *todo.popleft()))
                    bar.update()

            await asyncio.gather(*(work(todo) for _ in range(agent.engine.at_once)))


async def ask(agent: Agent, question: Dialogue, approach: Approach) -> Answer:
    """One answer, in a conversation of its own, with the question's own reply out of reach.

    Raises AgentError, with the question's id.
    """
    blind = replace(agent, retriever=agent.retriever.hiding(own_reply(question)))
    chat = blind.conversation()
    chat.llm, chat.retrieval = choices(agent.engine, approach)
    chat.watchful = False  # to an emergency all behaviours say the same
    try:
        told = await collect(chat, question.patient)
    except AgentError as error:
        raise AgentError(f"Question {question.id} through {approach}: {error}") from None
    documents = [source["doctor"] for source in told["sources"]]
    return Answer(
        question=question.id,
        approach=approach,
        behaviour=told["behaviour"],
        answer=told["answer"],
        ended=told["ended"],
        documents=documents,
        letters=[f"{source['title']}\n{source['patient']}" for source in told["sources"]],
        prompt_tokens=told["timing"]["prompt_tokens"],
        tokens=told["timing"]["tokens"],
        first_token_ms=told["timing"]["first_token_ms"],
        total_ms=told["timing"]["total_ms"],
    )


async def read_references(
    engine: Engine,
    settings: Settings,
    questions: Sequence[Dialogue],
    approaches: Sequence[Approach],
    answers: EvalLog[Answer],
    losses: EvalLog[ReferenceLoss],
) -> None:
    """Let the engine read each reference after the prompt of each answer, if it tells losses."""
    from tqdm import tqdm

    missing = [(q, a) for q in questions for a in approaches if (q.id, a) not in losses]
    known: dict[tuple[str, Behaviour], Loss] = {}  # auto has the prompt of another one
    for question, approach in tqdm(missing, desc="References", unit="reply", disable=None):
        answer = answers[question.id, approach]
        llm, _ = choices(engine, approach)
        loss = known.get((question.id, answer.behaviour))
        if loss is None:
            asked = await _prompt(engine, llm, question, answer, settings)
            messages = [m for m in asked.messages if m.role != MessageRole.ASSISTANT]
            loss = await engine.llm(llm).loss(messages, question.doctor)
        if loss is None:
            return
        known[question.id, answer.behaviour] = loss
        losses.append(
            ReferenceLoss(
                question=question.id, approach=approach, nats=loss.nats, tokens=loss.tokens
            )
        )


async def _prompt(
    engine: Engine, choice: LLMChoice, question: Dialogue, answer: Answer, settings: Settings
) -> Prompt:
    llm, asked = engine.llm(choice), question.patient
    read = as_read(llm, answer.documents, answer.letters, [asked])
    return await prompt(llm, choice, [], asked, [*filter(None, read)], settings.max_tokens)


def _files(adapter: Path | None) -> list[Path]:
    if adapter is None or adapter.is_file():
        return [adapter] if adapter else []
    return sorted(adapter.glob("adapter_*"))


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]
