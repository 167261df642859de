"""`medraft finetune retriever`: pairs, batches, a killed run, the sentences for bad data."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.errors import AgentError
from agent.evaluation.parts import embedding as compared
from agent.evaluation.parts import relevance
from agent.finetuning.recipe import RetrieverRecipe
from agent.finetuning.retriever import pairs, training
from agent.finetuning.retriever.pairs import Row
from agent.finetuning.run import last_checkpoint
from index_store.columns import Columns
from index_store.dataset import Dialogue, read_rows
from index_store.embedding import (
    EMBEDDED,
    MINILM,
    embed_queries,
    identity,
    load_embedding,
    transformer,
)
from index_store.errors import StoreError
from index_store.split import Split, split

from terminal import Medraft, refused

MEDRAFT = str(Path(sys.executable).with_name("medraft"))
SMALL = ("--rounds", "1", "--batch-size", "4", "--tokens", "16", "--rank", "2")
SMALL_RECIPE = RetrieverRecipe(rounds=1, batch_size=4, tokens=16, rank=2)


def row(label: str, number: int) -> Row:
    said = f"Case {number} of {label}. It came {number} days ago. For {number} weeks it stays."
    reply = f"Number {number} of the replies about {label}."
    return Row(Dialogue(f"Q. {label} {number}", said, reply), label, named=True)


ROWS = [row(label, number) for label in ("gout", "acne", "asthma") for number in range(4)]


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    return path


def test_a_pair_is_of_one_label_and_never_a_row_with_itself() -> None:
    drawn = pairs.draw(ROWS, RetrieverRecipe(rounds=3), {})
    of = {each.text: each for each in ROWS}
    for pair in drawn:
        assert pair.negative is None
        if found := of.get(pair.positive):
            assert found.label == pair.label
            assert pair.anchor not in found.dialogue.patient
    assert any(pair.positive == pair.label for pair in drawn)
    own = {(each.dialogue.title, each.dialogue.doctor) for each in ROWS}
    assert own & {(pair.anchor, pair.positive) for pair in drawn}
    assert drawn == pairs.draw(ROWS, RetrieverRecipe(rounds=3), {})


def test_a_row_without_a_label_has_its_own_reply_only() -> None:
    alone = [Row(each.dialogue, each.dialogue.id, named=False) for each in ROWS]
    replies = {each.dialogue.doctor for each in alone}
    assert {pair.positive for pair in pairs.draw(alone, RetrieverRecipe(), {})} == replies


def test_a_letter_goes_to_what_is_of_its_label_and_never_to_itself(tmp_path: Path) -> None:
    letters: list[dict[str, object]] = [
        {"patient": "My big toe glows at night.", "gist": "gout"},
        {"patient": "Toe again, after the mussels.", "gist": "gout"},
        {"patient": "I snore.", "doctor": "Lie on your side.", "gist": "snoring"},
        {"patient": "Alone in the world.", "gist": "nobody else's"},
        {"patient": "Toe like fire.", "gist": "gout", "held_out": True},
    ]
    read = pairs.read_letters(write(tmp_path / "letters.jsonl", letters), "gist")
    drawn = pairs.draw(ROWS, RetrieverRecipe(rounds=40), {}, read)
    found: dict[str, set[str]] = {each.patient: set() for each in read}
    for pair in drawn:
        found.get(pair.anchor, set()).add(pair.positive)
    gout = {each.text for each in ROWS if each.label == "gout"}
    assert [found[each.patient] for each in read] == [
        gout | {read[1].patient},
        gout | {read[0].patient},
        {"Lie on your side."},
        set(),
        set(),
    ]
    *of_rows, last = pairs.questions(ROWS, read)
    assert last == pairs.Question("Toe like fire.", "gout", "")
    assert [each.row for each in of_rows] == [row.dialogue.id for row in ROWS if row.named]
    with pytest.raises(AgentError, match=r"line 1.*`patient` and `illness`"):
        pairs.read_letters(tmp_path / "letters.jsonl", "illness")


def test_letters_may_have_numbers_as_labels_empty_lines_and_any_character(tmp_path: Path) -> None:
    path = tmp_path / "letters.jsonl"
    path.write_text(
        '{"patient": "My\u2028toe.", "gist": 7, "doctor": null}\n\n'
        '{"patient": "Toe.", "gist": "gout"}\r\n',
        encoding="utf-8",
    )
    assert pairs.read_letters(path, "gist") == [
        pairs.Letter("My\u2028toe.", "", "7"),
        pairs.Letter("Toe.", "", "gout"),
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"patient": null, "gist": "gout"}', r"line 3\): .*texts as `patient` and `gist`"),
        ('{"patient": "Toe.", "gist": ["gout"]}', r"line 3\)"),
        ('{"patient": "Toe.", "gist": "gout", "doctor": 5}', r"line 3\).*`doctor`"),
        ('{"patient": "Toe.", "gist": "gout", "held_out": "no"}', r"line 3\).*true or false"),
        ('["Toe."]', r"line 3\)"),
        ("Toe.", r"Line 3 of .* is not JSON"),
    ],
)
def test_a_line_that_is_no_letter_is_one_sentence(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "letters.jsonl"
    path.write_text(f'{{"patient": "Toe.", "gist": "gout"}}\n\n{line}\n', encoding="utf-8")
    with pytest.raises(AgentError, match=says) as caught:
        pairs.read_letters(path, "gist")
    assert "\n" not in str(caught.value)
    with pytest.raises(AgentError, match="cannot be read: No such file"):
        pairs.read_letters(tmp_path / "none.jsonl", "gist")


def test_no_label_comes_twice_in_a_batch_be_it_of_a_negative() -> None:
    from agent.finetuning.retriever.loss import one_of_a_label

    negatives = {each.dialogue.id: [n for n in ROWS if n.label != each.label] for each in ROWS}
    drawn = pairs.draw(ROWS, RetrieverRecipe(rounds=4), negatives)
    data = training._dataset(drawn)
    batches = list(one_of_a_label(data, batch_size=3, drop_last=False))
    assert sorted({place for batch in batches for place in batch}) == list(range(len(drawn)))
    for batch in batches:
        labels = [label for place in batch for label in data[place]["label"]]
        assert len(labels) == len(set(labels))


def test_the_distance_to_the_old_vectors_is_nothing_before_the_first_step() -> None:
    from agent.finetuning.retriever.loss import RankedAndKept

    model = load_embedding(MINILM)._model
    features = [model.preprocess([f"{word} {n}" for n in range(3)]) for word in ("gout", "acne")]
    nothing = RankedAndKept(model, model, 0.0)(features, None)
    assert RankedAndKept(model, model, 5.0)(features, None).item() == pytest.approx(
        nothing.item(), abs=1e-5
    )


@pytest.mark.parametrize("rank", [0, 2])
def test_what_is_loaded_in_16_bits_to_search_is_trained_in_32(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rank: int
) -> None:
    import torch

    from index_store.averaging import Averaging

    monkeypatch.setattr("index_store.embedding.device", lambda: "cuda")
    assert next(load_embedding(MINILM)._model.parameters()).dtype == torch.float16
    recipe = RetrieverRecipe(rank=rank, batch_size=2, kept=1.0)
    model = training._to_learn(MINILM, recipe)
    parts: dict[Split, list[Row]] = {"train": ROWS, "validation": ROWS[:1], "test": []}
    averaging = Averaging(training._learning(model), recipe.scale)
    trainer = training._trainer(model, averaging, MINILM, parts, [], recipe, tmp_path)
    for each in (model, trainer.loss._old[0]):
        assert {parameter.dtype for parameter in each.parameters()} == {torch.float32}


def test_a_model_is_judged_as_it_will_be_kept_and_then_learns_on() -> None:
    import torch
    from peft import LoraConfig

    from index_store.averaging import Averaging

    model = load_embedding(MINILM)._model
    before = torch.tensor(model.encode(["gout"]))
    model.add_adapter(LoraConfig(r=2, target_modules=["query"], task_type="FEATURE_EXTRACTION"))
    averaging = Averaging(training._learning(model), 0.5)
    ups = [p for name, p in model.named_parameters() if ".lora_B." in name]
    with torch.no_grad():
        for up in ups:
            up.fill_(0.4)
    learned = torch.tensor(model.encode(["gout"]))
    with averaging.applied():
        assert all(torch.all(up == 0.2) for up in ups)
        between = torch.tensor(model.encode(["gout"]))
    assert torch.equal(torch.tensor(model.encode(["gout"])), learned)
    assert torch.dist(before, between) < torch.dist(before, learned)
    averaging.apply()
    assert torch.equal(torch.tensor(model.encode(["gout"])), between)


def test_labels_come_from_a_column_and_the_split_is_the_projects() -> None:
    parts, _ = pairs.read("sample", Columns(), None, "condition")
    assert sum(len(rows) for rows in parts.values()) == len(list(read_rows("sample")))
    for part, rows in parts.items():
        assert {split(each.dialogue.patient) for each in rows} == {part}
        assert all(each.named and each.label for each in rows)
    assert len({each.label for rows in parts.values() for each in rows}) == 133


def test_a_row_that_cannot_be_used_is_skipped_and_a_number_is_a_label(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {
            "Description": f"Q {n}",
            "Patient": f"I hurt {n}",
            "Doctor": f"Rest {n} days",
            "kind": n % 7,
        }
        for n in range(200)
    ]
    source = write(tmp_path / "rows.jsonl", [*rows, {**rows[0], "Patient": ["I hurt"]}])
    parts, cleaning = pairs.read(str(source), Columns(), None, "kind")
    assert str(cleaning) == "201 read, 200 kept, dropped: 1 not text"
    read = [each for part in parts.values() for each in part]
    assert all(each.named for each in read)
    assert {each.dialogue.title: each.label for each in read} == {
        f"Q {n}": str(n % 7) for n in range(200)
    }


@pytest.mark.parametrize(
    ("rows", "options", "says"),
    [
        ([{"Description": f"Q {n}", "Patient": f"I hurt {n}", "Doctor": f"Rest {n} days"}
          for n in range(10)], (), r"too few dialogues.*10 read, 10 kept.*give a larger"),
        ([{"Description": "", "Patient": "", "Doctor": f"Rest {n} days"} for n in range(10)],
         (), r"too few dialogues.*10 empty or missing question"),
        ([{"Doctor": "Rest."}], (), r"has no column Patient; it has Doctor"),
        ([{"Description": "Q", "Patient": "I hurt", "Doctor": "Rest."}], ("--label", "illness"),
         r"has no column illness to be the --label; it has Description, Patient, Doctor"),
        ([{"Description": f"Q {n}", "Patient": f"I hurt {n}", "Doctor": f"Rest {n} days",
           "kind": f"{n % 2}"} for n in range(200)], ("--label", "kind"),
         r"--label has 2 different values, and a batch of 32 pairs needs 32"),
        ([{"Doctor": "Rest."}], ("--letters", "letters.jsonl"), r"name their column by --label"),
    ],
)  # fmt: skip
def test_bad_data_is_one_sentence(
    medraft_here: Medraft,
    tmp_path: Path,
    rows: list[Mapping[str, str]],
    options: tuple[str, ...],
    says: str,
) -> None:
    source = write(tmp_path / "rows.jsonl", rows)
    given = ("--source", str(source), "--output", str(tmp_path / "out"), *options)
    done = medraft_here("finetune", "retriever", *given)
    refused(done)
    assert re.search(says, done.stderr), done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow  # loads a model itself
def test_a_run_that_was_killed_goes_on_and_ends_with_a_model(
    medraft_here: Medraft,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [
        {"Description": each.title, "Patient": each.patient[:160], "Doctor": each.doctor[:160]}
        for each in list(read_rows("sample"))[:100]
    ]
    broken = {**rows[0], "Doctor": 3}
    source, output = write(tmp_path / "rows.jsonl", [*rows, broken]), tmp_path / "mine"
    read = ("--source", str(source), "--limit", "101", "--columns", "Description=Description")
    given = (*read, "--output", str(output), *SMALL)
    with subprocess.Popen([MEDRAFT, "finetune", "retriever", *given]) as first:
        while last_checkpoint(output) is None:
            assert first.poll() is None
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
    assert not (output / "adapter_config.json").exists()

    parts, _ = pairs.read(str(source), Columns(), None, None)
    told = {"source": str(source), "limit": 101, "label": None}
    with pytest.raises(AgentError, match="other settings"):
        training.train(MINILM, parts, RetrieverRecipe(seed=7), output, told=told)

    class Killed(BaseException):
        """While the relevance is fitted, or the result is measured."""

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr("agent.finetuning.retriever.relevance.write", killed)
        training.train(MINILM, parts, SMALL_RECIPE, output, told=told)
    assert not (output / "training.json").exists() and last_checkpoint(output)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(compared, "compare", killed)
        medraft_here("finetune", "retriever", *given)
    assert "step 0: held-out nDCG@10" not in capsys.readouterr().err
    assert (output / "training.json").exists() and not (output / "README.md").exists()
    with pytest.raises(AgentError, match="holds an adapter already"):
        training.train(MINILM, parts, RetrieverRecipe(seed=7), output, told=told)
    made = (output / "adapter_model.safetensors").stat().st_mtime_ns

    second = medraft_here("finetune", "retriever", *given)
    assert second.returncode == 0, second.stderr
    assert "held-out nDCG@10" not in second.stderr
    assert (output / "adapter_model.safetensors").stat().st_mtime_ns == made
    assert "Rows: 101 read, 100 kept, dropped: 1 not text" in second.stdout
    assert "A question finds its own reply: " in second.stdout
    assert shlex.join(["medraft", "index", "build", *read]) in second.stdout
    record = json.loads((output / "training.json").read_text("utf-8"))
    assert record["resumed_from_step"] >= 1 and record["model"] == MINILM
    assert "same_label" not in str(record["history"])
    assert {path.name for path in output.iterdir()} == {
        *("README.md", "adapter_config.json", "adapter_model.safetensors", "loss.png"),
        "training.json",
    }
    assert "Before and after" in (output / "README.md").read_text("utf-8")

    with pytest.raises(AgentError, match="holds an adapter already"):
        training.train(MINILM, parts, RetrieverRecipe(), output, told=told)
    with pytest.raises(AgentError, match=f"none is trained upon another.*{MINILM}"):
        training.base_of(str(output))

    name = identity(str(output))
    assert name.startswith("mine-") and name != identity(EMBEDDED)
    new, old = load_embedding(str(output)), load_embedding(MINILM)
    assert not np.allclose(embed_queries(new, ["gout"]), embed_queries(old, ["gout"]), atol=1e-4)


def test_a_retriever_that_memory_does_not_hold_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def full(*_: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried to allocate 1 GiB")

    monkeypatch.setattr(training, "_trainer", full)
    parts: dict[Split, list[Row]] = {"train": ROWS, "validation": ROWS[:1], "test": []}
    recipe = RetrieverRecipe(batch_size=3)
    with pytest.raises(AgentError, match=r"memory is too small for 3 pairs.*--batch-size"):
        training.train(MINILM, parts, recipe, tmp_path / "mine", told={})


def test_more_tokens_than_the_model_has_places_for_are_refused_before_the_folder_is_made(
    tmp_path: Path,
) -> None:
    parts: dict[Split, list[Row]] = {"train": ROWS, "validation": ROWS[:1], "test": []}
    recipe, output = RetrieverRecipe(batch_size=3, tokens=513), tmp_path / "mine"
    with pytest.raises(AgentError, match=r"--tokens 513 is out of range: all-MiniLM.* reads 512\."):
        training.train(MINILM, parts, recipe, output, told={})
    assert not output.exists()


def test_a_place_for_padding_is_no_place_of_a_token() -> None:
    from transformers import (
        BertConfig,
        BertModel,
        ModernBertConfig,
        ModernBertModel,
        RobertaConfig,
        RobertaModel,
    )

    tiny: dict[str, Any] = {
        **{"vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1},
        **{"intermediate_size": 4, "max_position_embeddings": 34, "pad_token_id": 1},
    }
    assert training._positions(BertModel(BertConfig(**tiny))) == 34
    assert training._positions(RobertaModel(RobertaConfig(**tiny))) == 32
    assert training._positions(ModernBertModel(ModernBertConfig(**tiny))) == float("inf")


def test_a_merged_adapter_says_what_peft_says_of_it(tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model

    torch.manual_seed(0)
    base = load_embedding(MINILM)
    made = get_peft_model(
        transformer(base),
        LoraConfig(r=2, lora_alpha=4, target_modules=["query", "dense"], init_lora_weights=False),
    )
    made.peft_config["default"].base_model_name_or_path = MINILM
    made.save_pretrained(str(tmp_path))
    wanted: Any = load_embedding(MINILM)
    merged = PeftModel.from_pretrained(transformer(wanted), str(tmp_path)).merge_and_unload()
    assert merged is transformer(wanted)
    found = embed_queries(load_embedding(str(tmp_path)), ["my head throbs"])
    assert found == pytest.approx(embed_queries(wanted, ["my head throbs"]), abs=1e-5)

    before = identity(str(tmp_path))
    (tmp_path / "training.json").write_text("{}")
    assert identity(str(tmp_path)) != before
    (tmp_path / "adapter_model.safetensors").write_bytes(b"no")
    with pytest.raises(StoreError, match=r"is damaged.*finetune retriever"):
        load_embedding(str(tmp_path))


def test_an_adapter_of_another_model_is_one_sentence(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    config = {"base_model_name_or_path": MINILM, "r": 2, "lora_alpha": 4}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    parts = {"A": torch.zeros(2, 7), "B": torch.zeros(7, 2)}
    name = "base_model.model.encoder.layer.0.attention.self.query.lora_{}.weight"
    save_file(
        {name.format(part): tensor for part, tensor in parts.items()},
        tmp_path / "adapter_model.safetensors",
    )
    with pytest.raises(StoreError, match=r"was not made for all-MiniLM-L6-v2"):
        load_embedding(str(tmp_path))


def test_before_and_after_of_one_model_is_no_difference() -> None:
    rows = {
        "train": ROWS[2:],
        "validation": ROWS[:1],
        "test": [row("gout", 9), row("acne", 9), row("asthma", 9)],
    }
    told, shown = compared.compare(rows, MINILM, MINILM)  # type: ignore[arg-type]
    assert [each.at for each in shown] == list(relevance.AT)
    assert list(told) == [compared.SAME, compared.OWN]
    said = compared.in_words(told)
    assert said.count("no difference beyond noise") == 2 and "3 patients" in said


@pytest.mark.parametrize(
    ("recipe", "said"),
    [(RetrieverRecipe(batch_size=1), "--batch-size"), (RetrieverRecipe(scale=1.5), "--scale 1.5")],
)
def test_settings_out_of_range(recipe: RetrieverRecipe, said: str) -> None:
    with pytest.raises(AgentError, match=said):
        recipe.check()
