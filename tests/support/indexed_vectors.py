"""Vectors in an index whose ledger says nothing of them, for the tests of searching."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.index.ledger import Ledger
from alexnet_deploy.index.manifest import Manifest, VectorSpace
from alexnet_deploy.index.ranking import Ranking
from alexnet_deploy.index.segments import Segments
from alexnet_deploy.index.storage import Storage
from alexnet_deploy.photographs.pixels import EXACT


@contextmanager
def index_of(vectors: NDArray[np.float16], segment_rows: int, ledger: Ledger) -> Iterator[Storage]:
    """Write `vectors` to segments; what the ledger says of them is not looked at."""
    with tempfile.TemporaryDirectory() as folder:
        directory, dimension = Path(folder), vectors.shape[1]
        (directory / "vectors").mkdir()
        space = VectorSpace(
            identity="0" * 64,
            layer="fc7",
            dimension=dimension,
            preprocessing={},
            precision="fp32",
            decode=EXACT,
        )
        segments = Segments(directory, dimension=dimension, segment_rows=segment_rows)
        segments.append(0, vectors)
        manifest = Manifest(space=space, segment_rows=segment_rows)
        yield Storage(directory=directory, manifest=manifest, ledger=ledger, segments=segments)


def nearest(*arguments: Any, **options: Any) -> list[Ranking]:
    """Search as `exact_search.nearest` does, which loads FAISS."""
    from alexnet_deploy.index import exact_search

    return exact_search.nearest(*arguments, **options)


def vectors_after_relu() -> NDArray[np.float16]:
    """Return vectors as of a layer after ReLU, of them a tenth twice and some zero."""
    generator = np.random.default_rng(0)
    vectors = np.maximum(generator.normal(0, 3, (400, 64)), 0)
    vectors[::10] = vectors[5]
    vectors[7::100] = 0
    return vectors.astype(np.float16)


def as_tuples(ranking: Ranking) -> list[tuple[int, float, float]]:
    columns = (ranking.positions, ranking.cosine_similarity, ranking.l2_distance)
    return list(zip(*(column.tolist() for column in columns), strict=True))
