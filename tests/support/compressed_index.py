"""Compressed vectors of an index of made ones, and searches through them; FAISS is loaded late."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.choices import Metric
from alexnet_deploy.index.binary_codes import BinaryCoder
from alexnet_deploy.index.compressed_record import CompressedRecord, compressed_record
from alexnet_deploy.index.storage import Storage
from tests.support.indexed_vectors import as_tuples, nearest
from tests.support.made_index import live


def compress(index: Storage, codes: int | BinaryCoder | None = None) -> list[str]:
    """Compress as a run does; return what was told."""
    from alexnet_deploy.index import compressing

    told: list[str] = []
    compressing.compress(index, codes=codes, threads=1, notify=told.append)
    return told


def record_of(index: Storage) -> CompressedRecord:
    """Return the record, which has to be there."""
    record = compressed_record(index)
    assert record is not None
    return record


def ranker_of(index: Storage, told: list[str]) -> Any:
    """Return what ranks through compressed vectors."""
    from alexnet_deploy.index.compressed_search import CompressedRanker
    from alexnet_deploy.index.exact_search import ExactRanker

    return CompressedRanker(index, ExactRanker(index), told.append)


def assert_same(
    index: Storage,
    ranker: Any,
    queries: NDArray[np.float16],
    k: int = 10,
    metric: Metric = "cosine",
    among: NDArray[np.int64] | None = None,
) -> list[int]:
    """Search through compressed vectors and through all; return how many each has read."""
    with index.ledger.snapshot():
        found = ranker.rank(queries, k, metric=metric, threads=2, among=among)
        positions = live(index) if among is None else among
        expected = nearest(index, positions, queries, k, metric=metric, threads=1)
    assert list(map(as_tuples, found)) == list(map(as_tuples, expected))
    return [ranking.num_compared for ranking in found]


def assert_in_order(
    index: Storage, ranker: Any, queries: NDArray[np.float16], *, effort: int, k: int = 10
) -> None:
    """Search with an effort: what is found is as near as it says, in order, and enough."""
    with index.ledger.snapshot():
        found = ranker.rank(queries, k, metric="cosine", threads=2, effort=effort)
        positions = live(index)
        whole = nearest(index, positions, queries, len(positions), metric="cosine", threads=1)
    for some, every in zip(map(as_tuples, found), map(as_tuples, whole), strict=True):
        assert some == [one for one in every if one in set(some)]
        assert len(some) == min(k, len(every))
