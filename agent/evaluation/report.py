"""The report of a run: Markdown, and one HTML page that needs nothing beside itself.

Owns what is shown and in which order; the templates are report.md.j2 and report.html.j2. Knows
nothing of how figures are computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent.evaluation.asking import Answer
from agent.evaluation.conclusions import QUALITY, Conclusions, Table
from agent.evaluation.eval_log import EvalLog
from agent.evaluation.metrics import METRICS
from agent.evaluation.plots import plots
from agent.evaluation.questions import Approach, Questions
from agent.evaluation.statistics import RESAMPLES, Estimate
from index_store.disk import write_text

HTML, MARKDOWN = "report.html", "report.md"
EXAMPLES = 3


def write(
    folder: Path,
    run: dict[str, Any],
    questions: Questions,
    approaches: Sequence[Approach],
    answers: EvalLog[Answer],
    values: Table,
    conclusions: Conclusions,
) -> str:
    """Write both to `folder`; the first lines, as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    quality = np.stack([values[QUALITY][approach] for approach in approaches])
    apart = np.argsort(-np.ptp(quality, axis=0), kind="stable")[:EXAMPLES]
    given = {
        "run": run,
        "questions": questions,
        "approaches": approaches,
        "told": conclusions,
        "metrics": [metric for metric in METRICS if metric.name in conclusions.totals],
        "examples": [
            (question, [answers[question.id, approach] for approach in approaches])
            for question in (questions.dialogues[place] for place in apart)
        ],
        "resamples": RESAMPLES,
        "cell": _cell,
        "shown": format,
        "exp": math.exp,
    }
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        undefined=StrictUndefined,
        autoescape=lambda name: name == f"{HTML}.j2",
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(f"{HTML}.j2").render(plots=plots(conclusions), **given)
    write_text(folder / HTML, page)
    write_text(folder / MARKDOWN, environment.get_template(f"{MARKDOWN}.j2").render(**given))
    return environment.get_template("summary.j2").render(**given)


def _cell(told: Estimate | None, form: str) -> str:
    if told is None:
        return ""
    mean, low, high = (format(value, form) for value in (told.mean, told.low, told.high))
    return f"{mean} ({low} to {high})"
