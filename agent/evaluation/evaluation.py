"""A run from questions to report: ask, read the references, judge, score, conclude, write.

Owns the order, and the names of a run's files. Knows nothing of how any of it is done.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agent.chat import loading
from agent.errors import AgentError
from agent.evaluation import report
from agent.evaluation.asking import (
    Answer,
    ReferenceLoss,
    about_run,
    ask_all,
    available,
    choices,
    read_references,
    readable,
)
from agent.evaluation.conclusions import Table, as_dict, conclude
from agent.evaluation.eval_log import EvalLog, claim
from agent.evaluation.judging import Judgement, judge_all
from agent.evaluation.questions import Approach, Questions
from agent.evaluation.scoring import score
from agent.evaluation.statistics import Values
from agent.llms import engines
from agent.llms.choice import decide
from agent.settings import Settings
from index_store.disk import write_text
from index_store.embedding import load_embedding


async def evaluate(
    settings: Settings,
    questions: Questions,
    folder: Path,
    *,
    approaches: Sequence[Approach] | None,
    perplexity: bool,
    judge: tuple[str, str] | None,
) -> str:
    """Measure and report; what `folder` holds of the same run already is not measured again.

    `approaches` is all there are unless given; `judge` is a model and its server's address.
    Returns the report's first lines. Raises AgentError or StoreError.
    """
    run = about_run(settings, questions)
    claim(folder, run)
    reads = _reader(settings) if perplexity else None
    answers = EvalLog(folder / "answers.jsonl", Answer)
    losses = EvalLog(folder / "references.jsonl", ReferenceLoss)
    agent = loading.load(settings)
    approaches = approaches or available(agent.engine)
    questions = await readable(agent, questions, approaches)
    asked = questions.dialogues
    await ask_all(agent, asked, approaches, answers)

    reader = engines.load(reads) if reads else agent.engine
    await read_references(reader, settings, asked, approaches, answers, losses)
    judged = "judgements.jsonl" if judge is None else f"judgements-{_file_name(judge[0])}.jsonl"
    judgements = EvalLog(folder / judged, Judgement)
    if judge is not None:
        await judge_all(*judge, asked, approaches, answers, judgements)

    embedding = load_embedding(settings.embed_model)
    values = score(embedding, asked, approaches, answers, losses, judgements)
    llm, _ = choices(agent.engine, "auto")
    conclusions = conclude(values, approaches, _retrieved(questions, approaches, answers), llm)
    _write_scores(folder, questions, approaches, values)
    write_text(folder / "totals.json", json.dumps(as_dict(conclusions), indent=2) + "\n")
    about = run | {"at_once": agent.engine.at_once, "model": agent.engine.model}
    return report.write(folder, about, questions, approaches, answers, values, conclusions)


def _reader(settings: Settings) -> Settings | None:
    """The settings of the engine that reads references, where another one answers. Raises
    AgentError if transformers would not read with the weights that answer."""
    answers, reads = decide(settings), decide(settings, "huggingface")
    if answers.engine == "huggingface":
        return None
    same = (answers.base, answers.fine_tuned) == (reads.base, reads.fine_tuned)
    if not same or answers.engine == "openai_like" or reads.base.name.endswith(".gguf"):
        raise AgentError(
            f"--perplexity is measured by transformers, and not with {answers.base.name} of "
            f"{answers.engine}: leave it out, or name a checkpoint in MEDRAFT_MODEL and set "
            "MEDRAFT_ENGINE=huggingface."
        )
    return settings.model_copy(update={"engine": "huggingface"})


def _retrieved(
    questions: Questions, approaches: Sequence[Approach], answers: EvalLog[Answer]
) -> Values:
    """1 for each question that `auto` looked up, 0 for the others; empty if it was not asked."""
    if "auto" not in approaches:
        return np.empty(0)
    behaviours = [answers[question.id, "auto"].behaviour for question in questions.dialogues]
    return np.array([float(behaviour in ("RAG", "RAFT")) for behaviour in behaviours])


def _write_scores(
    folder: Path, questions: Questions, approaches: Sequence[Approach], values: Table
) -> None:
    """One JSON line an answer, with each metric that applies to it."""
    lines = []
    for place, question in enumerate(questions.dialogues):
        for approach in approaches:
            row: dict[str, str | float] = {"question": question.id, "approach": approach}
            for name, of_approach in values.items():
                if not np.isnan(value := of_approach[approach][place]):
                    row[name] = float(value)
            lines.append(json.dumps(row) + "\n")
    write_text(folder / "scores.jsonl", "".join(lines))


def _file_name(model: str) -> str:
    return re.sub(r"[^\w.-]+", "-", model)
