"""From each answer's values to what they mean: totals, differences, the oracle, the targets, words.

Owns what counts as a win, as noise and as a target that is met. Knows nothing of how answers were
made nor of what the report looks like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from agent.evaluation.metrics import BY_NAME, METRICS, Metric
from agent.evaluation.statistics import Difference, Estimate, Values, differences, estimate

# Values of shape (questions,) by metric and behaviour, NaN where an answer has none.
Table = dict[str, dict[str, Values]]
QUALITY = "similarity"  # what the targets and the oracle are about


@dataclass(frozen=True)
class Finding:
    """Who has the best mean of a metric, and whom it beats, loses to, and only seems to beat on
    the questions that they share."""

    metric: Metric
    best: str
    mean: float
    beats: list[str]
    loses: list[str]
    noise: list[str]

    def __str__(self) -> str:
        title, value = self.metric.title, format(self.mean, self.metric.form)
        beaten, noise = ", ".join(self.beats), ", ".join(self.noise)
        if self.loses:
            text = (
                f"{title}: {self.best} has the best mean ({value}), but over questions of its own; "
                f"on those that they share it loses to {', '.join(self.loses)}"
            )
            text += f" and beats {beaten}" if beaten else ""
        elif self.beats:
            text = f"{title}: {self.best} wins ({value}) over {beaten}"
        else:
            return f"{title}: no difference beyond noise (best mean {value}, {self.best})."
        return f"{text}; against {noise} it is noise." if noise else f"{text}."


@dataclass(frozen=True)
class Target:
    """A target, whether it is met, and the figures."""

    text: str
    met: bool
    figures: str


@dataclass(frozen=True)
class Policy:
    """A way to decide on retrieval: its quality against its cost, means over the questions."""

    llm: str
    retrieval: str
    quality: Estimate
    cost: float
    seconds: float
    retrieved: float


@dataclass(frozen=True)
class Conclusions:
    """All that a report says in figures and words."""

    approaches: Sequence[str]
    totals: dict[str, dict[str, Estimate]]
    differences: dict[str, list[Difference]]
    findings: list[Finding]
    targets: list[Target]
    policies: list[Policy]


def conclude(values: Table, approaches: Sequence[str], retrieved: Values, llm: str) -> Conclusions:
    """Conclusions from `values`; `retrieved`, shape (questions,), is 1 where `auto` looked up, and
    `llm` is the one that `auto` spoke with."""
    totals: dict[str, dict[str, Estimate]] = {}
    tested: dict[str, list[Difference]] = {}
    for metric in METRICS:
        of_metric = values.get(metric.name, {})
        means = {a: estimate(of_metric[a]) for a in approaches if a in of_metric}
        totals[metric.name] = {a: told for a, told in means.items() if told is not None}
        if metric.better is not None:
            there = list(totals[metric.name])
            pairs = [(a, of_metric[a], b, of_metric[b]) for a, b in combinations(there, 2)]
            tested[metric.name] = differences(pairs)
    return Conclusions(
        approaches,
        {name: means for name, means in totals.items() if means},
        {name: found for name, found in tested.items() if found},
        _findings(totals, tested),
        _targets(totals, tested, llm),
        _policies(values, approaches, retrieved, llm),
    )


def _findings(
    totals: dict[str, dict[str, Estimate]], tested: dict[str, list[Difference]]
) -> list[Finding]:
    findings = []
    for name, found in tested.items():
        if not found:
            continue
        metric, means = BY_NAME[name], totals[name]
        pick = max if metric.better == "higher" else min
        best = pick(means, key=lambda approach: means[approach].mean)
        others = [
            _signed(found, best, _other(d, best)) for d in found if best in (d.first, d.second)
        ]
        # A mean is over all questions of one, a difference over those that two of them share.
        better = [d for d in others if (d.by.mean > 0) == (metric.better == "higher")]
        beats = [d.second for d in better if not d.noise]
        loses = [d.second for d in others if not d.noise and d not in better]
        noise = [d.second for d in others if d.noise]
        findings.append(Finding(metric, best, means[best].mean, beats, loses, noise))
    return findings


def _targets(
    totals: dict[str, dict[str, Estimate]], tested: dict[str, list[Difference]], llm: str
) -> list[Target]:
    """The project's own targets, of which the answers to all that they compare are there."""
    quality, means = tested.get(QUALITY, []), totals.get(QUALITY, {})
    targets = []
    if {"base", "RAG", "fine-tuned", "RAFT"} <= set(means):
        wins = [_signed(quality, a, b) for a in ("fine-tuned", "RAFT") for b in ("base", "RAG")]
        targets.append(
            Target(
                "fine-tuned and RAFT each beat base and RAG on similarity to the reference",
                all(not win.noise and win.by.low > 0 for win in wins),
                "; ".join(map(_told, wins)),
            )
        )
        gain = _signed(quality, "RAFT", "fine-tuned")
        targets.append(
            Target(
                "RAFT is at least as good as fine-tuned on similarity",
                gain.by.mean >= 0 or gain.noise,
                _told(gain),
            )
        )
    always = "RAFT" if llm == "fine-tuned" else "RAG"
    singles = [approach for approach in means if approach != "auto"]
    if "auto" in means and always in means:
        best = max(singles, key=lambda approach: means[approach].mean)
        loss = _signed(quality, "auto", best)
        saved = _signed(tested["cost"], "auto", always)
        cost, dear = totals["cost"]["auto"].mean, totals["cost"][always].mean
        targets.append(
            Target(
                "auto is within noise of the best single behaviour at a lower cost than always "
                "retrieving",
                (loss.noise or loss.by.mean > 0) and saved.by.mean < 0 and not saved.noise,
                f"{_told(loss)}; {cost:.0f} tokens an answer against {dear:.0f} of {always}"
                f"{', noise' if saved.noise else ''}",
            )
        )
    return targets


def _policies(
    values: Table, approaches: Sequence[str], retrieved: Values, llm: str
) -> list[Policy]:
    """Never, always, auto and the better of never and always, question by question."""

    def policy(of: str, name: str, rows: dict[str, Values], share: float) -> Policy:
        quality = estimate(rows[QUALITY])
        assert quality is not None
        return Policy(
            of, name, quality, float(rows["cost"].mean()), float(rows["total"].mean()), share
        )

    def rows_of(approach: str) -> dict[str, Values]:
        return {name: values[name][approach] for name in (QUALITY, "cost", "total")}

    policies = []
    for of, never, always in (("base", "base", "RAG"), ("fine-tuned", "fine-tuned", "RAFT")):
        if never in approaches and always in approaches:
            without, looked_up = rows_of(never), rows_of(always)
            gains = looked_up[QUALITY] > without[QUALITY]
            best = {name: np.where(gains, looked_up[name], without[name]) for name in without}
            policies.append(policy(of, "never", without, 0.0))
            policies.append(policy(of, "always", looked_up, 1.0))
            if of == llm and "auto" in approaches:
                policies.append(policy(of, "auto", rows_of("auto"), float(retrieved.mean())))
            policies.append(policy(of, "oracle", best, float(gains.mean())))
    return policies


def _signed(found: Sequence[Difference], first: str, second: str) -> Difference:
    """The difference `first - second`, whichever way it was taken."""
    for each in found:
        if (each.first, each.second) == (first, second):
            return each
        if (each.first, each.second) == (second, first):
            turned = Estimate(-each.by.mean, -each.by.high, -each.by.low, each.by.n)
            return Difference(first, second, turned, each.p)
    raise KeyError((first, second))


def _told(found: Difference) -> str:
    by, noise = found.by, ", noise" if found.noise else ""
    return (
        f"{found.first} against {found.second} {by.mean:+.3f} "
        f"({by.low:+.3f} to {by.high:+.3f}{noise})"
    )


def _other(found: Difference, name: str) -> str:
    return found.second if found.first == name else found.first


def as_dict(conclusions: Conclusions) -> dict[str, Any]:
    """Totals by metric and behaviour, for other programs."""
    return {
        name: {
            approach: {"mean": told.mean, "low": told.low, "high": told.high, "n": told.n}
            for approach, told in means.items()
        }
        for name, means in conclusions.totals.items()
    }
