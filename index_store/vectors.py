"""The vectors of an index, on disk: all of them as they are, and a faster way to the nearest.

Owns the two FAISS files, how they are written with bounded memory, and how they are opened.
Does not know whose vectors they are.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from index_store.errors import StoreError, reason

if TYPE_CHECKING:
    import numpy as np

ANOTHER = "choose another with --factory, such as Flat, HNSW32 or IVF256,PQ48."
EXACT = "Flat"  # the FAISS factory string that searches all vectors
BLOCK = 8192  # vectors that are in memory at once
TRAINING = 64  # vectors for each cell of an IVF, at least 39 to FAISS
ANY_DIMENSION = 384  # which product quantizers divide, as MiniLM's
# Bytes of the GPU that searching works in. FAISS itself takes 1.5 GiB, and for each index anew: one
# query's distances to a million vectors are 4 MiB.
SCRATCH = 64 * 2**20
EF_SEARCH = 128  # of HNSW: candidates that are kept while searching


def write(path: Path, blocks: Iterable[np.ndarray[Any, Any]], rows: int, dimension: int) -> None:
    """Write unit vectors, blocks of (n, d) float32 with `rows` in all, as an IndexFlatIP.

    FAISS itself would first hold all of them in memory; its file is a header and the vectors
    one after the other. Raises OSError, if only because the disk was full.
    """
    import faiss

    # The header of an empty index: its numbers of vectors and of values are filled in.
    header = bytearray(faiss.serialize_index(faiss.IndexFlatIP(dimension)).tobytes())
    struct.pack_into("<q", header, 8, rows)
    struct.pack_into("<Q", header, len(header) - 8, rows * dimension)
    with path.open("wb") as file:
        file.write(header)
        for block in blocks:
            file.write(block.tobytes())
    try:
        written = opened(path)
    except RuntimeError as error:
        raise OSError(reason(error)) from error
    if (written.ntotal, written.d) != (rows, dimension):
        raise OSError(f"{written.ntotal} of {rows} vectors were written")


def opened(path: Path) -> Any:
    """The FAISS index in a file, memory-mapped where FAISS can. Raises RuntimeError."""
    import faiss

    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)


def write_nearest(path: Path, exact: Any, factory: str) -> None:
    """Index the vectors of `exact` by a FAISS factory string, such as HNSW32 or IVF1024,PQ48.

    Raises StoreError if FAISS does not know the factory or cannot train it on these vectors,
    OSError if the file cannot be written.
    """
    import faiss
    import numpy as np

    rows = exact.ntotal
    try:
        index = _made(exact.d, factory)
        cells = faiss.extract_index_ivf(index).nlist if "IVF" in factory else 256
        some = np.sort(np.random.default_rng(0).permutation(rows)[: max(cells, 256) * TRAINING])
        index.train(exact.reconstruct_batch(some))
        for start in range(0, rows, BLOCK):
            index.add(exact.reconstruct_n(start, min(BLOCK, rows - start)))
    except RuntimeError as error:
        raise StoreError(
            f"FAISS cannot index {rows} vectors of {exact.d} dimensions by the factory "
            f"{factory!r} ({reason(error)}): {ANOTHER}"
        ) from error
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise OSError(reason(error)) from error


def open_nearest(path: Path) -> Any:
    """What `write_nearest` wrote, set to look far enough. Raises RuntimeError."""
    import faiss

    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    below = faiss.downcast_index(index)
    while isinstance(below, faiss.IndexPreTransform | faiss.IndexRefine):
        inner = below.index if isinstance(below, faiss.IndexPreTransform) else below.base_index
        below = faiss.downcast_index(inner)
    if isinstance(below, faiss.IndexHNSW):
        below.hnsw.efSearch = EF_SEARCH
    elif isinstance(below, faiss.IndexIVF):
        below.nprobe = max(8, below.nlist // 16)
    return index


class OnGpu:
    """A copy of an index on the first GPU, searched by one thread at a time.

    FAISS is not thread-safe on a GPU, not even for reading, and searches run in threads.
    """

    def __init__(self, index: Any) -> None:
        """Raises StoreError if FAISS has no GPU, no room there, or does not know the index."""
        import faiss

        try:
            there = "gpu" in faiss.get_compile_options().lower() and faiss.get_num_gpus() > 0
        except RuntimeError as error:
            raise StoreError(_why_not(error)) from error
        if not there:
            raise StoreError(
                "MEDRAFT_SEARCH_ON is gpu, and FAISS finds none: on an x86-64 machine with CUDA "
                'run `pip uninstall -y faiss-cpu && pip install -e ".[gpu-search]"`, or set it to '
                "cpu."
            )
        try:
            self._resources = faiss.StandardGpuResources()
            self._resources.setTempMemory(SCRATCH)
            self._resources.setPinnedMemory(0)
            self._index = faiss.index_cpu_to_gpu(self._resources, 0, index)
        except RuntimeError as error:
            raise StoreError(_why_not(error)) from error
        self._alone = threading.Lock()

    def search(self, queries: np.ndarray[Any, Any], depth: int) -> Any:
        """Cosines and positions, (n, depth) each. Raises StoreError if there is no room for it."""
        try:
            with self._alone:
                return self._index.search(queries, depth)
        except RuntimeError as error:
            raise StoreError(_why_not(error)) from error


def check(factory: str, search_on: str) -> None:
    """Refuse a factory that FAISS does not know, there or on a "gpu", before anything is built.

    Raises StoreError, as `OnGpu` does.
    """
    try:
        empty = _made(ANY_DIMENSION, factory)
    except RuntimeError as error:
        raise StoreError(
            f"FAISS does not know the factory {factory!r} ({reason(error)}): {ANOTHER}"
        ) from error
    if search_on == "gpu":
        OnGpu(empty)


def _made(dimension: int, factory: str) -> Any:
    import faiss

    return faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)


def _why_not(error: RuntimeError) -> str:
    said = str(error).lower()
    if "not implemented" in said or "not supported" in said:
        return (
            "FAISS does not know this kind of index on a GPU: set MEDRAFT_SEARCH_ON=cpu, or build "
            "the index with --factory Flat or IVF1024,PQ48."
        )
    if any(sign in said for sign in ("out of memory", "alloc fail", "alloc_failed")):
        return (
            "The GPU's memory is full, and the index does not fit: set MEDRAFT_SEARCH_ON=cpu, or "
            "close other programs on the GPU."
        )
    return f"FAISS fails on the GPU ({reason(error)}): set MEDRAFT_SEARCH_ON=cpu."
