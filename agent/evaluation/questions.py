"""What is asked: questions with a doctor's reply as the reference, and through which behaviours.

Owns which dialogues of a source are questions, and that none can be answered by its own reply.
Knows nothing of answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.behaviour import CHOICES, Behaviour
from agent.errors import AgentError
from agent.settings import Settings
from index_store.cleaning import clean
from index_store.columns import Columns
from index_store.dataset import Dialogue, read_rows
from index_store.faults import Faults
from index_store.split import split
from index_store.store import IndexStore

# Greetings, thanks, off-topic: what patients write, too, and what need not be looked up. Without
# them, whether to retrieve would not be a question.
OTHERS = Path(__file__).with_name("data") / "other_messages.jsonl"

# `auto` is the router with the LLM that a patient would pick, which the engine decides.
Approach = Behaviour | Literal["auto"]
APPROACHES: tuple[Approach, ...] = (*CHOICES, "auto")


@dataclass(frozen=True)
class Questions:
    """Dialogues in an order of their own ids, so that a larger `--limit` asks the same and more;
    `too_long` counts those that were left out because an LLM cannot read them."""

    source: str
    held_out: bool
    dialogues: list[Dialogue]
    too_long: int = 0


def parse_behaviours(text: str) -> list[Approach]:
    """Read `base,RAG,auto`. Raises AgentError for a name that is none of them."""
    wanted = [name.strip() for name in text.split(",")]
    for name in wanted:
        if name not in APPROACHES:
            raise AgentError(
                f"There is no behaviour {name!r}: --behaviours takes {', '.join(APPROACHES)}."
            )
    return [approach for approach in APPROACHES if approach in wanted]


def read_questions(
    settings: Settings, source: str | None, columns: str | None, limit: int | None
) -> Questions:
    """The first `limit` questions of a source; None is what the index holds.

    Of the index and of the sample, only patients that no training has seen
    (`index_store.split`), and besides them the messages of OTHERS; of any other source all.
    Raises AgentError if none is left or `columns` are of no source, StoreError if the source or the
    index cannot be read.
    """
    if source is None and columns:
        raise AgentError(
            "--columns are those of a --source, and the index in use has its own: name the source, "
            "or leave --columns out."
        )
    if source is None:
        with IndexStore.open(settings.index_dir, settings.embed_model) as store:
            name = " and ".join(each.name for each in store.manifest.sources)
            dialogues = [dialogue for _, dialogue in store.rows()]
    else:
        name = source
        names, faults = Columns.parse(columns) if columns else None, Faults()
        dialogues, cleaning = clean(read_rows(source, names, faults=faults), faults)
        if not dialogues:
            raise AgentError(
                f"{name} has no question with a reference reply ({cleaning}): each row needs both."
            )
    held_out = source in (None, "sample")
    if held_out:
        dialogues = [dialogue for dialogue in dialogues if split(dialogue.patient) == "test"]
    others = list(read_rows(str(OTHERS))) if held_out else []
    if not dialogues:
        raise AgentError(
            f"None of the patients of {name} is held out: it takes some dozens, or a file of "
            "other questions as --source."
        )
    asked = sorted([*dialogues, *others], key=lambda each: each.id)[:limit]
    return Questions(name, held_out, asked)


def own_reply(question: Dialogue) -> Callable[[Dialogue], bool]:
    """Whether a dialogue of the index gives the reference of `question` away."""
    from index_store.split import gives_away

    turns: Sequence[str] = [question.patient]
    return lambda dialogue: gives_away(dialogue, turns, question.doctor)
