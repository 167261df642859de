"""The evaluation: the same questions through every behaviour, its figures, and its report."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import Mock

import numpy as np
import pytest

from agent import settings
from agent.chat.claims import ClaimKind
from agent.chat.marks import left_out
from agent.errors import AgentError
from agent.evaluation.asking import Answer, ReferenceLoss
from agent.evaluation.conclusions import conclude
from agent.evaluation.eval_log import EvalLog, claim
from agent.evaluation.evaluation import evaluate
from agent.evaluation.judging import Judgement, judge_all
from agent.evaluation.metrics import repeats, rouge_l, share_copied, word_tokens
from agent.evaluation.parts import retrieval
from agent.evaluation.parts.cases import judged, judgements
from agent.evaluation.questions import OTHERS, own_reply, parse_behaviours, read_questions
from agent.evaluation.scoring import score
from agent.evaluation.statistics import differences, estimate, holm
from agent.llms import engines
from agent.settings import ROOT, Settings
from index_store.dataset import Dialogue, read_rows
from index_store.embedding import EMBEDDED
from index_store.errors import StoreError

APPROACHES = ["base", "RAG", "fine-tuned", "RAFT", "auto"]


def rows(dialogues: list[Dialogue], path: Path) -> Path:
    path.write_text(
        "".join(
            json.dumps({"Description": d.title, "Patient": d.patient, "Doctor": d.doctor}) + "\n"
            for d in dialogues
        )
    )
    return path


@pytest.fixture(scope="module")
def chosen(models_home: Path, sample_index: Path) -> Settings:
    values: dict[str, Any] = {"engine": "llama_cpp", "model": "embedded", "threads": 1}
    values |= {"home": models_home, "index_dir": sample_index, "max_tokens": 24, "slots": 3}
    return settings.load(**values, min_relevance=0)


@pytest.fixture(scope="module")
def finished(
    chosen: Settings, dialogues: list[Dialogue], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A run of three questions, which the index holds with their replies, through everything."""
    folder = tmp_path_factory.mktemp("run") / "out"
    source = rows(dialogues, folder.parent / "rows.jsonl")
    questions = read_questions(chosen, str(source), None, 3)
    told = asyncio.run(
        evaluate(chosen, questions, folder, approaches=None, perplexity=False, judge=None)
    )
    return folder, told


def answers_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


def test_every_question_goes_through_every_behaviour(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    given = answers_of(folder)
    asked = {(each["question"], each["approach"]) for each in given}
    assert len(given) == 15 and len(asked) == 15
    for each in given:
        retrieves = each["approach"] in ("RAG", "RAFT")
        if each["approach"] != "auto":
            assert each["behaviour"] == each["approach"]
            assert bool(each["documents"]) == retrieves
        assert each["answer"] and 0 < each["tokens"] <= 24
        assert each["prompt_tokens"] > 20 and each["total_ms"] >= each["first_token_ms"] > 0
    read = {each["approach"]: each["prompt_tokens"] for each in given}
    assert read["RAFT"] > read["fine-tuned"]


def test_no_question_finds_its_own_reply(
    finished: tuple[Path, str], dialogues: list[Dialogue]
) -> None:
    replies = {dialogue.id: dialogue.doctor for dialogue in dialogues}
    for each in answers_of(finished[0]):
        assert replies[each["question"]] not in each["documents"]


def test_a_near_copy_of_the_reply_counts_as_the_reply(dialogues: list[Dialogue]) -> None:
    question = dialogues[0]
    hidden = own_reply(question)
    assert hidden(question)
    assert hidden(Dialogue("", "Someone else.", question.doctor.replace("early", "soon")))
    assert not hidden(dialogues[1])


def test_a_restart_asks_only_what_is_missing(
    finished: tuple[Path, str], chosen: Settings, tmp_path: Path
) -> None:
    folder, _ = finished
    again = tmp_path / "again"
    again.mkdir()
    whole = (folder / "answers.jsonl").read_text()
    (again / "run.json").write_text((folder / "run.json").read_text())
    (again / "answers.jsonl").write_text(whole[:-40])  # killed in the midst of a line
    source = str(folder.parent / "rows.jsonl")
    questions = read_questions(chosen, source, None, 3)
    asyncio.run(evaluate(chosen, questions, again, approaches=None, perplexity=False, judge=None))
    kept = (again / "answers.jsonl").read_text()
    *first, last = whole.splitlines(keepends=True)
    assert kept.startswith("".join(first))
    assert len(answers_of(again)) == 15
    assert answers_of(again)[-1]["question"] == json.loads(last)["question"]

    warmer = chosen.model_copy(update={"temperature": 0.9})
    with pytest.raises(AgentError, match=r"another run \(temperature is 0.2 there and 0.9 here\)"):
        asyncio.run(
            evaluate(warmer, questions, again, approaches=None, perplexity=False, judge=None)
        )


def test_the_report_stands_alone_and_says_what_was_missed(finished: tuple[Path, str]) -> None:
    folder, told = finished
    page = (folder / "report.html").read_text()
    assert page.count("<svg") == 3
    assert not re.search(r"""(?:src|href)=["'](?!#)|@import|url\((?!#)""", page)
    markdown = (folder / "report.md").read_text()
    # Three answers cut after 24 tokens prove nothing, and the first lines must not pretend so.
    assert "**Target missed**: fine-tuned and RAFT each beat" in "".join(
        markdown.splitlines(keepends=True)[:4]
    )
    assert told.startswith("TARGET MISSED: fine-tuned and RAFT each beat")
    assert "| fine-tuned | oracle |" in markdown
    scores = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
    assert len(scores) == 15
    for each in scores:
        assert {"similarity", "rouge_l", "chrf", "ended", "repeats", "cost"} <= set(each)
        assert ("leaking" in each) == ("copied" in each)
        assert ("supported" in each) <= ("copied" in each)
    means = json.loads((folder / "totals.json").read_text())["similarity"]
    of_base = [each["similarity"] for each in scores if each["approach"] == "base"]
    assert means["base"]["mean"] == pytest.approx(np.mean(of_base))


def test_markup_in_a_question_is_text_in_the_report(
    finished: tuple[Path, str], chosen: Settings, tmp_path: Path
) -> None:
    hostile = Dialogue("<script>alert(1)</script>", "My <b>knee</b> hurts.", "Rest the knee.")
    source = rows([hostile], tmp_path / "hostile.jsonl")
    questions = read_questions(chosen, str(source), None, None)
    # Cleaning takes markup out of a source; what is left must be text to the report all the same.
    questions = replace(questions, dialogues=[hostile])
    asyncio.run(
        evaluate(
            chosen, questions, tmp_path / "out", approaches=["base"], perplexity=False, judge=None
        )
    )
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page


def test_a_question_longer_than_can_be_read_is_left_out(chosen: Settings, tmp_path: Path) -> None:
    long = Dialogue("Knee", "My knee hurts. " * 1300, "Rest the knee.")
    short = Dialogue("Stye", "My eyelid has a red lump.", "Warm compresses help.")
    folder = tmp_path / "out"
    for asked, left in (([long, short], 1), ([short], 0)):
        source = rows(asked, tmp_path / "rows.jsonl")
        questions = read_questions(chosen, str(source), None, None)
        told = asyncio.run(
            evaluate(chosen, questions, folder, approaches=["base"], perplexity=False, judge=None)
        )
        assert ("left out, longer than the model can read: 1" in told) == bool(left)
        for report in ("report.md", "report.html"):
            page = (folder / report).read_text()
            assert "1 questions of" in page
            assert ("left out, longer than the model can read: 1" in page) == bool(left)
    assert [each["question"] for each in answers_of(folder)] == [questions.dialogues[0].id]

    source = rows([long], tmp_path / "rows.jsonl")
    questions = read_questions(chosen, str(source), None, None)
    with pytest.raises(AgentError, match=r"rows.jsonl is short enough for the model"):
        asyncio.run(
            evaluate(chosen, questions, folder, approaches=["base"], perplexity=False, judge=None)
        )


def test_perplexity_is_of_the_weights_that_answer(chosen: Settings, tmp_path: Path) -> None:
    questions = read_questions(chosen, "sample", None, None)
    for other in ({"engine": "openai_like"}, {"engine": "llama_cpp", "model": "some.gguf"}):
        wanted, folder = chosen.model_copy(update=other), tmp_path / other["engine"]
        with pytest.raises(AgentError, match="--perplexity is measured by transformers"):
            asyncio.run(
                evaluate(wanted, questions, folder, approaches=None, perplexity=True, judge=None)
            )


# Figures


def test_metrics_by_hand() -> None:
    assert word_tokens("Rest, don't RUN.") == ["rest", "don't", "run"]
    assert repeats(word_tokens("one two three four five six seven eight " * 2))
    assert not repeats(word_tokens("one two three four five six seven eight nine"))
    said = word_tokens("You should rest in a dark room now")
    assert share_copied(said, ["Please rest in a dark room."]) == 5 / 8
    assert share_copied(said, ["Rest in a room."]) == 0


def test_rouge_is_of_the_words_of_any_language() -> None:
    said, meant = "The cat sat on the mats.", "the cat is on the mat"
    spanish = ("Niño pequeño con tos", "nin\u0303o pequen\u0303o con fiebre")
    pairs = [(said, meant), spanish, ("Кашель и жар", "кашель, жар"), ("año", "ano"), ("", meant)]
    assert rouge_l(*zip(*pairs, strict=True)) == pytest.approx([5 / 6, 3 / 4, 4 / 5, 0, 0])


def test_notes_and_marks_in_an_answer_are_no_words_of_the_llm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []

    def similar(_: object, answers: list[str], references: list[str]) -> list[float]:
        compared.extend(answers)
        return [0.0 for _ in references]

    monkeypatch.setattr("agent.evaluation.scoring.similarity", similar)
    said = "Eat early in the evening, and raise the head of your bed. Sleep on the left side."
    question = Dialogue("Acid", "I wake with acid in my throat.", said)
    log = EvalLog(tmp_path / "answers.jsonl", Answer)
    first: list[ClaimKind] = ["dose"]
    note, another = (left_out(first, "en", again=again) for again in (False, True))
    cited = f"{said.replace('. ', '. [1] ')} [1]"
    for approach, answer in (("RAG", said), ("RAFT", f"{cited} [?] {note} {another}")):
        log.append(
            Answer(
                question=question.id,
                approach=approach,
                behaviour="RAFT",
                answer=answer,
                ended=True,
                documents=[said],
                letters=["I am 70."],
                prompt_tokens=1,
                tokens=1,
                first_token_ms=1,
                total_ms=1,
            )
        )
    losses = EvalLog(tmp_path / "references.jsonl", ReferenceLoss)
    judged = EvalLog(tmp_path / "judgements.jsonl", Judgement)
    told = score(Mock(), [question], ["RAG", "RAFT"], log, losses, judged)
    assert compared == [said, said]
    cites = ("citation_precision", "citation_recall")
    assert {name: float(told[name]["RAFT"][0]) for name in cites} == dict.fromkeys(cites, 1.0)
    for name in told.keys() - set(cites):
        assert np.array_equal(told[name]["RAFT"], told[name]["RAG"], equal_nan=True), name


def test_intervals_and_holm() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, math.nan])
    told = estimate(values)
    assert told is not None and (told.mean, told.n) == (2.5, 4)
    assert 1.0 <= told.low < 2.5 < told.high <= 4.0
    assert estimate(values) == told
    assert estimate(np.array([math.nan])) is None
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_a_difference_is_told_from_noise() -> None:
    draw = np.random.default_rng(1)
    low = draw.normal(0.5, 0.1, 40)
    high, same = low + draw.normal(0.08, 0.05, 40), low + draw.normal(0.0, 0.05, 40)
    win, noise = differences([("high", high, "low", low), ("same", same, "low", low)])
    assert not win.noise and win.by.low > 0 and win.p < 0.01
    assert noise.noise and noise.by.low < 0 < noise.by.high


def table(**similarities: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    of = {name.replace("_", "-"): values for name, values in similarities.items()}
    retrieving = ("RAG", "RAFT", "auto")
    noise = np.random.default_rng(2)
    cost = {a: (600.0 if a in retrieving else 300.0) + noise.normal(0, 5, 40) for a in of}
    return {"similarity": of, "cost": cost, "total": {a: c / 100 for a, c in cost.items()}}


def test_targets_and_the_oracle() -> None:
    draw = np.random.default_rng(3)
    never = draw.normal(0.6, 0.05, 40)
    looked_up = never + draw.normal(0.02, 0.05, 40)
    worse = {"base": never - 0.2, "RAG": never - 0.1 + draw.normal(0, 0.01, 40)}
    values = table(**worse, fine_tuned=never, RAFT=looked_up, auto=looked_up.copy())
    told = conclude(values, APPROACHES, np.ones(40), "fine-tuned")
    beat, raft, auto = told.targets
    assert beat.met and raft.met
    assert not auto.met  # as good as the best, and no cheaper than always
    policies = {(each.llm, each.retrieval): each for each in told.policies}
    oracle = policies["fine-tuned", "oracle"]
    assert oracle.quality.mean == pytest.approx(np.maximum(never, looked_up).mean())
    assert oracle.retrieved == pytest.approx((looked_up > never).mean())
    assert policies["fine-tuned", "auto"].retrieved == 1.0
    similarity = next(each for each in told.findings if each.metric.name == "similarity")
    assert {"base", "RAG"} <= set(similarity.beats)

    values["cost"]["auto"] = values["cost"]["RAFT"] - 100
    assert conclude(values, APPROACHES, np.ones(40), "fine-tuned").targets[2].met
    values["similarity"]["fine-tuned"] = values["similarity"]["RAG"].copy()
    assert not conclude(values, APPROACHES, np.ones(40), "fine-tuned").targets[0].met


def test_the_best_mean_of_other_questions_is_no_win() -> None:
    draw = np.random.default_rng(4)
    hard = np.arange(40) < 20  # where `auto` does not retrieve
    rag = np.where(hard, 0.3, 0.8) + draw.normal(0, 0.01, 40)
    auto = np.where(hard, math.nan, rag - 0.1 + draw.normal(0, 0.01, 40))
    poor = np.where(hard, math.nan, rag - 0.4 + draw.normal(0, 0.01, 40))
    values = table(RAG=rag, RAFT=poor, auto=auto)
    values["supported"] = {"RAG": rag, "RAFT": poor, "auto": auto}
    values["leaking"] = {name: 1 - of for name, of in values["supported"].items()}
    found = conclude(values, ["RAG", "RAFT", "auto"], np.ones(40), "base").findings
    told = {each.metric.name: each for each in found}
    for name in ("supported", "leaking"):
        assert (told[name].best, told[name].beats) == ("auto", ["RAFT"])
        assert told[name].loses == ["RAG"] and not told[name].noise
    assert str(told["supported"]) == (
        "supported: auto has the best mean (69.8%), but over questions of its own; on those that "
        "they share it loses to RAG and beats RAFT."
    )


async def test_the_loss_of_a_reference_is_that_of_peft(
    tiny_checkpoint: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    import torch
    from llama_index.core.base.llms.types import ChatMessage
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    wanted: dict[str, Any] = {"engine": "huggingface", "model": str(tiny_checkpoint)}
    engine = engines.load(settings.load(**wanted, adapter=str(tiny_adapter), home=tmp_path))
    asked = [ChatMessage(role="user", content="My knee hurts.")]
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_checkpoint)
    messages = [{"role": "user", "content": "My knee hurts."}]
    head = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    messages.append({"role": "assistant", "content": "Rest it."})
    whole = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
    ids = torch.tensor([whole])
    labels = ids.clone()
    labels[:, : len(head["input_ids"])] = -100
    base = AutoModelForCausalLM.from_pretrained(tiny_checkpoint)
    for choice in ("base", "fine-tuned"):
        told = await engine.llm(choice).loss(asked, "Rest it.")
        model: Any = base
        if choice == "fine-tuned":
            model = PeftModel.from_pretrained(base, str(tiny_adapter)).eval()
        with torch.no_grad():
            expected = float(model(input_ids=ids, labels=labels).loss)
        assert told is not None and told.tokens == len(whole) - len(head["input_ids"])
        assert told.nats / told.tokens == pytest.approx(expected, rel=1e-4)


# The judge


class Judge(BaseHTTPRequestHandler):
    """An OpenAI-like server that gives every answer a 4, and finds all but poison faithful."""

    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = "\n".join(message["content"] for message in body["messages"])
        self.asked.append(text)
        if "reference answer" in text.lower():
            said = "4.0\nIt says most of it."
        else:
            said = "NO" if "poison" in text else "YES"
        message = {"role": "assistant", "content": said}
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"]}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        payload = json.dumps(answer | {"choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def judge() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Judge) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def answered(folder: Path, question: Dialogue) -> EvalLog[Answer]:
    told = EvalLog(folder / "answers.jsonl", Answer)
    common: dict[str, Any] = {
        "ended": True,
        "prompt_tokens": 9,
        "tokens": 3,
        "first_token_ms": 1,
        "total_ms": 2,
    }
    for approach, answer in (("base", "Rest."), ("RAG", "Rest."), ("RAFT", "Take poison.")):
        documents = [] if approach == "base" else ["Rest in the dark."]
        told.append(
            Answer(
                question=question.id,
                approach=approach,
                behaviour=approach,
                answer=answer,
                documents=documents,
                letters=["My head throbs."] * len(documents),
                **common,
            )
        )
    return told


async def test_a_judge_marks_each_answer_once(
    judge: str, dialogues: list[Dialogue], tmp_path: Path
) -> None:
    answers = answered(tmp_path, dialogues[0])
    for _ in range(2):
        marks = EvalLog(tmp_path / "judgements.jsonl", Judgement)
        await judge_all("judge", judge, dialogues[:1], ["base", "RAG", "RAFT"], answers, marks)
    asked = len(Judge.asked)
    assert asked == 5  # three marks, and two answers with replies to be faithful to
    assert any(dialogues[0].doctor in text for text in Judge.asked)
    faithful = [marks[dialogues[0].id, a].faithful for a in ("base", "RAG", "RAFT")]
    assert faithful == [None, True, False]
    assert marks[dialogues[0].id, "RAFT"].correctness == 4.0


async def test_a_judge_that_is_away_is_named(
    dialogues: list[Dialogue], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.evaluation.judging.RETRIES", 0)
    answers = answered(tmp_path, dialogues[0])
    marks = EvalLog(tmp_path / "judgements.jsonl", Judgement)
    with pytest.raises(AgentError, match=r"judge at http://127.0.0.1:9/v1 does not judge"):
        await judge_all("judge", "http://127.0.0.1:9/v1", dialogues[:1], ["base"], answers, marks)


# Graded judgements


def judgement(question: str, answer: str, grade: object) -> str:
    return json.dumps({"question": question, "answer": answer, "grade": grade}) + "\n"


def test_judgements_are_of_answers_as_they_lie_around(tmp_path: Path) -> None:
    file = tmp_path / "grades.jsonl"
    file.write_text(
        judgement("knee?", "Question: What helps a sore knee?\nURL: x\nAnswer: Ice and rest.", 4)
        + judgement("knee?", "Rest the knee for two days.", 3)
        + judgement("knee?", "Question: \nAnswer: Run a mile.", 1)
        + judgement("knee?", "Hope this helps.", 2)
        + judgement("knee?", "Question: What is a stye?\nAnswer: ", 4)
        + judgement("gout?", "Thank you for your query.", 4)
        + judgement("rash?", "Drink more milk.", 1)
    )
    told = judgements(file)
    of = {f"{each.title} {each.doctor}": each.id for each in told.answers}
    assert [*of] == [
        "What helps a sore knee? Ice and rest.",
        "Rest the knee for two days. Rest the knee for two days.",
        "Run a mile. Run a mile.",
        "Drink more milk. Drink more milk.",
    ]
    assert told.grades == {"knee?": dict(zip([*of.values()][:3], (3, 2, 0), strict=True))}
    with judged(told, EMBEDDED) as (store, cases):
        assert store.manifest.rows == 4
        assert [(case.turns, case.relevant) for case in cases] == [
            (["knee?"], told.grades["knee?"])
        ]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (judgement("knee?", "Rest it.", "good"), "Line 1 .* needs a whole number as its grade"),
        (judgement("knee?", "Hope this helps.", 4), "no answer with a text and a grade above 1"),
        (judgement("knee?", "Run a mile.", 1), "no answer with a text and a grade above 1"),
    ],
)
def test_judgements_are_checked_before_anything_is_measured(
    tmp_path: Path, line: str, named: str
) -> None:
    file = tmp_path / "grades.jsonl"
    file.write_text(line)
    without_index = settings.load(home=tmp_path, index_dir=tmp_path / "none")
    with pytest.raises(AgentError, match=named):
        retrieval.run(without_index, file, many=1)


# What is refused


def test_behaviours_are_named_as_everywhere() -> None:
    assert parse_behaviours("auto, base") == ["base", "auto"]
    with pytest.raises(AgentError, match="no behaviour 'raft': --behaviours takes base, RAG"):
        parse_behaviours("base,raft")


def test_the_sample_is_asked_by_its_held_out_patients(chosen: Settings) -> None:
    from index_store.split import split

    questions = read_questions(chosen, "sample", None, None)
    assert questions.held_out and len(questions.dialogues) > 30
    others = {dialogue.patient for dialogue in read_rows(str(OTHERS))}
    assert all(
        split(dialogue.patient) == "test" or dialogue.patient in others
        for dialogue in questions.dialogues
    )
    assert len([each for each in questions.dialogues if each.patient in others]) == 33
    fewer = read_questions(chosen, "sample", None, 5)
    assert fewer.dialogues == questions.dialogues[:5]


def test_sources_without_references_are_refused(chosen: Settings, tmp_path: Path) -> None:
    bare = rows([Dialogue("Knee", "My knee hurts.", "")], tmp_path / "bare.jsonl")
    with pytest.raises(AgentError, match=r"bare.jsonl has no question with a reference reply"):
        read_questions(chosen, str(bare), None, None)
    with pytest.raises(StoreError, match="no file"):
        read_questions(chosen, str(tmp_path / "none.jsonl"), None, None)
    renamed = tmp_path / "renamed.jsonl"
    renamed.write_text('{"title": "Knee", "question": "My knee hurts.", "answer": "Rest."}\n')
    columns = "Description=title,Patient=question,Doctor=answer"
    (one,) = read_questions(chosen, str(renamed), columns, None).dialogues
    assert (one.patient, one.doctor) == ("My knee hurts.", "Rest.")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(AgentError, match="something else than an evaluation"):
        claim(tmp_path, {"engine": "llama_cpp"})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(AgentError, match="something else"):
        claim(tmp_path / "file", {"engine": "llama_cpp"})


def test_a_damaged_log_is_named(dialogues: list[Dialogue], tmp_path: Path) -> None:
    answered(tmp_path, dialogues[0])
    path = tmp_path / "answers.jsonl"
    path.write_text("{}\n" + path.read_text())
    with pytest.raises(AgentError, match=r"Line 1 of .*answers.jsonl is damaged"):
        EvalLog(path, Answer)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--behaviours", "RAG,raft"], "no behaviour 'raft'"),
        (["--source", "none.jsonl"], "none.jsonl"),
        (
            ["--columns", "Patient=question,Doctor=answer"],
            "name the source, or leave --columns out",
        ),
    ],
)
def test_the_command_refuses_in_one_sentence(
    sample_index: Path, tmp_path: Path, arguments: list[str], named: str
) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from agent.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "evaluate", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"MEDRAFT_INDEX_DIR": str(sample_index)},
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert named in done.stderr and len(done.stderr.strip().splitlines()) == 1
