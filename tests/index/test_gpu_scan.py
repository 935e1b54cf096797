"""Scanning on a GPU, with a pretended one: what is found is what a CPU finds, or an error.

And what is said where FAISS, of which one build is for GPUs, cannot be imported.
"""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet_deploy.choices import Metric
from alexnet_deploy.errors import DeviceError
from alexnet_deploy.index.ledger import Ledger
from tests.support.fake_packages import error_of_import, install
from tests.support.indexed_vectors import as_tuples, index_of, nearest, vectors_after_relu

VECTORS = vectors_after_relu()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    Ledger.create(tmp_path)
    with Ledger.open(tmp_path) as ledger:
        yield ledger


class FakeGpu:
    """FAISS for GPUs, on the CPU: `error` is added to each product.

    Attributes:
        calls: numbers of queries, of vectors, and of neighbours asked for.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: float = 0.0) -> None:
        self.calls: list[tuple[int, int, int]] = []
        self._thread = threading.current_thread()
        self._error = np.float32(error)
        monkeypatch.setattr("faiss.knn_gpu", self._knn, raising=False)
        monkeypatch.setattr("faiss.StandardGpuResources", lambda: self, raising=False)
        monkeypatch.setattr("faiss.get_num_gpus", lambda: 1, raising=False)

    def _knn(
        self, gpu: object, queries: Any, vectors: Any, k: int, *, metric: int
    ) -> tuple[Any, Any]:
        assert gpu is self
        assert threading.current_thread() is self._thread, "its resources are for one thread"
        assert k <= 2048, "FAISS would end the process: FAISS_ASSERT(k <= GPU_MAX_SELECTION_K)"
        self.calls.append((len(queries), len(vectors), k))
        import faiss

        scores, indices = faiss.knn(queries, vectors, k, metric)
        return scores + self._error, indices


def test_a_gpu_scans_for_many_queries_and_finds_the_same(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alexnet_deploy.index.exact_scan import gpu_resources

    fake = FakeGpu(monkeypatch)
    gpu = gpu_resources()
    assert gpu is fake
    everything = np.arange(len(VECTORS))
    with index_of(VECTORS, 150, ledger) as index:
        tried: tuple[tuple[Metric, int], ...]
        tried = (("l2", 20), ("cosine", 15), ("cosine", 16), ("cosine", 40))
        for metric, count in tried:
            fake.calls.clear()
            arguments = (index, everything, VECTORS[:count], 7)
            here = nearest(*arguments, metric=metric, threads=2)
            there = nearest(*arguments, metric=metric, threads=2, gpu=gpu)
            assert list(map(as_tuples, there)) == list(map(as_tuples, here))
            # Whole segments, of 150 rows, not the small blocks of a core's cache; again for what
            # could not be proved the first time.
            expected = [(count, 150, 23), (count, 150, 23), (count, 100, 23)]
            assert fake.calls[:3] == ([] if metric == "l2" or count < 16 else expected)


def test_the_threads_convert_for_a_gpu_at_the_same_time(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the two waits for the other: in pieces of a block, of which there is one."""
    gpu = FakeGpu(monkeypatch)
    caller, together = threading.current_thread(), threading.Barrier(2)
    monkeypatch.setattr("alexnet_deploy.index.exact_scan._BLOCK_BYTES", 4 * 64 * 100)
    with index_of(VECTORS, 400, ledger) as index:
        read = index.segments.rows

        def rows(segment: int, num_rows: int) -> Any:
            if threading.current_thread() is not caller:  # which measures what was found
                together.wait(timeout=10)
            return read(segment, num_rows)

        monkeypatch.setattr(index.segments, "rows", rows)
        arguments = (index, np.arange(400), VECTORS[:16], 30)
        there = nearest(*arguments, metric="cosine", threads=2, gpu=gpu)
        monkeypatch.undo()
        here = nearest(*arguments, metric="cosine", threads=2)
    assert list(map(as_tuples, there)) == list(map(as_tuples, here))
    assert gpu.calls[0] == (16, 400, 46)


@pytest.mark.parametrize(("gpu_s", "num_on_gpu"), [(0.9, 9), (1.1, 3)])
def test_after_some_blocks_of_each_the_faster_scans_the_rest(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, gpu_s: float, num_on_gpu: int
) -> None:
    """By a clock that the CPU moves on by 1 s a block, and the GPU by 100 s for the first."""
    from alexnet_deploy.index import exact_scan

    vectors = np.random.default_rng(0).random((400, 64)).astype(np.float16)
    gpu, now = FakeGpu(monkeypatch), [0.0]
    on_cpu, on_gpu = exact_scan.Scan._search, FakeGpu._knn

    def search(*arguments: Any) -> Any:
        now[0] += 1
        return on_cpu(*arguments)

    def knn_gpu(*arguments: Any, **options: Any) -> Any:
        now[0] += gpu_s if gpu.calls else 100
        return on_gpu(gpu, *arguments, **options)

    for block_bytes in ("_BLOCK_BYTES", "_GPU_BLOCK_BYTES"):
        monkeypatch.setattr(exact_scan, block_bytes, 4 * 64 * 40)
    monkeypatch.setattr(exact_scan.Scan, "_search", search)
    monkeypatch.setattr("faiss.knn_gpu", knn_gpu)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    with index_of(vectors, 400, ledger) as index:
        arguments = (index, np.arange(400), vectors[:16], 30)
        there = nearest(*arguments, metric="cosine", threads=2, gpu=gpu)
        num_calls, num_rows = len(gpu.calls), sum(rows for _, rows, _ in gpu.calls)
        here = nearest(*arguments, metric="cosine", threads=2)
    assert (num_calls, num_rows) == (num_on_gpu, 40 * num_on_gpu)
    assert list(map(as_tuples, there)) == list(map(as_tuples, here))


@pytest.mark.parametrize(("k", "on_gpu"), [(1, [17, 68, 272, 1088]), (2032, [2048]), (2033, [])])
def test_what_is_more_than_a_gpu_can_select_is_scanned_for_on_the_cpu(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, k: int, on_gpu: list[int]
) -> None:
    """Of near copies four times as many are fetched, and again, until nothing is left out."""
    fake = FakeGpu(monkeypatch)
    copies = np.ones((2100, 4), np.float16)
    with index_of(copies, 3000, ledger) as index:
        found = nearest(
            index, np.arange(2100), copies[:16], k, metric="cosine", threads=2, gpu=fake
        )
    assert fake.calls == [(16, 2100, count) for count in on_gpu]
    assert [len(ranking.positions) for ranking in found] == [2100] * 16


def test_a_gpu_that_computes_with_fewer_digits_is_refused(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TF32 has 10 bits of mantissa: 5e-4 in a sum of products that makes 1."""
    gpu = FakeGpu(monkeypatch, error=5e-4)
    with (
        index_of(VECTORS, 400, ledger) as index,
        pytest.raises(DeviceError, match=r'cosine similarity is 5\.0e-04 off.*device="cpu"'),
    ):
        nearest(index, np.arange(400), VECTORS[:16], 3, metric="cosine", threads=1, gpu=gpu)


def test_a_faiss_for_cpus_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from alexnet_deploy.index.exact_scan import gpu_resources

    monkeypatch.delattr("faiss.StandardGpuResources", raising=False)
    assert gpu_resources() is None


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise RuntimeError('nvidia-cublas-cu12 is missing')", "nvidia-cublas-cu12 is missing"),
        ("raise ImportError('libfaiss.so: no such file')", "libfaiss.so: no such file"),
        ("import nowhere.to_be_found", "No module named 'nowhere'"),
    ],
)
def test_a_faiss_that_cannot_be_imported_says_why(tmp_path: Path, source: str, reason: str) -> None:
    install(tmp_path, "faiss-gpu", "faiss", source)
    assert error_of_import("index.exact_search", tmp_path).startswith(
        f"DeviceError: the package faiss is installed here and cannot be imported ({reason}); "
    )


@pytest.mark.parametrize(
    ("onnxruntime", "faiss_name", "extra"),
    [("onnxruntime", "faiss-cpu", "cpu"), ("onnxruntime-gpu", "faiss-gpu", "gpu")],
)
def test_a_missing_faiss_is_that_of_the_machine(
    tmp_path: Path, onnxruntime: str, faiss_name: str, extra: str
) -> None:
    install(tmp_path, onnxruntime)
    said = error_of_import("index.exact_search", tmp_path, before="sys.modules['faiss'] = None")
    assert said == (
        f"MissingPackageError: searching an index needs the package {faiss_name}, which is not "
        f"installed here; install it with: pip install 'alexnet-deploy[{extra}]'"
    )
