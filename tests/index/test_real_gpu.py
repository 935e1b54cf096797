"""Scanning on a real GPU: what is found is what a CPU finds; and how fast."""

import os
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from alexnet_deploy.index.ledger import Ledger
from alexnet_deploy.timing import in_turns, seconds_of
from tests.support.indexed_vectors import as_tuples, index_of, nearest


@pytest.mark.gpu("faiss")
def test_a_real_gpu_finds_what_a_cpu_finds(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Copies of some vectors of noise with more of it, as many a second as each can."""
    import faiss

    from alexnet_deploy.index.exact_scan import gpu_resources

    gpu = gpu_resources()
    assert gpu is not None, "a FAISS for GPUs that finds none"
    rng, everything = np.random.default_rng(0), np.arange(20_000)
    vectors = rng.standard_normal((20_000, 4096), np.float32)
    queries = vectors[:64] + rng.normal(0, 0.1, (64, 4096)).astype(np.float32)
    arguments = (everything, queries.astype(np.float16), 10)
    Ledger.create(tmp_path)
    with (
        Ledger.open(tmp_path) as ledger,
        index_of(vectors.astype(np.float16), 20_000, ledger) as index,
    ):
        search = partial(nearest, index, *arguments, metric="cosine", threads=os.cpu_count())
        with mock.patch.object(faiss, "knn_gpu", wraps=faiss.knn_gpu) as scan:
            there, here = search(gpu=gpu), search()
        assert scan.called
        assert list(map(as_tuples, there)) == list(map(as_tuples, here))
        assert [ranking.positions[0] for ranking in there] == list(range(64))
        timers = {
            "cuda": partial(seconds_of, partial(search, gpu=gpu)),
            "cpu": partial(seconds_of, search),
        }
        for device, seconds in in_turns(timers, 3).items():
            record_property(f"{device}_queries_per_s", 64 / statistics.median(seconds))
