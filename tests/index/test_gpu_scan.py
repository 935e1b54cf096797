"""Scanning on a GPU, with a pretended one: what is found is what a CPU finds, or an error.

And what is said where FAISS, of which one build is for GPUs, cannot be imported.
"""

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
        self._error = np.float32(error)
        monkeypatch.setattr("faiss.knn_gpu", self._knn, raising=False)
        monkeypatch.setattr("faiss.StandardGpuResources", lambda: self, raising=False)
        monkeypatch.setattr("faiss.get_num_gpus", lambda: 1, raising=False)

    def _knn(
        self, gpu: object, queries: Any, vectors: Any, k: int, *, metric: int
    ) -> tuple[Any, Any]:
        assert gpu is self
        assert k <= 2048, "FAISS would end the process: FAISS_ASSERT(k <= GPU_MAX_SELECTION_K)"
        self.calls.append((len(queries), len(vectors), k))
        import faiss

        scores, indices = faiss.knn(queries, vectors, k, metric)
        return scores + self._error, indices


def test_a_gpu_scans_for_many_queries_and_finds_the_same(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alexnet_deploy.index.exact_search import gpu_resources

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
    from alexnet_deploy.index.exact_search import gpu_resources

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
