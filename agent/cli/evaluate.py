"""`medraft evaluate`: the answers of every behaviour, and the decisions before them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent import settings as settings_module
from agent.behaviour import LLMChoice
from agent.cli.options import ColumnNames, Json, print_json

app = typer.Typer(
    invoke_without_command=True,
    help="Measure: the same questions through every behaviour, or the parts alone.",
)


@app.callback()
def answers(
    context: typer.Context,
    source: Annotated[
        str | None,
        typer.Option(
            help="Questions with reference replies, as for `index build`; default: the held-out "
            "patients of the index's source."
        ),
    ] = None,
    columns: ColumnNames = None,
    behaviours: Annotated[
        str | None,
        typer.Option(
            help="Of base, RAG, fine-tuned, RAFT and auto, as RAG,auto; default: all there are."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Questions asked; default: all.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="A folder; again, to go on. Default: in MEDRAFT_HOME.")
    ] = None,
    perplexity: Annotated[
        bool, typer.Option(help="Of the reference replies, in transformers, on any engine.")
    ] = False,
    judge: Annotated[str | None, typer.Option(help="An LLM that judges the answers.")] = None,
    judge_url: Annotated[
        str, typer.Option(help="Its OpenAI-like server; OPENAI_API_KEY is its key.")
    ] = "http://127.0.0.1:8080/v1",
) -> None:
    """Ask the same questions through every behaviour; write what came of it to report.html."""
    if context.invoked_subcommand is not None:
        return
    import asyncio

    from agent.evaluation.questions import parse_behaviours, read_questions

    settings = settings_module.load()
    wanted = parse_behaviours(behaviours) if behaviours else None
    questions = read_questions(settings, source, columns, limit)

    from agent.evaluation.evaluation import evaluate  # heavy, and a wrong option needs none of it

    folder = output or settings.home / "evaluation"
    summary = asyncio.run(
        evaluate(
            settings,
            questions,
            folder,
            approaches=wanted,
            perplexity=perplexity,
            judge=(judge, judge_url) if judge else None,
        )
    )
    print(f"{summary}\n-> {folder / 'report.html'}, {folder / 'report.md'}")


@app.command("retrieval")
def retrieval(
    qrels: Annotated[
        Path | None,
        typer.Option(help='Graded judgements: {"question", "answer", "grade"} lines.'),
    ] = None,
    known: Annotated[
        int, typer.Option(min=1, help="Titles that search for their own reply.")
    ] = 300,
    as_json: Json = False,
) -> None:
    """Hit rate, MRR and nDCG of the index in use, searched in several ways."""
    from dataclasses import asdict

    from agent.evaluation.parts import relevance
    from agent.evaluation.parts import retrieval as parts

    told, decided = parts.run(settings_module.load(), qrels, known)
    if as_json:
        figures = {title: parts.as_json(found) for title, found in told.items()}
        shown = {title: [asdict(each) for each in rows] for title, rows in decided.items()}
        print_json(figures | ({"shown": shown} if shown else {}))
        return
    tables = [parts.as_markdown(title, found) for title, found in told.items()]
    tables += [
        relevance.as_markdown(title, told[title].cases, rows) for title, rows in decided.items()
    ]
    print("\n\n".join(tables))


@app.command("grounding")
def grounding_command(
    llm: Annotated[LLMChoice, typer.Option(help="base is RAG, fine-tuned is RAFT.")] = "fine-tuned",
    limit: Annotated[int | None, typer.Option(min=1, help="Patients asked; default: all.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Every answer with its counts, as JSON.", dir_okay=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Held-out patients, shown replies that fit and that do not: claims, citations, refusals."""
    import asyncio
    import json
    from dataclasses import asdict

    from agent.evaluation.parts import grounding
    from index_store.disk import write_text

    if output is not None and not output.exists():
        write_text(output, "[]\n")  # what cannot be written is told before minutes are spent
    asked, too_long = asyncio.run(grounding.ask(settings_module.load(), llm, limit))
    told = grounding.figures(asked, too_long)
    if output is not None:
        write_text(output, json.dumps([asdict(each) for each in asked], indent=2) + "\n")
    if as_json:
        print_json(asdict(told))
    else:
        print(grounding.as_text(told))


@app.command("triage")
def triage_command(
    cases: Annotated[
        Path | None, typer.Option(help="Your own JSONL: text, degree or emergency, kind.")
    ] = None,
    liveqa: Annotated[
        Path | None, typer.Option(help="LiveQA's questions as JSONL, as ordinary messages.")
    ] = None,
    xstest: Annotated[
        Path | None, typer.Option(help="XSTest's prompts as JSONL, as ordinary messages.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Emergencies found, of which kind, and ordinary messages flagged; and the time it takes."""
    from dataclasses import asdict

    from agent.evaluation.parts import triage

    sets = {
        "held-out letters": triage.cases(triage.LETTERS),
        "held-out short messages": triage.cases(triage.SHORT),
        "ordinary short messages": triage.ordinary(),
    }
    if cases is not None:
        sets = {cases.stem: triage.cases(cases)}
    if liveqa is not None:
        sets["LiveQA's questions"] = triage.questions(liveqa, "question")
    if xstest is not None:
        sets["XSTest"] = triage.questions(xstest, "prompt")
    results = [triage.measure(name, rows) for name, rows in sets.items()]
    times = triage.times([row["text"] for row in next(iter(sets.values()))])
    if as_json:
        print_json({"sets": [asdict(result) for result in results], "ms": asdict(times)})
        return
    print("\n\n".join(triage.as_text(result) for result in results))
    print(_milliseconds(times.median, times.percentile_99))


@app.command("router")
def router_command(
    cases: Annotated[
        Path | None, typer.Option(help="Your own JSONL: messages, retrieve, kind.", dir_okay=False)
    ] = None,
    clinc: Annotated[
        Path | None, typer.Option(help="CLINC150 as JSONL: text, intent.", dir_okay=False)
    ] = None,
    liveqa: Annotated[
        Path | None, typer.Option(help="LiveQA's questions as JSONL, all to be retrieved.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the calibration: .svg, .png or .pdf.", dir_okay=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Health questions retrieved and others left alone, calibration, and the time it takes."""
    from dataclasses import asdict

    from agent.evaluation.parts import router

    if plot is not None:
        router.check_plot(plot)
    sets = {
        "router": router.cases(),
        "turns": router.cases(router.TURNS),
        "letters": router.letters(),
    }
    if cases is not None:
        sets = {cases.stem: router.cases(cases)}
    if clinc is not None:
        sets["CLINC150"] = router.clinc(clinc)
    if liveqa is not None:
        sets["LiveQA's questions"] = router.questions(liveqa)
    results = [router.measure(name, rows) for name, rows in sets.items()]
    times = router.times(next(iter(sets.values())))
    if plot is not None:
        router.plot(results[:1], plot)
    if as_json:
        print_json({"sets": [asdict(result) for result in results], "ms": asdict(times)})
        return
    print("\n".join(router.as_text(result) for result in results))
    print(_milliseconds(times.median, times.percentile_99))


def _milliseconds(median: float, percentile: float) -> str:
    return f"{median:.2f} ms a message (median), {percentile:.2f} ms (99th percentile)"
