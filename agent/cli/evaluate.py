"""`medraft evaluate`: the answers of every behaviour, and the decisions before them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent import settings as settings_module
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
        str | None, typer.Option(help="base,RAG,fine-tuned,RAFT,auto; default: all there are.")
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
    from agent.evaluation.parts.retrieval import as_json as figures
    from agent.evaluation.parts.retrieval import as_markdown, run

    told = run(settings_module.load(), qrels, known)
    if as_json:
        print_json({title: figures(found) for title, found in told.items()})
    else:
        print("\n\n".join(as_markdown(title, found) for title, found in told.items()))


@app.command("triage")
def triage_command(
    cases: Annotated[
        Path | None, typer.Option(help="Your own JSONL: text, emergency, kind.", dir_okay=False)
    ] = None,
    xstest: Annotated[
        Path | None, typer.Option(help="XSTest as JSONL, for its look-alikes.", dir_okay=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Recall and false alarms of triage on a labelled test set, by kind, and the time it takes."""
    from dataclasses import asdict

    from agent.evaluation.parts import triage

    rows = triage.cases(cases or triage.CASES)
    splits = sorted({row.get("split", "all") for row in rows}, reverse=True)
    results = [
        triage.measure(split, [row for row in rows if row.get("split", "all") == split])
        for split in splits
    ]
    if cases is None:
        results.append(triage.measure("ordinary messages", triage.ordinary()))
        results.append(triage.measure("held-out letters", triage.letters()))
    if xstest is not None:
        results.append(triage.measure("XSTest", triage.xstest(xstest)))
    times = triage.times(row["text"] for row in rows)
    if as_json:
        print_json({"sets": [asdict(result) for result in results], "ms": asdict(times)})
        return
    for result in results:
        print(f"{result.name}")
        for title, total, by_kind in (
            ("recall", result.recall, result.recall_by_kind),
            ("false alarms", result.false_alarms, result.false_alarms_by_kind),
        ):
            if total.of:
                print(f"  {title:28} {total.share:6.1%}  {total.alarms} of {total.of}")
            for kind, count in by_kind.items():
                print(f"    {kind:26} {count.share:6.1%}  {count.alarms} of {count.of}")
        if result.kind_right.of:
            print(f"  {'of the right kind':28} {result.kind_right.share:6.1%}")
    print(
        f"{times.median:.2f} ms a message (median), {times.percentile_99:.2f} ms (99th percentile)"
    )


@app.command("router")
def router_command(
    cases: Annotated[
        Path | None, typer.Option(help="Your own JSONL: messages, retrieve, kind.", dir_okay=False)
    ] = None,
    clinc: Annotated[
        Path | None, typer.Option(help="CLINC150 as JSONL: text, intent.", dir_okay=False)
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the calibration: .svg, .png or .pdf.", dir_okay=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Health questions retrieved and others left alone, calibration, and the time it takes."""
    from dataclasses import asdict
    from functools import partial

    from agent.evaluation.parts import router as evaluation
    from agent.routing import router
    from agent.routing.embedding import TurnEmbedding
    from index_store.embedding import embed_queries, identity, load_embedding

    settings = settings_module.load()
    rows = evaluation.cases(cases or evaluation.CASES)
    others = evaluation.clinc(clinc) if clinc else []
    head = router.load(identity(settings.embed_model), settings.home)
    model = load_embedding(settings.embed_model)
    times = evaluation.times(rows, head, TurnEmbedding(model))
    embed = partial(embed_queries, model)
    results = [evaluation.measure(cases.stem if cases else "router", rows, head, embed)]
    if others:
        results.append(evaluation.measure("CLINC150", others, head, embed))
    if plot:
        evaluation.plot(results[:1], plot)
    if as_json:
        print_json({"sets": [asdict(result) for result in results], "ms": asdict(times)})
        return
    print("\n".join(evaluation.as_text(result) for result in results))
    print(
        f"{times.median:.2f} ms a message (median), {times.percentile_99:.2f} ms (99th "
        "percentile), "
        f"beyond its one embedding of {times.embedding_median:.1f} ms"
    )
