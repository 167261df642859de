"""The lexical side of an index: BM25 over the searched texts, on disk and memory-mapped.

Owns how texts become terms, and the ranking by them. Does not know vectors or replies.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from index_store.errors import StoreError

if TYPE_CHECKING:
    import numpy as np

BATCH = 2000  # texts that are in memory at once
# A file of more bytes is not left in this process's memory as it is read, search by search: it
# stays in the system's cache, and mapping its pages again takes a fraction of a millisecond.
KEPT = 32 * 2**20
RESERVED = 2**20  # bytes of a file that are written at once to take its room


def write(folder: Path, texts: Iterable[str]) -> None:
    """Index `texts` in their order. Raises StoreError if none of them has a word, or OSError.

    The scores are those of bm25s (method "lucene"), which itself would hold all texts' terms in
    memory: here they are counted in batches on the disk and put in their places in a second pass.
    """
    import bm25s
    from bm25s.tokenization import Tokenizer

    index = bm25s.BM25()
    tokenizer = Tokenizer(stopwords="en", stemmer=None)
    with tempfile.TemporaryDirectory(prefix="bm25-", dir=folder.parent) as scratch:
        counts = Path(scratch) / "counts"
        rows, terms = _count(counts, tokenizer, texts)
        vocabulary = tokenizer.get_vocab_dict()
        if vocabulary.keys() == {""}:  # which stands for a text without words
            raise StoreError("There are no usable rows: none has a word that can be searched for.")
        index.scores = _scores(index, counts, Path(scratch), len(vocabulary), rows, terms / rows)
        index.vocab_dict, index.nonoccurrence_array = vocabulary, None
        index.unique_token_ids_set = set(vocabulary.values())
        index.save(folder, show_progress=False)


class BM25Index:
    """An open BM25 index. Safe from several threads."""

    def __init__(self, folder: Path) -> None:
        """Open what `write` wrote. Raises OSError or ValueError."""
        import bm25s

        self._index = bm25s.BM25.load(folder, mmap=True, show_progress=False)
        parts = (self._index.scores["data"], self._index.scores["indices"])
        self._given_back = [part.base for part in parts if part.nbytes > KEPT]

    def scores(self, text: str) -> np.ndarray[Any, Any]:
        """The BM25 score of every text for the terms of `text`, (rows,) float32; 0: none shared."""
        import bm25s
        import numpy as np

        (terms,) = bm25s.tokenize([text], stopwords="en", return_ids=False, show_progress=False)
        if not terms:
            return np.zeros(self._index.scores["num_docs"], dtype=np.float32)
        found: np.ndarray[Any, Any] = self._index.get_scores(terms)
        for pages in self._given_back:
            pages.madvise(mmap.MADV_DONTNEED)
        return found


def _count(path: Path, tokenizer: Any, texts: Iterable[str]) -> tuple[int, int]:
    """Write how often each term is in each text, (n, 4) int32: term, text, times, length of text.

    Returns how many texts there are, and how many terms in all.
    """
    import numpy as np

    rows = terms = 0
    unread = iter(texts)
    with path.open("wb") as file:
        while batch := list(islice(unread, BATCH)):
            ids = list(tokenizer.streaming_tokenize(batch, update_vocab=True))
            lengths = np.array([len(each) for each in ids], dtype=np.int64)
            flat = np.fromiter((term for each in ids for term in each), np.int64, lengths.sum())
            text = np.repeat(np.arange(len(ids)), lengths)
            pairs, times = np.unique(text << 32 | flat, return_counts=True)
            text, term = pairs >> 32, pairs & 0xFFFFFFFF
            found = np.stack([term, text + rows, times, lengths[text]], axis=1)
            file.write(found.astype(np.int32).tobytes())
            rows, terms = rows + len(ids), terms + int(lengths.sum())
    return rows, terms


def _scores(
    index: Any, counts: Path, scratch: Path, vocabulary: int, rows: int, average: float
) -> dict[str, Any]:
    """The sparse matrix of scores as bm25s keeps it, one column a term, memory-mapped."""
    import numpy as np
    from bm25s.scoring import _select_idf_scorer, _select_tfc_scorer

    found = np.memmap(counts, dtype=np.int32, mode="r").reshape(-1, 4)
    frequency = np.zeros(vocabulary, dtype=np.int64)
    for part in _parts(found):
        frequency += np.bincount(part[:, 0], minlength=vocabulary)
    idf = _select_idf_scorer(index.idf_method)
    weight = np.array([idf(df, N=rows) if df else 0 for df in frequency.tolist()], np.float32)
    tfc = _select_tfc_scorer(index.method)

    begin = np.concatenate([[0], np.cumsum(frequency)])
    data = _reserved(scratch / "data.npy", np.float32, len(found))
    indices = _reserved(scratch / "indices.npy", np.int32, len(found))
    free = begin[:-1].copy()  # the next free place of each term
    for part in _parts(found):
        term, text, times, length = part[np.argsort(part[:, 0], kind="stable")].T
        used = np.bincount(term, minlength=vocabulary)
        first = np.concatenate([[0], np.cumsum(used)])[term]
        place = free[term] + np.arange(len(term)) - first
        indices[place] = text
        data[place] = weight[term] * tfc(
            tf_array=times.astype(np.float32),
            l_d=length,
            l_avg=average,
            k1=index.k1,
            b=index.b,
            delta=index.delta,
        )
        free += used
    return {"data": data, "indices": indices, "indptr": begin, "num_docs": rows}


def _reserved(path: Path, kind: Any, count: int) -> Any:
    """A .npy file of so many numbers, as a map to fill in. Its room is taken before: a map that
    grows on a full disk ends the process. Raises OSError."""
    import numpy as np

    mapped = np.lib.format.open_memmap(path, "w+", kind, (count,))
    with path.open("r+b") as file:
        file.seek(mapped.offset)
        for start in range(0, mapped.nbytes, RESERVED):
            file.write(bytes(min(RESERVED, mapped.nbytes - start)))
    return mapped


def _parts(found: np.ndarray[Any, Any]) -> Iterable[np.ndarray[Any, Any]]:
    return (found[start : start + 2_000_000] for start in range(0, len(found), 2_000_000))
