"""`medraft ask`, `medraft chat` and `medraft compare`: the agent in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent import settings as settings_module
from agent.behaviour import Behaviour, LLMChoice, Retrieval
from agent.cli.options import Json, Spoken, check_question, print_json
from agent.errors import AgentError
from agent.llms.choice import with_first_llm

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
def ask(
    question: str,
    llm: Llm = None,
    retrieval: Ret = None,
    language: Spoken = "en",
    as_json: Json = False,
) -> None:
    """Answer one question."""
    import asyncio

    from agent.chat.record import collect
    from agent.cli.terminal import show

    check_question(question)
    engine = _conversation(_settings(llm, retrieval))
    engine.language = language
    if as_json:
        print_json(asyncio.run(collect(engine, question)))
    else:
        asyncio.run(show(engine, question))


@app.command()
def chat(llm: Llm = None, retrieval: Ret = None, language: Spoken = "en") -> None:
    """Talk with the agent in the terminal. Control-C stops an answer, Control-D leaves."""
    from agent.cli.terminal import converse

    engine = _load(_settings(llm, retrieval)).conversation()
    engine.language = language
    converse(engine)


@app.command()
def compare(question: str, as_json: Json = False) -> None:
    """Answer one question by all four behaviours, one after the other."""
    import asyncio

    check_question(question)
    # Whatever LLM is the default: one that cannot be had is told in its own place.
    begin = _conversation(_settings("base", None)).another
    answers = asyncio.run(all_four(partial(begin, ()), question, as_json))
    if as_json:
        print_json({"question": question, "answers": answers})


async def all_four(
    begin: Callable[[], PatientChatEngine], question: str, as_json: bool
) -> list[dict[str, Any]]:
    """Show each answer, and collect them all. Raises AgentError if none of the four has one."""
    from contextlib import aclosing

    from agent.chat.comparison import Failed, compare, conversations
    from agent.chat.record import part, unanswered
    from agent.cli.terminal import write

    each = dict(conversations(begin))
    answers: dict[Behaviour, dict[str, Any]] = {}
    errors: list[AgentError] = []
    async with aclosing(compare(question, each.items())) as events:
        async for name, event in events:
            if name not in answers:
                answers[name] = unanswered(each[name], question)
                if not as_json:
                    print(f"\n--- {name}", flush=True)
            if isinstance(event, Failed):
                if not isinstance(event.error, AgentError):
                    raise event.error
                errors.append(event.error)
                failed = {"behaviour": name, "error": str(event.error)}
                answers[name] = unanswered(each[name], question) | failed
                print(f"{name}: {event.error}", file=sys.stderr)
                continue
            answers[name] |= part(event)
            if not as_json:
                write(event)
    if len(errors) == len(each):
        raise errors[0]
    return list(answers.values())


def _settings(llm: LLMChoice | None, retrieval: Retrieval | None) -> Settings:
    chosen = {"llm": llm, "retrieval": retrieval}
    given = {name: value for name, value in chosen.items() if value}
    return with_first_llm(settings_module.load(**given))


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
    agent.engine.llm(settings.llm or "base")  # what cannot be had is told before any question
    return agent
