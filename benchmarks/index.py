"""Our index against LlamaIndex's and LangChain's, by the number of rows.

    pip install langchain-community
    python -m benchmarks.index medquad.jsonl                       # 1,000, 16,359 and 250,000 rows
    python -m benchmarks.index medquad.jsonl --rows 1000 16359 --folder DIR --plot index.svg

The file has the index's columns. Where it has fewer rows than wanted, the rest are copies with a
tenth of the words left out and with jittered vectors; what is printed says so. Vectors are made
once (kept in the folder) and given to all, so that building is measured without the embedding.
Every store builds, and is opened, in a process of its own; memory is what it takes beyond its
imports, memory-mapped files included. Linux only, because of how peaks are read.

- ours: exact, dense and BM25 fused, the replies' texts included
- llama_index: a VectorStoreIndex over FaissVectorStore, persisted and loaded; dense only
- langchain: langchain_community's FAISS, saved and loaded, as in the tutorial; dense only
- bare: faiss and bm25s alone on the files that ours wrote: no texts, no fusion
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from index_store.dataset import Dialogue, read_rows
from index_store.embedding import EMBEDDED, embed_texts, identity, load_embedding
from index_store.node import reply_node, searched_text

STORES = ("ours", "llama_index", "langchain")
QUERIES, AT_ONCE, BEST = 200, 8, 3
FIRST = 20  # replies that would be ranked anew
JITTER = 0.02  # of each of a vector's values, which are about 0.05
Search = Callable[[str, np.ndarray], object]


def prepare(source: str, rows: int, folder: Path) -> int:
    """Write `rows` rows, their vectors and the queries to `folder`; how many rows are real."""
    real = read_real(source)[:rows]
    vectors = embed_once(real, folder.parent / "vectors.npy")
    folder.mkdir(exist_ok=True)
    chance, noise = random.Random(0), np.random.default_rng(0)
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number in range(rows):
            d = real[number % len(real)]
            texts = [d.title, d.patient, d.doctor]
            if number >= len(real):
                texts = [thinned(text, chance) for text in texts]
                texts[1] += f" {number}"
            columns = dict(zip(("Description", "Patient", "Doctor"), texts, strict=True))
            file.write(json.dumps(columns) + "\n")
    whole = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (rows, 384))
    for start in range(0, rows, len(real)):
        part = vectors[: rows - start].copy()
        if start:
            part += noise.normal(0, JITTER, part.shape).astype(np.float32)
        whole[start : start + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    asked = noise.choice(len(real), min(QUERIES, len(real)), replace=False)
    (folder / "queries.json").write_text(json.dumps([real[row].patient for row in asked]))
    np.save(folder / "queries.npy", vectors[asked] + noise.normal(0, 0.01, (len(asked), 384)))
    return len(real)


def read_real(source: str) -> list[Dialogue]:
    from index_store.cleaning import clean

    return clean(read_rows(source))[0]


def embed_once(real: list[Dialogue], kept: Path) -> np.ndarray:
    if not kept.exists() or len(np.load(kept, mmap_mode="r")) < len(real):
        embedding = load_embedding(EMBEDDED)
        np.save(kept, embed_texts(embedding, [searched_text(dialogue) for dialogue in real]))
    return np.load(kept)[: len(real)]


def thinned(text: str, chance: random.Random) -> str:
    return " ".join(word for word in text.split() if chance.random() > 0.1) or text


def given(folder: Path) -> tuple[list[Dialogue], np.ndarray]:
    return list(read_rows(str(folder / "rows.jsonl"))), np.load(folder / "vectors.npy")


# --- building ---------------------------------------------------------------------------------


def build_ours(folder: Path, target: Path) -> None:
    from index_store.build import build

    build(read_rows(str(folder / "rows.jsonl")), target, EMBEDDED, source="rows", progress=False)


def embedded_already(folder: Path, target: Path) -> None:
    """Put the vectors where a killed build of ours would have left them."""
    from index_store.cleaning import Cleaner
    from index_store.journal import Journal

    target.mkdir()
    journal, vectors = Journal(target, identity(EMBEDDED)), np.load(folder / "vectors.npy")
    kept = [int(d.id, 16) for d in Cleaner().keep(read_rows(str(folder / "rows.jsonl")))]
    if len(kept) != len(vectors):
        sys.exit(f"{len(vectors) - len(kept)} rows of {folder} were dropped in cleaning.")
    for start in range(0, len(kept), 10_000):
        part = slice(start, start + 10_000)
        journal.append(np.array(kept[part], dtype="<u8"), vectors[part])


def build_llama_index(folder: Path, target: Path) -> None:
    import faiss
    from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
    from llama_index.vector_stores.faiss import FaissVectorStore

    rows, vectors = given(folder)
    nodes = [reply_node(row) for row in rows]
    for node, vector in zip(nodes, vectors, strict=True):
        node.embedding = vector.tolist()
    store = FaissVectorStore(faiss.IndexFlatIP(vectors.shape[1]))
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex(nodes, storage_context=context, embed_model=MockEmbedding(384))
    index.storage_context.persist(str(target))


def build_langchain(folder: Path, target: Path) -> None:
    from langchain_community.vectorstores import FAISS

    rows, vectors = given(folder)
    texts = [searched_text(row) for row in rows]
    pairs = zip(texts, vectors.tolist(), strict=True)
    FAISS.from_embeddings(pairs, embedding=no_embedding()).save_local(str(target))


# --- searching --------------------------------------------------------------------------------


def open_ours(target: Path) -> Search:
    from index_store.store import IndexStore

    store = IndexStore.open(target, EMBEDDED)
    return lambda text, vector: store.search(text, vector, BEST)


def open_bare(target: Path) -> Search:
    import bm25s
    import faiss

    (generation,) = target.glob("generation-*")
    vectors = faiss.read_index(str(generation / "vectors.faiss"))
    words = bm25s.BM25.load(generation / "bm25", mmap=True, show_progress=False)

    def search(text: str, vector: np.ndarray) -> None:
        vectors.search(vector.reshape(1, -1), 50)
        asked = bm25s.tokenize([text], stopwords="en", show_progress=False)
        words.retrieve(asked, k=50, show_progress=False, backend_selection="numpy")

    return search


def open_llama_index(target: Path) -> Search:
    from llama_index.core import MockEmbedding, StorageContext, load_index_from_storage
    from llama_index.core.schema import QueryBundle
    from llama_index.vector_stores.faiss import FaissVectorStore

    store = FaissVectorStore.from_persist_dir(str(target))
    context = StorageContext.from_defaults(vector_store=store, persist_dir=str(target))
    index = load_index_from_storage(context, embed_model=MockEmbedding(384))
    retriever = index.as_retriever(similarity_top_k=BEST)
    return lambda text, vector: retriever.retrieve(QueryBundle(text, embedding=vector.tolist()))


def open_langchain(target: Path) -> Search:
    from langchain_community.vectorstores import FAISS

    store = FAISS.load_local(str(target), no_embedding(), allow_dangerous_deserialization=True)
    return lambda text, vector: store.similarity_search_by_vector(vector.tolist(), k=BEST)


def no_embedding() -> Any:
    from langchain_core.embeddings import FakeEmbeddings

    return FakeEmbeddings(size=384)


BUILD: dict[str, Callable[[Path, Path], None]] = {
    "ours": build_ours,
    "llama_index": build_llama_index,
    "langchain": build_langchain,
}
OPEN: dict[str, Callable[[Path], Search]] = {
    "ours": open_ours,
    "bare": open_bare,
    "llama_index": open_llama_index,
    "langchain": open_langchain,
}
IMPORTS = "bm25s faiss llama_index.core llama_index.vector_stores.faiss"


# --- one measurement, in a process of its own -----------------------------------------------------


def measure_build(store: str, folder: Path) -> dict[str, float]:
    target = folder / store
    if store == "ours":
        embedded_already(folder, target)
    import_all(store)
    before = psutil.Process().memory_info().rss
    # getrusage would tell the peak of the process that started this one, too.
    Path("/proc/self/clear_refs").write_text("5")
    begun = time.perf_counter()
    BUILD[store](folder, target)
    seconds = time.perf_counter() - begun
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    return {"build s": seconds, "disk MiB": mib(size), "build peak MiB": mib(peak - before)}


def measure_search(store: str, folder: Path) -> dict[str, float]:
    import_all(store)
    texts = json.loads((folder / "queries.json").read_text())
    vectors = np.load(folder / "queries.npy").astype(np.float32)
    process = psutil.Process()
    before = process.memory_info().rss
    begun = time.perf_counter()
    search = OPEN[store](folder / ("ours" if store == "bare" else store))
    search(texts[0], vectors[0])
    first = time.perf_counter() - begun
    took = [timed(search, text, vector) for text, vector in zip(texts, vectors, strict=True)]
    steady = process.memory_info().rss - before
    begun = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        together = list(
            pool.map(lambda pair: timed(search, *pair), zip(texts, vectors, strict=True))
        )
    return {
        "open and first search s": first,
        "steady MiB": mib(steady),
        "search p50 ms": float(np.percentile(took, 50)),
        "search p99 ms": float(np.percentile(took, 99)),
        "8 at once p50 ms": float(np.percentile(together, 50)),
        "8 at once per s": len(texts) / (time.perf_counter() - begun),
    }


def timed(search: Search, text: str, vector: np.ndarray) -> float:
    begun = time.perf_counter()
    search(text, vector)
    return (time.perf_counter() - begun) * 1000


def import_all(store: str) -> None:
    names = IMPORTS + (" langchain_community.vectorstores" if store == "langchain" else "")
    for name in names.split():
        __import__(name)


def mib(size: float) -> float:
    return size / 2**20


# --- everything -----------------------------------------------------------------------------------


def in_a_process(what: str, store: str, folder: Path) -> dict[str, float]:
    arguments = [sys.executable, "-m", "benchmarks.index", "--one", what, store, str(folder)]
    return json.loads(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)


def throughput(source: str, folder: Path) -> None:
    """Our embedding, with everything around it, against the model's own `encode`."""
    from index_store.build import build

    real = read_real(source)[:512]
    embedding = load_embedding(EMBEDDED)
    texts = [searched_text(dialogue) for dialogue in real]
    model: Any = embedding._model
    model.encode(texts[:64], show_progress_bar=False)
    begun = time.perf_counter()
    model.encode(texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False)
    alone = time.perf_counter() - begun
    begun = time.perf_counter()
    build(real, folder / "throughput", EMBEDDED, source="rows", progress=False)
    ours = time.perf_counter() - begun
    print(
        f"Embedding {len(texts)} rows: {len(texts) / alone:.1f} rows/s by encode alone, "
        f"{len(texts) / ours:.1f} by a whole build ({alone / ours:.2f} x)"
    )
    # What a cross-encoder of the embedded model's size would have to read for each question.
    pairs = [f"{real[0].patient}\n{text}" for text in texts[:FIRST]]
    begun = time.perf_counter()
    model.encode(pairs, batch_size=FIRST, show_progress_bar=False)
    took = (time.perf_counter() - begun) * 1000
    print(
        f"A question with each of {FIRST} replies, as a cross-encoder would read: {took:.0f} ms\n"
    )


def table(rows: int, real: int, found: dict[str, dict[str, float]]) -> Iterator[str]:
    made = f", {rows - real} of them perturbed copies" if rows > real else ""
    yield f"{rows} rows{made}"
    yield "| | " + " | ".join(found) + " | ours : llama_index |"
    yield "|---" * (len(found) + 2) + "|"
    for name in found["ours"]:
        cells = [f"{figures[name]:.2f}" if name in figures else "" for figures in found.values()]
        ratio = found["ours"][name] / found["llama_index"][name]
        yield f"| {name} | " + " | ".join(cells) + f" | {ratio:.2f} |"
    beyond = found["ours"]["steady MiB"] - mib(rows * 384 * 4)
    fused = found["ours"]["search p50 ms"] / found["bare"]["search p50 ms"]
    yield f"ours: {beyond:.0f} MiB beyond the vectors; a search takes {fused:.2f} x bare's\n"


def plot(path: Path, found: dict[int, dict[str, dict[str, float]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = ("build s", "open and first search s", "steady MiB", "search p50 ms")
    figure, panels = pyplot.subplots(1, len(names), figsize=(14, 3.4), layout="constrained")
    for panel, name in zip(panels, names, strict=True):
        for store in OPEN:
            points = [(n, each[store][name]) for n, each in found.items() if name in each[store]]
            if points:
                panel.loglog(*zip(*points, strict=True), marker="o", label=store)
        panel.set(title=name, xlabel="rows")
    panels[0].legend()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?", help="a .jsonl, .csv or .parquet file")
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 16_359, 250_000])
    parser.add_argument("--folder", type=Path, help="kept; a temporary one without it")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        what, store, folder = options.one
        measure = measure_build if what == "build" else measure_search
        print(json.dumps(measure(store, Path(folder))))
        return
    if options.source is None:
        parser.error("name a file with rows")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        throughput(options.source, Path(temporary))
        found: dict[int, dict[str, dict[str, float]]] = {}
        for rows in options.rows:
            data = folder / str(rows)
            real = prepare(options.source, rows, data)
            found[rows] = {store: in_a_process("build", store, data) for store in STORES}
            for store in OPEN:
                found[rows].setdefault(store, {}).update(in_a_process("search", store, data))
            print("\n".join(table(rows, real, found[rows])), flush=True)
        if options.plot:
            plot(options.plot, found)


if __name__ == "__main__":
    main()
