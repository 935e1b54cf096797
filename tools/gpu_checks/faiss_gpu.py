"""FAISS on the GPU: the package's exact search scans there, with the same results as on the CPU.

A FAISS that is installed but cannot be imported fails here: it is broken, not a CPU build.
"""

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.index.ledger import Ledger
from alexnet_deploy.index.manifest import Manifest, VectorSpace
from alexnet_deploy.index.ranking import Ranking
from alexnet_deploy.index.segments import FOLDER_NAME, Segments
from alexnet_deploy.index.storage import Storage
from alexnet_deploy.photographs.pixels import EXACT
from gpu_checks.check import Figures, Settings, Skipped, require
from gpu_checks.rounds import in_turns

NUM_VECTORS, NUM_QUERIES, DIMENSION, K = 20_000, 64, 4096, 10
NUM_ROUNDS = 3


def search(settings: Settings) -> Figures:
    """Search an index of noise for perturbed copies of some vectors, alternating between CPU and
    GPU.

    Raises:
        DeviceError: the GPU computes less exactly than float32.
        Failed: the GPU is not used, or its results differ.
        Skipped: this FAISS is a build for the CPU.
    """
    import faiss

    from alexnet_deploy.index.exact_search import gpu_resources

    figures: Figures = {"faiss": faiss.__version__, "vectors": NUM_VECTORS, "queries": NUM_QUERIES}
    if not hasattr(faiss, "StandardGpuResources"):
        raise Skipped(f"faiss {faiss.__version__} is a build for the CPU")
    gpu = gpu_resources()
    require(gpu is not None, f"faiss {faiss.__version__}, made for GPUs, finds none here", figures)
    vectors, queries = _noise()
    found: dict[str, list[Ranking]] = {}
    with _index_of(vectors) as index:

        def seconds(device: str, resources: Any) -> float:
            start = time.perf_counter()
            found[device] = _nearest(index, queries, resources)
            return time.perf_counter() - start

        with mock.patch.object(faiss, "knn_gpu", wraps=faiss.knn_gpu) as scan:
            seconds("cuda", gpu)  # warm up one-time work
            figures["scans_on_the_gpu"] = scan.call_count
        require(scan.call_count > 0, "the search did not scan on the GPU", figures)
        timers = {"cuda": lambda: seconds("cuda", gpu), "cpu": lambda: seconds("cpu", None)}
        took = in_turns(timers, NUM_ROUNDS)
    figures["seconds"] = {device: statistics.median(each) for device, each in took.items()}
    first = [int(ranking.positions[0]) for ranking in found["cuda"]]
    require(first == list(range(NUM_QUERIES)), "what is nearest is not found", figures)
    # Bitwise: distances of FAISS's candidates are recomputed in float64.
    is_equal = all(map(_are_equal, found["cuda"], found["cpu"]))
    require(is_equal, "the GPU finds others than the CPU", figures)
    return figures


def _noise() -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """Return vectors, and queries each near the vector at the same index."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((NUM_VECTORS, DIMENSION), np.float32)
    away = np.float32(0.1) * rng.standard_normal((NUM_QUERIES, DIMENSION), np.float32)
    return vectors.astype(np.float16), (vectors[:NUM_QUERIES] + away).astype(np.float16)


@contextmanager
def _index_of(vectors: NDArray[np.float16]) -> Iterator[Storage]:
    """Create an index of vectors, without photographs, in the current folder."""
    directory = Path("index").resolve()
    (directory / FOLDER_NAME).mkdir(parents=True)
    space = VectorSpace(
        identity="0" * 64,
        layer="fc7",
        dimension=vectors.shape[1],
        preprocessing={},
        precision="fp32",
        decode=EXACT,
    )
    segments = Segments(directory, dimension=vectors.shape[1], segment_rows=len(vectors))
    segments.append(0, vectors)
    Ledger.create(directory)
    with Ledger.open(directory) as ledger:
        manifest = Manifest(space=space, segment_rows=len(vectors))
        yield Storage(directory=directory, manifest=manifest, ledger=ledger, segments=segments)


def _nearest(index: Storage, queries: NDArray[np.float16], gpu: Any) -> list[Ranking]:
    from alexnet_deploy.index.exact_search import nearest

    everything = np.arange(NUM_VECTORS)
    threads = len(os.sched_getaffinity(0))
    return nearest(index, everything, queries, K, metric="cosine", threads=threads, gpu=gpu)


def _are_equal(one: Ranking, other: Ranking) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("positions", "cosine_similarity", "l2_distance")
    )
