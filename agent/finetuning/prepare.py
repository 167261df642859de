"""From a data set to files of training examples: read, clean, split, index, write.

Owns the order of it and the files' names. Of the three parts of `index_store.split`, one is
trained on and one steers the training; the test part is left alone. Knows nothing of what an
example is made of, nor of training.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from agent.chat.prompting import fits
from agent.errors import AgentError
from agent.finetuning.examples import CONVERSATIONS, MEDICINES, ExampleMaker, Tokenizer
from agent.finetuning.grounded import grounded
from agent.finetuning.recipe import Recipe
from agent.llms import window
from agent.llms.choice import decide
from agent.routing.embedding import TurnEmbedding
from agent.settings import Settings
from index_store.build import build
from index_store.cleaning import Cleaning
from index_store.dataset import Dialogue
from index_store.disk import write_text
from index_store.embedding import embed_queries, embed_texts, identity, load_embedding
from index_store.errors import first_sentence
from index_store.split import split
from index_store.store import IndexStore

TRAIN, VALIDATION, SUMMARY = "train.jsonl", "validation.jsonl", "examples.json"


@dataclass(frozen=True)
class Prepared:
    """What was written: counts of dialogues, of examples, and of what those hold."""

    dialogues: dict[str, int]
    examples: dict[str, int]
    held: dict[str, int]


async def prepare(
    settings: Settings,
    dialogues: list[Dialogue],
    cleaning: Cleaning,
    recipe: Recipe,
    folder: Path,
    *,
    source: str,
    limit: int | None,
) -> Prepared:
    """Write training and validation examples of `dialogues` to `folder`.

    Raises AgentError if there are too few dialogues, StoreError if they cannot be indexed.
    """
    if not 0 <= recipe.distractors < len(dialogues):
        raise _too_few(len(dialogues), recipe)
    name, checkpoint = decide(settings, "huggingface").base.checkpoint(settings.home / "models")
    read = window.of_checkpoint(settings, name, checkpoint)
    tokenizer = Tokenizer(_tokenizer(checkpoint), name, read)

    parts: dict[str, list[Dialogue]] = {"train": [], "validation": [], "test": [], "too long": []}
    for dialogue in dialogues:
        short = tokenizer.answer_tokens(dialogue.doctor) <= settings.max_tokens
        short = short and await fits(tokenizer, dialogue.patient, settings.max_tokens)
        parts[split(dialogue.patient) if short else "too long"].append(dialogue)
    if len(parts["train"]) <= recipe.distractors:
        raise _too_few(len(parts["train"]), recipe)

    index = folder / "index"
    build(parts["train"], index, settings.embed_model, source=source, limit=limit)
    embedding = load_embedding(settings.embed_model)
    with IndexStore.open(index, settings.embed_model) as store:
        maker = ExampleMaker(
            recipe,
            tokenizer,
            store,
            TurnEmbedding(partial(embed_queries, embedding)),
            parts["train"],
            partial(embed_texts, embedding),
            min_relevance=settings.min_relevance,
            max_tokens=settings.max_tokens,
        )
        train = [
            await maker.dialogue(dialogue)
            for _ in range(recipe.rounds)
            for dialogue in parts["train"]
        ]
        validation = [await maker.dialogue(dialogue) for dialogue in parts["validation"]]
        for file, examples in ((CONVERSATIONS, maker.conversation), (MEDICINES, maker.alone)):
            for line in file.read_text(encoding="utf-8").splitlines():
                messages = json.loads(line)["messages"]
                part = validation if split(messages[0]["content"]) == "validation" else train
                part.extend(await examples(messages))
        written_by_hand = grounded()
        for written in written_by_hand[: round(len(written_by_hand) * recipe.by_hand)]:
            part = validation if split(written.patient.patient) == "validation" else train
            part.extend(filter(None, [await maker.grounded(written)]))

    _write(folder / TRAIN, (example.row() for example in train))
    _write(folder / VALIDATION, (example.row() for example in validation))
    prepared = Prepared(
        {part: len(rows) for part, rows in parts.items()},
        {"train": len(train), "validation": len(validation)},
        dict(maker.counts),
    )
    summary = {
        "source": source,
        "limit": limit,
        "cleaning": str(cleaning),
        "model": name,
        "embed_model": identity(settings.embed_model),
        "max_tokens": settings.max_tokens,
        "min_relevance": settings.min_relevance,
        "recipe": asdict(recipe),
        **asdict(prepared),
    }
    write_text(folder / SUMMARY, json.dumps(summary, indent=2) + "\n")
    return prepared


def _tokenizer(checkpoint: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(checkpoint)
    except (OSError, ValueError) as error:
        raise AgentError(
            f"The tokenizer of {checkpoint} cannot be loaded: {first_sentence(error)} "
            "Correct MEDRAFT_MODEL."
        ) from None


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _too_few(dialogues: int, recipe: Recipe) -> AgentError:
    return AgentError(
        f"{dialogues} dialogues are there to train on, and k = {recipe.distractors} distractors "
        f"need {recipe.distractors + 1} at least: give a larger data set or fewer --distractors."
    )
