"""How good the router is: confusion, calibration and the time, on messages it never learned.

Owns the test sets (`data/router_test.jsonl`, and by authors of whom nothing was learned
`data/turns_test.jsonl` and `data/letters_test.jsonl`) and the counting. A case has `messages`,
which end with the patient's message to judge, `retrieve` and `kind`. Only totals were ever read.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent.errors import AgentError
from agent.evaluation.parts.labelled import LONG, Times, numbered, read
from agent.routing.router import route
from agent.understanding.encoder import shipped
from index_store.disk import make_whole

CASES = Path(__file__).parent.parent / "data" / "router_test.jsonl"
TURNS, LETTERS = CASES.with_name("turns_test.jsonl"), CASES.with_name("letters_test.jsonl")
BINS = 10
PLOTS = (".svg", ".png", ".pdf")
# CLINC150 (S. Larson et al., EMNLP 2019). What a doctor may well be asked is left out; what the
# data set calls out of scope is of all sorts, health among them.
_CLINC_HEALTH = {"vaccines", "calories", "nutrition_info"}
_CLINC_TALK = {
    *("greeting", "goodbye", "thank_you", "yes", "no", "maybe", "repeat", "cancel"),
    *("what_are_your_hobbies", "tell_joke", "fun_fact", "meaning_of_life", "flip_coin"),
    *("roll_dice", "do_you_have_pets"),
}
_CLINC_BOT = {
    *("are_you_a_bot", "how_old_are_you", "what_can_i_ask_you", "what_is_your_name"),
    *("where_are_you_from", "who_do_you_work_for", "who_made_you", "change_ai_name", "user_name"),
    *("change_user_name", "change_accent", "change_language", "change_speed", "change_volume"),
    *("reset_settings", "whisper_mode", "sync_device"),
}


@dataclass(frozen=True)
class Confusion:
    """Counts: health questions retrieved and missed, others left alone and retrieved."""

    retrieved: int
    missed: int
    left_alone: int
    needless: int

    @property
    def recall(self) -> float:
        """Share of the health questions that are retrieved; NaN without any."""
        return _share(self.retrieved, self.missed)

    @property
    def specificity(self) -> float:
        """Share of the others that are left alone; NaN without any."""
        return _share(self.left_alone, self.needless)


@dataclass(frozen=True)
class Bin:
    """The messages whose score falls in one tenth: mean score, share of health questions."""

    score: float
    health: float
    of: int


@dataclass(frozen=True)
class Result:
    """Counts over one set of cases; `calibration_error` is the expected one over ten bins
    (M. Pakdaman Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning",
    AAAI 2015)."""

    name: str
    total: Confusion
    single: Confusion
    in_conversation: Confusion
    long: Confusion
    by_kind: dict[str, Confusion]
    calibration: list[Bin]
    calibration_error: float


def cases(path: Path = CASES) -> list[dict[str, Any]]:
    """The labelled conversations. Raises AgentError for a file that is not what it should be."""
    rows = numbered(path, {"messages", "retrieve"}, ("kind", "language"))
    for number, row in rows:
        try:
            ends_well = row["messages"][-1]["role"] == "user" and all(
                isinstance(message["role"], str) and isinstance(message["content"], str)
                for message in row["messages"]
            )
        except (TypeError, KeyError, IndexError):
            ends_well = False
        if not ends_well:
            raise AgentError(
                f"The messages in line {number} of {path} must be role and content, and end with "
                "the user's."
            )
        if not isinstance(row["retrieve"], bool):
            raise AgentError(f"Line {number} of {path} needs true or false as retrieve.")
    return [row for _, row in rows]


def letters() -> list[dict[str, Any]]:
    """Triage's held-out letters: about health, or about anything else in the same words."""
    return [
        {
            "messages": [{"role": "user", "content": row["text"]}],
            "retrieve": row["health"],
            "kind": "health" if row["health"] else "other",
            "language": row["language"],
        }
        for row in read(LETTERS, {"text", "health", "language"})
    ]


def questions(path: Path) -> list[dict[str, Any]]:
    """Other people's questions about health, all to be retrieved. Raises AgentError."""
    texts = dict.fromkeys(row["question"] for row in read(path, {"question"}, {"question"}))
    return [
        {"messages": [{"role": "user", "content": text}], "retrieve": True, "kind": "health"}
        for text in texts
    ]


def clinc(path: Path) -> list[dict[str, Any]]:
    """CLINC150's requests, without those on health: none is to be retrieved.

    Raises AgentError for a file that is not what it should be.
    """
    return [
        {
            "messages": [{"role": "user", "content": row["text"]}],
            "retrieve": False,
            "kind": _clinc_group(row["intent"]),
        }
        for row in read(path, {"text", "intent"}, ("text", "intent"))
        if row["intent"] not in _CLINC_HEALTH
    ]


def measure(name: str, rows: Sequence[dict[str, Any]]) -> Result:
    """Route every case, of which there is at least one, and count."""
    routes = [route(row["messages"])[0] for row in rows]
    scores: np.ndarray = np.array([route.score for route in routes])
    retrieved: np.ndarray = np.array([route.retrieve for route in routes])
    health: np.ndarray = np.array([row["retrieve"] for row in rows])
    kinds: np.ndarray = np.array([row.get("kind", "other") for row in rows])
    languages: np.ndarray = np.array([row.get("language", "en") for row in rows])
    follows: np.ndarray = np.array([len(row["messages"]) > 1 for row in rows])
    words: np.ndarray = np.array([len(row["messages"][-1]["content"].split()) for row in rows])

    def counts(part: np.ndarray) -> Confusion:
        return Confusion(
            int((part & health & retrieved).sum()),
            int((part & health & ~retrieved).sum()),
            int((part & ~health & ~retrieved).sum()),
            int((part & ~health & retrieved).sum()),
        )

    bins = _calibration(scores, health)
    error = sum(abs(each.score - each.health) * each.of for each in bins) / len(rows)
    return Result(
        name,
        counts(np.ones(len(rows), dtype=bool)),
        counts(~follows),
        counts(follows),
        counts(words >= LONG),
        {str(kind): counts(kinds == kind) for kind in sorted(set(kinds))}
        | {f"language {tag}": counts(languages == tag) for tag in sorted(set(languages))},
        bins,
        float(error),
    )


def times(rows: Sequence[dict[str, Any]]) -> Times:
    """What a message costs once the encoder is loaded; the turns before it were read already."""
    encoder = shipped()

    def once(messages: list[dict[str, str]]) -> float:
        encoder.forget()
        if len(messages) > 2:
            route(messages[:-2])
        start = time.perf_counter()
        route(messages)
        return time.perf_counter() - start

    return Times.of(lambda row: once(row["messages"]), rows)


def check_plot(target: Path) -> None:
    """Raises AgentError for a file of a kind that `plot` does not write."""
    if target.suffix not in PLOTS:
        raise AgentError(f"{target} is no plot: it must end in {', '.join(PLOTS)}.")


def plot(results: Sequence[Result], target: Path) -> None:
    """Write the reliability diagram of each result to an .svg, .png or .pdf file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 5.0), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="#b0b0b0", linewidth=1, label="calibrated")
    for result in results:
        axes.plot(
            [each.score for each in result.calibration],
            [each.health for each in result.calibration],
            marker="o",
            label=f"{result.name}: error {result.calibration_error:.3f}",
        )
        for each in result.calibration:
            axes.annotate(
                str(each.of),
                (each.score, each.health),
                (4, -10),
                textcoords="offset points",
                fontsize=7,
                color="#777777",
            )
    axes.set(xlabel="the router's score, mean of a bin", ylabel="share that are health questions")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    drawn = io.BytesIO()
    figure.savefig(drawn, format=target.suffix[1:])

    def write(path: Path) -> None:
        path.write_bytes(drawn.getvalue())

    make_whole(target, write)


def as_text(result: Result) -> str:
    """The confusion table for a terminal."""
    lines = [f"{result.name}", f"  {'':28} {'retrieved':>20} {'left alone':>20}"]
    parts = {"in total": result.total}
    if result.in_conversation != Confusion(0, 0, 0, 0):
        parts |= {"a single message": result.single, "in a conversation": result.in_conversation}
    if result.long != Confusion(0, 0, 0, 0):
        parts |= {"of 40 words or more": result.long}
    for title, part in [*parts.items(), *result.by_kind.items()]:
        indent = "" if title in parts else "  "
        lines.append(
            f"  {indent + title:28} {_of(part.recall, part.retrieved, part.missed):>20} "
            f"{_of(part.specificity, part.left_alone, part.needless):>20}"
        )
    lines.append(f"  expected calibration error {result.calibration_error:.3f}")
    return "\n".join(lines)


def _calibration(scores: np.ndarray, health: np.ndarray) -> list[Bin]:
    tenth = np.minimum((scores * BINS).astype(int), BINS - 1)
    return [
        Bin(float(scores[tenth == n].mean()), float(health[tenth == n].mean()), int(of))
        for n in range(BINS)
        if (of := (tenth == n).sum())
    ]


def _clinc_group(intent: str) -> str:
    if intent in _CLINC_TALK:
        return "small talk"
    if intent in _CLINC_BOT:
        return "about the bot"
    return "out of scope" if intent == "oos" else "off-topic"


def _share(right: int, wrong: int) -> float:
    return right / (right + wrong) if right + wrong else float("nan")


def _of(share: float, right: int, wrong: int) -> str:
    return f"{share:.1%} {right} of {right + wrong}" if right + wrong else "-"
