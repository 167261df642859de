"""The report's plots, as SVG that stands in an HTML page.

Owns how figures look. Knows nothing of what they mean.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from agent.evaluation.conclusions import QUALITY, Conclusions
from agent.evaluation.metrics import BY_NAME
from agent.evaluation.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {
    "base": "#8c8c8c",
    "RAG": "#2f7fb8",
    "fine-tuned": "#d98a1f",
    "RAFT": "#3a9a62",
    "auto": "#8c5fb0",
}
SHOWN = ("similarity", "rouge_l", "chrf", "reference_loss", "supported", "correctness")
INK, NOISE = "#333333", "#b0b0b0"


def plots(conclusions: Conclusions) -> dict[str, str]:
    """SVG by title."""
    made = {"Means with their 95 % intervals": _svg(_means(conclusions))}
    if QUALITY in conclusions.differences:
        made["Differences in similarity, question by question; grey is noise"] = _svg(
            _differences(conclusions)
        )
    if conclusions.policies:
        made["Quality against cost: never, always, auto, oracle"] = _svg(_policies(conclusions))
    return made


def _means(conclusions: Conclusions) -> Figure:
    names = [name for name in SHOWN if name in conclusions.totals]
    figure = _figure(min(3, len(names)) * 3.2, 2.3 * -(-len(names) // 3))
    for place, name in enumerate(names, start=1):
        axes = figure.add_subplot(-(-len(names) // 3), min(3, len(names)), place)
        means = conclusions.totals[name]
        for row, (approach, told) in enumerate(means.items()):
            axes.errorbar(
                told.mean, row, xerr=_around(told), fmt="o", capsize=3, color=COLOURS[approach]
            )
        axes.set_yticks(range(len(means)), list(means))
        axes.invert_yaxis()
        arrow = {"higher": " (higher is better)", "lower": " (lower is better)"}
        axes.set_title(BY_NAME[name].title + arrow.get(BY_NAME[name].better or "", ""), fontsize=9)
        _plain(axes)
    return figure


def _differences(conclusions: Conclusions) -> Figure:
    found = conclusions.differences[QUALITY]
    figure = _figure(6.4, 0.8 + 0.28 * len(found))
    axes = figure.add_subplot()
    for row, each in enumerate(found):
        axes.errorbar(
            each.by.mean,
            row,
            xerr=_around(each.by),
            fmt="o",
            capsize=3,
            color=NOISE if each.noise else INK,
        )
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(found)), [f"{each.first} − {each.second}" for each in found])  # noqa: RUF001
    axes.invert_yaxis()
    _plain(axes)
    return figure


def _policies(conclusions: Conclusions) -> Figure:
    figure = _figure(6.4, 3.2)
    axes = figure.add_subplot()
    markers = {"never": "o", "always": "s", "auto": "D", "oracle": "*"}
    lines = {"base": COLOURS["RAG"], "fine-tuned": COLOURS["RAFT"]}
    for each in conclusions.policies:
        axes.errorbar(
            each.cost,
            each.quality.mean,
            yerr=_around(each.quality),
            fmt=markers[each.retrieval],
            capsize=3,
            color=lines[each.llm],
            label=f"{each.llm}, {each.retrieval}",
        )
    axes.set_xlabel("prompt and answer tokens", fontsize=9)
    axes.set_ylabel("similarity", fontsize=9)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    _plain(axes)
    return figure


def _around(told: Estimate) -> list[list[float]]:
    """How far the interval reaches to either side."""
    return [[told.mean - told.low], [told.high - told.mean]]


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)


def _svg(figure: Figure) -> str:
    import matplotlib

    text = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "medraft"}):
        figure.savefig(text, format="svg", metadata=nothing)
    drawing = text.getvalue()
    return drawing[drawing.index("<svg") :]
