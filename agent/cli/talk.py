"""`medraft ask`, `medraft chat` and `medraft compare`: the agent in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent import settings as settings_module
from agent.behaviour import LLMChoice, Retrieval
from agent.cli.options import Json, print_json
from agent.errors import AgentError
from agent.llms import choice

if TYPE_CHECKING:
    from agent.chat.engine import PatientChatEngine
    from agent.chat.loading import Agent
    from agent.settings import Settings

app = typer.Typer()

Llm = Annotated[
    LLMChoice | None, typer.Option(help="Default: MEDRAFT_LLM, or fine-tuned if there is one.")
]
Ret = Annotated[Retrieval | None, typer.Option(help="Default: MEDRAFT_RETRIEVAL.")]


@app.command()
def ask(question: str, llm: Llm = None, retrieval: Ret = None, as_json: Json = False) -> None:
    """Answer one question."""
    import asyncio

    from agent.chat.record import collect
    from agent.cli.terminal import show

    engine = _conversation(_settings(llm, retrieval))
    if as_json:
        print_json(asyncio.run(collect(engine, question)))
    else:
        asyncio.run(show(engine, question))


@app.command()
def chat(llm: Llm = None, retrieval: Ret = None) -> None:
    """Talk with the agent in the terminal. Control-C stops an answer, Control-D leaves."""
    from agent.cli.terminal import converse

    converse(_load(_settings(llm, retrieval)).conversation())


@app.command()
def compare(question: str, as_json: Json = False) -> None:
    """Answer one question by all four behaviours, one after the other."""
    import asyncio

    # Whatever LLM is the default: one that cannot be had is told in its own place.
    begin = _conversation(_settings("base", None)).another
    answers = asyncio.run(all_four(partial(begin, ()), question, as_json))
    if as_json:
        print_json({"question": question, "answers": answers})


async def all_four(
    begin: Callable[[], PatientChatEngine], question: str, as_json: bool
) -> list[dict[str, Any]]:
    """Show each answer, or collect them all. Raises AgentError if none of the four has one."""
    from agent.chat.comparison import conversations
    from agent.chat.record import collect, unanswered
    from agent.cli.terminal import show

    answers: list[dict[str, Any]] = []
    errors: list[AgentError] = []
    for name, engine in conversations(begin):
        try:
            if as_json:
                answers.append(await collect(engine, question))
            else:
                print(f"\n--- {name}", flush=True)
                await show(engine, question)
        except AgentError as error:
            errors.append(error)
            answers.append(unanswered(engine, question) | {"behaviour": name, "error": str(error)})
            print(f"{name}: {error}", file=sys.stderr)
    if len(errors) == 4:
        raise errors[0]
    return answers


def _settings(llm: LLMChoice | None, retrieval: Retrieval | None) -> Settings:
    chosen = {"llm": llm, "retrieval": retrieval}
    given = {name: value for name, value in chosen.items() if value}
    return choice.with_first_llm(settings_module.load(**given))


def _conversation(settings: Settings) -> PatientChatEngine:
    """One that loads the models when a turn wants them: words for an emergency wait for nothing."""
    import asyncio

    from agent.chat.engine import PatientChatEngine

    loaded: list[Agent] = []

    async def loading() -> Agent:
        if not loaded:
            loaded.append(await asyncio.to_thread(_load, settings))
        return loaded[0]

    return PatientChatEngine(settings, loading)


def _load(settings: Settings) -> Agent:
    if sys.stderr.isatty():
        print("Loading the models ...", file=sys.stderr)
    from agent.chat import loading

    agent = loading.load(settings)
    agent.engine.llm(
        settings.llm or "base"
    )  # a choice that cannot be had is told before any question
    return agent
