"""Searching on a GPU, with a FAISS that only says that it has one: the real one was not at hand."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from agent.cli import index as commands
from index_store import vectors
from index_store.build import remove
from index_store.embedding import EMBEDDED
from index_store.errors import StoreError
from index_store.live import LiveIndex
from index_store.store import IndexStore

OUT_OF_MEMORY = (
    "Error in virtual void* faiss::gpu::StandardGpuResourcesImpl::allocMemory: Error: 'err == "
    "cudaSuccess' failed: StandardGpuResources: alloc fail (cudaMalloc error out of memory [2])"
)


class Gpu:
    """What FAISS's GPU half would have: resources, and a copy that is no more thread-safe."""

    def __init__(self) -> None:
        self.scratch: list[int] = []
        self.at_once = self.most = 0
        self.full = False

    def StandardGpuResources(self) -> Any:  # FAISS's name
        return self

    def setTempMemory(self, size: int) -> None:
        self.scratch.append(size)

    def setPinnedMemory(self, size: int) -> None:
        self.scratch.append(size)

    def index_cpu_to_gpu(self, resources: Any, device: int, index: Any) -> Any:
        if self.full:
            raise RuntimeError(OUT_OF_MEMORY)
        if not isinstance(faiss.downcast_index(index), faiss.IndexFlat | faiss.IndexIVF):
            raise RuntimeError("Error: 'false' failed: This index type is not implemented on GPU.")
        return Copy(self, index)


class Copy:
    def __init__(self, gpu: Gpu, index: Any) -> None:
        self._gpu, self._index = gpu, index

    def search(self, queries: Any, depth: int) -> Any:
        if self._gpu.full:
            raise RuntimeError(OUT_OF_MEMORY)
        self._gpu.at_once += 1
        self._gpu.most = max(self._gpu.most, self._gpu.at_once)
        time.sleep(0.002)  # others get a chance to come in
        found = self._index.search(queries, depth)
        self._gpu.at_once -= 1
        return found


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    made = Gpu()
    monkeypatch.setattr(faiss, "get_compile_options", lambda: "GENERIC GPU ")
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    for name in ("StandardGpuResources", "index_cpu_to_gpu"):
        monkeypatch.setattr(faiss, name, getattr(made, name), raising=False)
    return made


def unit_vectors(rows: int) -> np.ndarray[Any, Any]:
    drawn = np.random.default_rng(0).standard_normal((rows, 32), dtype=np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def test_one_thread_at_a_time_searches_an_index_on_a_gpu(gpu: Gpu) -> None:
    exact = faiss.IndexFlatIP(32)
    exact.add(unit_vectors(200))
    index = vectors.OnGpu(exact)
    together = threading.Barrier(8)

    def search(n: int) -> list[int]:
        if n < 8:
            together.wait(30)
        return list(index.search(unit_vectors(200)[n : n + 1], 3)[1][0])

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(search, range(40)))
    assert [best[0] for best in found] == list(range(40))
    assert gpu.most == 1


def test_what_searching_works_in_is_bounded_for_each_index(gpu: Gpu) -> None:
    for _ in range(2):
        vectors.OnGpu(faiss.IndexFlatIP(32))
    assert gpu.scratch == [vectors.SCRATCH, 0] * 2
    assert vectors.SCRATCH <= 2**27


def test_an_index_that_faiss_does_not_know_on_a_gpu_is_not_called_damaged(
    sample_index: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hnsw = faiss.index_factory(384, "HNSW32", faiss.METRIC_INNER_PRODUCT)
    monkeypatch.setattr(vectors, "opened", lambda path: hnsw)
    with pytest.raises(StoreError, match=r"does not know this kind .* MEDRAFT_SEARCH_ON=cpu") as no:
        IndexStore.open(sample_index, EMBEDDED, "gpu")
    assert "damaged" not in str(no.value)


def test_no_room_on_the_gpu_is_not_called_damage(sample_index: Path, gpu: Gpu) -> None:
    with IndexStore.open(sample_index, EMBEDDED, "gpu") as store:
        gpu.full = True
        with pytest.raises(StoreError, match="memory is full"):
            store.nearest(np.zeros(384, dtype=np.float32), 3)
        with pytest.raises(StoreError, match=r"memory is full.*MEDRAFT_SEARCH_ON=cpu") as full:
            IndexStore.open(sample_index, EMBEDDED, "gpu")
        assert "damaged" not in str(full.value) and "allocMemory" not in str(full.value)


OLD_DRIVER = (
    "Error in int faiss::gpu::getNumDevices(): CUDA error 35 CUDA driver version is insufficient"
)
NO_CUBLAS = (
    "Error in initializeForDevice: cublas failed (3): CUBLAS_STATUS_ALLOC_FAILED at StandardGpu.cpp"
)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ("get_num_gpus", OLD_DRIVER, "FAISS fails on the GPU .*driver version is insufficient"),
        ("StandardGpuResources", "CUDA error 2 out of memory", "memory is full"),
        ("StandardGpuResources", NO_CUBLAS, "memory is full"),
    ],
)
def test_trouble_with_the_gpu_is_not_called_damage(
    sample_index: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch, call: str, error: str, words: str
) -> None:
    def fail() -> None:
        raise RuntimeError(error)

    monkeypatch.setattr(faiss, call, fail)
    with pytest.raises(StoreError, match=f"{words}.*MEDRAFT_SEARCH_ON=cpu") as no:
        IndexStore.open(sample_index, EMBEDDED, "gpu")
    assert "damaged" not in str(no.value)


def test_a_row_that_was_removed_is_gone_even_if_the_gpu_is_full(
    sample_index: Path, gpu: Gpu, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = Path(shutil.copytree(sample_index, tmp_path / "index"))
    live = LiveIndex(index, EMBEDDED, "gpu")
    gone = next(live.store.rows())[1].id
    remove(lambda _, row: row.id == gone, index, EMBEDDED)
    gpu.full = True
    assert live.find(gone) is None
    assert live.store.nearest(np.zeros(384, dtype=np.float32), 3)  # not on the GPU
    (said,) = caplog.messages
    assert "memory is full" in said and said.endswith("Meanwhile it is searched on the CPU.")


def test_an_index_that_could_not_be_searched_on_the_gpu_is_not_built(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MEDRAFT_SEARCH_ON", "gpu")
    with pytest.raises(StoreError, match="does not know this kind"):
        commands.build(directory=tmp_path / "index", factory="HNSW32")
    assert not (tmp_path / "index").exists()
    vectors.check("Flat", "gpu")
    vectors.check("IVF1024,PQ48", "gpu")
    for search_on in ("cpu", "gpu"):
        with pytest.raises(StoreError, match="does not know the factory 'no factory'"):
            vectors.check("no factory", search_on)


def test_index_search_searches_where_it_is_told(
    sample_index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEDRAFT_SEARCH_ON", "gpu")
    with pytest.raises(StoreError, match="FAISS finds none"):
        commands.search("migraine", directory=sample_index)
