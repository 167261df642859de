"""The road from dialogues to an adapter: examples, training, export."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from llama_index.core.base.llms.types import ChatMessage

from agent import settings
from agent.chat.particulars import for_another
from agent.chat.prompting import prompt
from agent.errors import AgentError
from agent.finetuning.examples import CONVERSATIONS, MEDICINES
from agent.finetuning.export import export
from agent.finetuning.prepare import Prepared, prepare
from agent.finetuning.recipe import Recipe, Training
from agent.finetuning.run import last_checkpoint
from agent.finetuning.targets import NONE
from agent.finetuning.training import check, check_reporter, train
from agent.llms import embedded, engines, interface
from agent.llms.choice import SHIPPED_ADAPTER
from agent.llms.interface import ChatLLM, Engine
from agent.settings import Settings
from agent.templates import render
from index_store.cleaning import clean
from index_store.dataset import Dialogue, read_rows
from index_store.embedding import embed_queries, embed_texts
from index_store.split import split

from terminal import Medraft, refused

ROWS = slice(120, 180)  # some of them held out, some for validation
MEDRAFT = str(Path(sys.executable).with_name("medraft"))
QUICK = Training(epochs=1, rank=4, batch_size=4, at_once=4)


@pytest.fixture(scope="module")
def tiny(models_home: Path, tiny_checkpoint: Path) -> Settings:
    """Settings whose model trains in seconds."""
    return settings.load(home=models_home, model=str(tiny_checkpoint))


def once(embed: Callable[[Any, Sequence[str]], Any]) -> Callable[[Any, Sequence[str]], Any]:
    """The same rows are embedded by many tests: here once."""
    known: dict[str, Any] = {}

    def embedded(model: Any, texts: Sequence[str]) -> Any:
        if new := [text for text in dict.fromkeys(texts) if text not in known]:
            known.update(zip(new, embed(model, new), strict=True))
        return np.stack([known[text] for text in texts])

    return embedded


TEXTS, QUERIES = once(embed_texts), once(embed_queries)


@contextmanager
def few(folder: Path, talks: int | None) -> Iterator[None]:
    """Examples are made of the rows and so many conversations, whose texts are embedded once."""
    with (
        patch("agent.finetuning.prepare.grounded", return_value=[]),  # of the whole sample
        patch("agent.finetuning.prepare.CONVERSATIONS", first(CONVERSATIONS, folder, talks)),
        patch("agent.finetuning.prepare.MEDICINES", first(MEDICINES, folder, talks)),
        patch("agent.finetuning.prepare.embed_texts", TEXTS),
        patch("agent.finetuning.prepare.embed_queries", QUERIES),
        patch("index_store.generation.embed_texts", TEXTS),
    ):
        yield


async def make(
    tiny: Settings, folder: Path, recipe: Recipe, rows: slice = ROWS, talks: int | None = 20
) -> Prepared:
    dialogues, cleaning = clean(list(read_rows("sample"))[rows])
    with few(folder, talks):
        return await prepare(tiny, dialogues, cleaning, recipe, folder, source="rows", limit=None)


def first(talks: Path, folder: Path, count: int | None) -> Path:
    """The first of the conversations in a file."""
    folder.mkdir(exist_ok=True)
    few = folder / talks.name
    few.write_text("\n".join(talks.read_text("utf-8").splitlines()[:count]), "utf-8")
    return few


def read(folder: Path, part: str = "train") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{part}.jsonl").read_text("utf-8").splitlines()]


def text_of(row: dict[str, Any]) -> str:
    return "\n".join(m["content"] for m in [*row["prompt"], *row["completion"]])


@pytest.fixture(scope="module")
async def examples(tiny: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    recipe = Recipe(rounds=2, documents=0.8, distractors=2, altered=0)
    await make(tiny, folder, recipe)
    return folder


@pytest.fixture(scope="module")
def replies() -> dict[str, Dialogue]:
    """The dialogues of the examples, by id."""
    return {d.id: d for d in clean(list(read_rows("sample"))[ROWS])[0]}


def test_no_example_holds_its_own_answer_or_its_own_patient(
    examples: Path, replies: dict[str, Dialogue]
) -> None:
    with_documents = 0
    for row in read(examples):
        answer = row["completion"][0]["content"]
        said = "\n".join(m["content"] for m in row["prompt"])
        assert answer not in said
        for id_ in row["relevant"] + row["distractors"]:
            with_documents += 1
            assert replies[id_].doctor in row["prompt"][-1]["content"]
            assert replies[id_].patient not in said
    assert with_documents > 50


def test_no_held_out_patient_is_seen(examples: Path, replies: dict[str, Dialogue]) -> None:
    held_out = [d for d in replies.values() if split(d.patient) == "test"]
    validation = [d for d in replies.values() if split(d.patient) == "validation"]
    assert held_out and validation
    trained = "\n".join(map(text_of, read(examples)))
    steered = "\n".join(map(text_of, read(examples, "validation")))
    for dialogue in held_out:
        assert dialogue.doctor not in trained + steered
        assert dialogue.patient not in trained + steered
    for dialogue in validation:
        assert dialogue.doctor not in trained and dialogue.patient in steered


def test_the_shares_are_those_of_the_recipe(examples: Path, replies: dict[str, Dialogue]) -> None:
    trained = [d.patient for d in replies.values() if split(d.patient) == "train"]
    rows = [r for r in read(examples) if any(p in r["prompt"][-1]["content"] for p in trained)]
    documents = [row for row in rows if row["relevant"] or row["distractors"]]
    oracle = [row for row in documents if row["relevant"]]
    # A reply that is too long for an answer is not learned from.
    assert 2 * (len(trained) - 1) <= len(rows) <= 2 * len(trained)
    # 0.8 of about 100, less what the search finds and nothing can be quoted of
    assert 0.2 < len(documents) / len(rows) < 0.8
    assert 0.4 < len(oracle) / len(documents) < 0.95
    sizes = [len(row["relevant"]) + len(row["distractors"]) for row in documents]
    assert set(sizes) == {1, 3} and sizes.count(3) > sizes.count(1)
    assert {len(row["relevant"]) for row in oracle} == {1, 2}
    assert 0.05 < sum(len(row["prompt"]) > 2 for row in rows) / len(rows) < 0.3  # 0.15
    by_place = [
        text.index(replies[row["relevant"][0]].doctor)
        < text.index(replies[row["distractors"][0]].doctor)
        for row in oracle
        if row["distractors"] and (text := row["prompt"][-1]["content"])
    ]
    assert any(by_place) and not all(by_place)  # shuffled


def test_what_is_learned_with_documents_is_quoted_from_them_or_says_that_none_fits(
    examples: Path, replies: dict[str, Dialogue]
) -> None:
    cited, refused = 0, 0
    for row in read(examples):
        answer, last = row["completion"][0]["content"], row["prompt"][-1]["content"]
        quoted = re.findall(r"([^.]*[^. ]) \[(\d)\]\.", answer)
        for sentence, number in quoted:
            reply = last.split(f"\n[{number}] ")[1].split("\n[")[0]
            assert sentence.strip().rpartition(". ")[2] in reply
        if not row["relevant"] + row["distractors"]:
            assert not quoted
        elif quoted:
            cited += 1
        else:
            assert not row["relevant"] and answer.startswith(NONE)
            refused += 1
    assert cited > 10 and refused > 5


async def test_changed_documents_are_changed_in_the_answer_too(
    tiny: Settings, tmp_path: Path, replies: dict[str, Dialogue]
) -> None:
    await make(tiny, tmp_path, Recipe(documents=1, oracle=1, altered=1))
    whole = {d.doctor for d in replies.values()}
    changed = 0
    for row in read(tmp_path):
        last, answer = row["prompt"][-1]["content"], row["completion"][0]["content"]
        for sentence, number in re.findall(r"([^.]*[^. ]) \[(\d)\]\.", answer):
            reply = last.split(f"\n[{number}] ")[1].split("\n[")[0].split("\nNow this")[0]
            assert sentence.strip().rpartition(". ")[2] in reply
            changed += reply.strip() not in whole
    assert changed > 5


async def test_the_embedded_llm_learns_from_as_much_of_a_reply_as_it_reads(
    models_home: Path, tmp_path: Path, replies: dict[str, Dialogue]
) -> None:
    embedded_llm = settings.load(home=models_home, model="embedded", engine="llama_cpp")
    recipe = Recipe(documents=1, altered=0, multi_turn=0)
    await make(embedded_llm, tmp_path, recipe, slice(120, 140))
    shorter = 0
    for row in read(tmp_path):
        last = row["prompt"][-1]["content"]
        for shown in [replies[id_] for id_ in row["relevant"] + row["distractors"]]:
            message = last.split("Now this patient writes:\n\n")[1].split("\n\nAnswer with")[0]
            earlier = [m["content"] for m in row["prompt"][:-1] if m["role"] == "user"]
            said = "\n".join([*earlier, message])
            may_be_said = for_another(shown.doctor, shown.letter, said)
            assert may_be_said and may_be_said in last
            shorter += shown.doctor not in last
    assert shorter > 5


async def test_an_example_is_the_prompt_that_the_engine_sends(
    examples: Path, replies: dict[str, Dialogue], models_home: Path
) -> None:
    engine = engines.load(settings.load(engine="llama_cpp", model="embedded", home=models_home))
    seen = set()
    for row in read(examples)[:40]:
        ids = row["relevant"] + row["distractors"]
        last = row["prompt"][-1]["content"]
        found = sorted((replies[i].doctor for i in ids), key=last.index)
        message = last
        if found:
            message = last.split("Now this patient writes:\n\n")[1].split("\n\nAnswer with")[0]
        history = [ChatMessage(**m) for m in row["prompt"][1:-1]]
        served = await prompt(engine.base, "fine-tuned", history, message, found, 240)
        assert interface.as_dicts(served.messages) == row["prompt"]
        seen.add((bool(found), bool(history)))
    assert len(seen) == 4


async def test_the_same_seed_gives_the_same_examples(tiny: Settings, tmp_path: Path) -> None:
    made = []
    for folder, seed in (("one", 1), ("same", 1), ("other", 2)):
        await make(tiny, tmp_path / folder, Recipe(rounds=1, seed=seed), slice(20), talks=4)
        made.append((tmp_path / folder / "train.jsonl").read_text("utf-8"))
    assert made[0] == made[1] != made[2]


async def test_an_answer_longer_than_can_be_said_is_not_learned(
    tiny: Settings, tmp_path: Path
) -> None:
    rows = [
        Dialogue(f"Q. Number {n}?", f"My knee number {n} hurts.", f"Rest {n} days. " * length)
        for n, length in ((n, 2 if n % 2 else 200) for n in range(40))
    ]
    with few(tmp_path, 20):
        made = await prepare(tiny, *clean(rows), Recipe(), tmp_path, source="rows", limit=None)
    assert made.dialogues["too long"] == 20


async def test_a_letter_longer_than_can_be_read_is_not_learned(
    tiny: Settings, tmp_path: Path
) -> None:
    rows = [
        Dialogue(f"Q. Number {n}?", f"My knee number {n} hurts. " * length, f"Rest {n} days.")
        for n, length in ((n, 1 if n else 900) for n in range(20))
    ]
    with few(tmp_path, 4):
        made = await prepare(tiny, *clean(rows), Recipe(), tmp_path, source="rows", limit=None)
    assert made.dialogues["too long"] == 1 and made.examples["train"] > 10


async def test_what_is_learned_in_spanish_is_asked_as_it_is_served(
    tiny: Settings, tmp_path: Path
) -> None:
    rows = [
        Dialogue(f"P. Rodilla {n}", f"Me duele mucho la rodilla {n} al andar.", "Repose unos días.")
        for n in range(20)
    ]
    with few(tmp_path, 1):
        await prepare(tiny, *clean(rows), Recipe(), tmp_path, source="rows", limit=None)
    systems = {row["prompt"][0]["content"] for row in read(tmp_path)}
    order = "Answer in Spanish, the language in which the patient writes."
    assert systems == {render("system"), f"{render('system')}\n\n{order}"}


async def test_a_data_set_smaller_than_k_plus_one_is_one_sentence(
    tiny: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AgentError, match="need 21 at least"):
        await make(tiny, tmp_path, Recipe(distractors=20), rows=slice(20))


def test_only_the_answer_and_its_end_are_learned_and_padding_ends_nothing(
    examples: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    from agent.finetuning.training import _trainer

    trainer = _trainer(str(tiny_checkpoint), QUICK, examples, tmp_path)
    tokenizer = trainer.processing_class
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    rows = read(examples)
    for row, prepared in list(zip(rows, trainer.train_dataset, strict=True))[::10]:
        learned = [token for token in prepared["labels"] if token != -100]
        answer = row["completion"][0]["content"]
        assert tokenizer.decode(learned) == f"{answer}<|im_end|>\n"
        assert learned[-2] == end
        assert tokenizer.decode(prepared["input_ids"]).startswith("<|im_start|>system")
    assert tokenizer.pad_token_id != end
    lengths = [len(p["labels"]) for p in trainer.train_dataset]
    short, long = (trainer.train_dataset[lengths.index(pick(lengths))] for pick in (min, max))
    batch = trainer.data_collator([short, long])
    assert (batch["labels"][0][len(short["labels"]) :] == -100).all()


def test_the_loss_is_that_of_the_model_itself(
    examples: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    import torch

    from agent.finetuning.training import _trainer

    trainer = _trainer(str(tiny_checkpoint), QUICK, examples, tmp_path)
    batch = trainer.data_collator([trainer.train_dataset[n] for n in range(4)])
    with torch.no_grad():
        ours = trainer.compute_loss(trainer.model, dict(batch))
        plain = trainer.model(**batch).loss
    assert ours.item() == pytest.approx(plain.item(), rel=2e-3)


def test_the_adapter_of_a_quantized_model_is_trained_in_32_bits(
    examples: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from agent.finetuning import training

    load = training._model

    def quantized(*wanted: Any) -> Any:
        model, tokenizer = load(*wanted)
        model.is_loaded_in_4bit = True  # as TRL asks
        return model, tokenizer

    monkeypatch.setattr(training, "_model", quantized)
    trainer = training._trainer(str(tiny_checkpoint), QUICK, examples, tmp_path)
    trained = [each for each in trainer.model.parameters() if each.requires_grad]
    assert trained and {each.dtype for each in trained} == {torch.float32}


class States:
    """Of a GPU: they take no index of another device, as the CPU's would."""

    def __init__(self, states: Any) -> None:
        self.states, self.device = states, states.device

    def __getitem__(self, at: tuple[Any, Any]) -> Any:
        if isinstance(at[0], slice):
            return States(self.states[at])
        assert {index.device for index in at} == {self.device}
        return self.states[at]


def test_the_loss_of_a_model_on_two_devices_comes_back_to_the_first() -> None:
    import torch
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    from agent.finetuning.trainer import AnswerTrainer

    # Tensors without values, which refuse to meet a tensor of another device, as those of a GPU do.
    with FakeTensorMode(shape_env=ShapeEnv()):
        ids = torch.ones(2, 6, dtype=torch.long, device="cpu:0")
        count = torch.ones((), dtype=torch.long, device="cpu:0")
        hidden = torch.ones(2, 6, 8, device="cpu:1")
        head = torch.ones(8, 32, device="cpu:1")
        causal = SimpleNamespace(
            model=lambda **_: SimpleNamespace(last_hidden_state=States(hidden)),
            lm_head=lambda learned: learned @ head,
        )
        outer = SimpleNamespace(get_base_model=lambda: causal)
        trainer: Any = SimpleNamespace(
            accelerator=SimpleNamespace(unwrap_model=lambda model: model)
        )
        batch = {"input_ids": ids, "attention_mask": ids, "labels": ids}
        loss = AnswerTrainer.compute_loss(trainer, outer, batch, num_items_in_batch=count)
        assert str(loss.device) == "cpu:0"


def test_a_head_that_is_scaled_is_refused_before_weights_load(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    scaled = Path(shutil.copytree(tiny_checkpoint, tmp_path / "scaled"))
    (scaled / "model.safetensors").unlink()
    config = json.loads((scaled / "config.json").read_text())
    (scaled / "config.json").write_text(json.dumps(config | {"final_logit_softcapping": 30.0}))
    from agent.finetuning import training

    with pytest.raises(AgentError, match="scales what its head says"):
        training._model(str(scaled), "fp32", four_bit=False)


@pytest.mark.parametrize("where", ["trainer", "train"])
def test_a_training_that_memory_does_not_hold_is_one_sentence(
    tiny: Settings, examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    import torch

    from agent.finetuning import training

    def full(*_: Any, **__: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    later = SimpleNamespace(train=full)
    monkeypatch.setattr(training, "_trainer", full if where == "trainer" else lambda *_: later)
    with pytest.raises(AgentError, match=r"memory is too small for 4 examples.*--at-once") as told:
        train(tiny, QUICK, examples, tmp_path / "adapter")
    assert "\n" not in str(told.value) and "add --four-bit" in str(told.value)


@pytest.mark.parametrize("four_bit", [False, True])
def test_weights_that_spill_over_to_the_cpu_are_not_trained(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, four_bit: bool
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from agent.finetuning.training import _model

    load = AutoModelForCausalLM.from_pretrained

    def spilt(source: str, **placed: Any) -> Any:
        if "quantization_config" in placed:  # bitsandbytes' own words
            raise ValueError("Some modules are dispatched on the CPU or the disk. Make sure ...")
        return load(source)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", spilt)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        _model(str(tiny_checkpoint), "fp16", four_bit)


def test_qlora_without_bitsandbytes_is_one_sentence(
    examples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.finetuning import training

    monkeypatch.setattr(training, "device", lambda: "cuda")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(AgentError, match=r"needs bitsandbytes.*\[gpu\]"):
        check(replace(QUICK, four_bit=True), examples)


def test_a_run_that_was_killed_goes_on_and_ends_with_an_adapter(
    medraft_here: Medraft, tiny: Settings, examples: Path, tmp_path: Path
) -> None:
    output, few = tmp_path / "adapter", tmp_path / "few"
    shutil.copytree(examples, few)
    for part, count in (("train", 140), ("validation", 20)):
        rows = (examples / f"{part}.jsonl").read_text("utf-8").splitlines(keepends=True)
        (few / f"{part}.jsonl").write_text("".join(rows[:count]), "utf-8")
    given = ["finetune", "train", "--examples", str(few), "--output", str(output)]
    given += ["--rank", "4", "--batch-size", "4"]
    env = {"MEDRAFT_MODEL": tiny.model, "MEDRAFT_HOME": str(tiny.home)}
    with subprocess.Popen([MEDRAFT, *given], env=os.environ | env) as first:
        while last_checkpoint(output) is None:
            assert first.poll() is None
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
    assert not (output / "adapter_config.json").exists()
    half = output / "checkpoints" / "checkpoint-999"  # killed where the state was being written
    half.mkdir()
    (half / "trainer_state.json").write_text('{"best', "utf-8")

    with pytest.raises(AgentError, match="other settings"):
        train(tiny, replace(QUICK, learning_rate=0.01), few, output)

    second = medraft_here(*given, env=env)
    assert second.returncode == 0, second.stderr
    assert "min left" in second.stderr
    record = json.loads((output / "training.json").read_text("utf-8"))
    assert record["resumed_from_step"] >= 1
    steps = [point["step"] for point in record["history"] if "loss" in point]
    assert steps[-1] == record["steps"] and steps == sorted(set(steps))
    losses = [point["validation_loss"] for point in record["history"] if "validation_loss" in point]
    assert losses[-1] < losses[0]
    assert record["best_validation_loss"] == pytest.approx(min(losses), abs=1e-3)
    assert record["versions"]["trl"] and record["examples"]["recipe"]["seed"] == 0
    assert (output / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in output.iterdir()) == [
        *("adapter_config.json", "adapter_model.safetensors", "loss.png", "training.json")
    ]
    config = json.loads((output / "adapter_config.json").read_text("utf-8"))
    assert config["r"] == 4 and config["bias"] == "none" and not config["use_dora"]
    assert config["base_model_name_or_path"] == Path(tiny.model).name

    with pytest.raises(AgentError, match="holds an adapter already"):
        train(tiny, QUICK, few, output)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "is empty: give a larger data set"),
        (
            '{"prompt": [',
            r"Line 1 of .*train.jsonl .*Make it anew with `medraft finetune examples`",
        ),
        ('{"prompt": []}', r"Line 1 of .*train.jsonl has no prompt and completion\. Make it anew"),
    ],
)
def test_examples_that_are_damaged_are_one_sentence(tmp_path: Path, line: str, said: str) -> None:
    for part in ("train", "validation"):
        (tmp_path / f"{part}.jsonl").write_text(line, "utf-8")
    with pytest.raises(AgentError, match=said):
        check(QUICK, tmp_path)


@pytest.mark.parametrize(
    ("training", "said"),
    [
        (replace(QUICK, rank=17), "--rank 17"),
        (replace(QUICK, rank=0), "--rank 0"),
        (replace(QUICK, batch_size=6), "--batch-size 6"),
        (replace(QUICK, four_bit=True), "CUDA"),
    ],
)
def test_bad_settings_are_one_sentence_before_a_model_is_loaded(
    training: Training, said: str, examples: Path
) -> None:
    with pytest.raises(AgentError, match=said):
        check(training, examples)


def test_missing_examples_are_one_sentence(tiny: Settings, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="medraft finetune examples"):
        train(tiny, QUICK, tmp_path, tmp_path / "adapter")


def test_a_source_that_is_not_there_is_one_sentence(medraft_here: Medraft, tmp_path: Path) -> None:
    given = ("--source", "nowhere.jsonl", "--output", str(tmp_path))
    refused(medraft_here("finetune", "examples", *given), "There is no file nowhere.jsonl")


def test_a_merged_checkpoint_answers_as_model_and_adapter_do(
    tiny: Settings, tiny_adapter: Path, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    export(tiny, tiny_adapter, "checkpoint", tmp_path / "merged")
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    base = AutoModelForCausalLM.from_pretrained(tiny.model)
    before = base(ids).logits
    adapted = PeftModel.from_pretrained(base, str(tiny_adapter))
    assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-3)
    assert not torch.allclose(merged(ids).logits, before, atol=1e-2)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template
    with pytest.raises(AgentError, match="there already"):
        export(tiny, tiny_adapter, "checkpoint", tmp_path / "merged")


PROMPTS = [
    "I have bad acne. How do I get rid of it?",
    "my head throbs on one side twice a month",
    "Hello doctor, Can I take ibuprofen with warfarin?",
    "My son of six coughs at night.",
    "Hello doctor, It burns when I pass urine.",
    "Why am I always tired?",
    "Hello doctor, Acid comes up to my throat when I lie down.",
    "Thank you, that helps.",
]
TOKENS = 12


async def greedy(llm: ChatLLM, question: str) -> str:
    text = ""
    messages = (await prompt(llm, "fine-tuned", [], question, [], TOKENS)).messages
    stream = await llm.astream_chat(messages, max_tokens=TOKENS, repetition_penalty=1.0)
    async with aclosing(stream):
        async for response in stream:
            text = response.message.content or ""
    return text


def near_tie(tokenizer: Any, model: Any, question: str, answers: Sequence[str]) -> float:
    """How far apart the logits of the two tokens are at which two answers part."""
    import torch

    system = {"role": "system", "content": render("system")}
    user = {"role": "user", "content": question}
    head = tokenizer.apply_chat_template([system, user], add_generation_prompt=True, tokenize=False)
    one, other = (tokenizer(head + a, add_special_tokens=False)["input_ids"] for a in answers)
    place = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    with torch.no_grad():
        logits = model(torch.tensor([one[:place]])).logits[0, -1]
    return abs(float(logits[one[place]] - logits[other[place]]))


@pytest.fixture(scope="module")
def both_engines(models_home: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Engine]:
    """llama.cpp and transformers on the same 32-bit weights, with the adapter that ships."""
    full = tmp_path_factory.mktemp("parity") / "SmolLM2.F32.gguf"
    embedded.rewrite(full, "F32")
    shipped = str(SHIPPED_ADAPTER)
    wanted: dict[str, Any] = {"home": models_home, "adapter": shipped}
    return [
        engines.load(settings.load(engine="llama_cpp", model=str(full), **wanted)),
        engines.load(settings.load(engine="huggingface", model="embedded", **wanted)),
    ]


@pytest.mark.parametrize("choice", ["base", "fine-tuned"])
async def test_llama_cpp_and_peft_answer_alike(
    both_engines: list[Engine], models_home: Path, choice: Any
) -> None:
    """With the same 32-bit weights; what 8 bits change is measured by benchmarks/parity.py."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parted = []
    for question in PROMPTS:
        answers = [await greedy(engine.llm(choice), question) for engine in both_engines]
        if answers[0] != answers[1]:
            parted.append((question, answers))
    assert len(parted) <= 1, parted
    if not parted:
        return
    shipped = str(SHIPPED_ADAPTER)
    checkpoint = embedded.transformers_directory(models_home / "models")
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint)
    if choice == "fine-tuned":
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, shipped)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    for question, answers in parted:
        assert near_tie(tokenizer, model, question, answers) < 0.05


@pytest.mark.parametrize(
    "name, said", [("nobody", "--report-to takes .*tensorboard"), ("comet_ml", "pip install")]
)
def test_where_nothing_can_be_reported_to_is_told(name: str, said: str) -> None:
    check_reporter("none")
    with pytest.raises(AgentError, match=said):
        check_reporter(name)
