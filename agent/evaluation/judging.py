"""A second opinion on the answers by another LLM: LlamaIndex's evaluators.

Owns which evaluators are asked and how the judge is reached. Off unless asked for: everything it
is shown (questions, answers, doctors' replies) goes to its server. Knows nothing of other metrics.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Sequence

from llama_index.core.evaluation import CorrectnessEvaluator, FaithfulnessEvaluator
from llama_index.llms.openai_like import OpenAILike

from agent.errors import AgentError
from agent.evaluation.asking import Answer
from agent.evaluation.eval_log import EvalLog, Row
from agent.evaluation.questions import Approach
from index_store.dataset import Dialogue
from index_store.errors import reason

AT_ONCE, RETRIES = 4, 3
WINDOW = 8192  # tokens; LlamaIndex cuts the documents to it


class Judgement(Row):
    """Correctness from 1 to 5, None if the judge gave no mark; whether the retrieved replies hold
    the answer, None if there were none."""

    correctness: float | None
    faithful: bool | None


async def judge_all(
    model: str,
    url: str,
    questions: Sequence[Dialogue],
    approaches: Sequence[Approach],
    answers: EvalLog[Answer],
    judgements: EvalLog[Judgement],
) -> None:
    """Have the answers judged that were not judged before. Raises AgentError."""
    from tqdm import tqdm

    llm = OpenAILike(
        model=model,
        api_base=url,
        api_key=os.environ.get("OPENAI_API_KEY", "none"),
        is_chat_model=True,
        context_window=WINDOW,
        temperature=0.0,
        max_retries=RETRIES,
    )
    correctness, faithfulness = CorrectnessEvaluator(llm), FaithfulnessEvaluator(llm)
    todo = deque((q, a) for q in questions for a in approaches if (q.id, a) not in judgements)
    with tqdm(total=len(todo), desc="Judgements", unit="answer", disable=None) as bar:

        async def work() -> None:
            while todo:
                question, approach = todo.popleft()
                answer = answers[question.id, approach]
                mark = await correctness.aevaluate(
                    question.patient, answer.answer, reference=question.doctor
                )
                faithful: bool | None = None
                if answer.documents:
                    held = await faithfulness.aevaluate(
                        question.patient, answer.answer, contexts=answer.documents
                    )
                    faithful = held.passing
                judgements.append(
                    Judgement(
                        question=question.id,
                        approach=approach,
                        correctness=mark.score,
                        faithful=faithful,
                    )
                )
                bar.update()

        try:
            await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        except Exception as error:  # whatever client and evaluators raise for a judge that is away
            raise AgentError(
                f"The judge {model} at {url} does not judge ({reason(error)}): correct --judge and "
                "--judge-url, and OPENAI_API_KEY if it wants a key."
            ) from None
