"""Check that what is compressed of an index is of its vectors: what a proved search relies on.

N vectors.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.index.compressed_files import Compressed, read_compressed
from alexnet_deploy.index.compressed_record import AGAIN, FOLDER_NAME
from alexnet_deploy.index.ledger import INTEGER
from alexnet_deploy.index.segments import SegmentUnreadableError
from alexnet_deploy.index.storage import Storage

_BLOCK_ROWS = 512
_ROUNDING = 1e-6
"""Of points and lengths, computed on another machine, and of lengths stored in float32."""


def compressed_problems(index: Storage) -> Iterator[str]:
    """Yield a line if the compressed vectors are not those of the index, reading all of both."""
    try:
        found = read_compressed(index)
    except IncompatibleFileError as error:
        yield str(error)
        return
    if found is None:
        return
    last, num_wrong = -1, 0
    while rows := list(
        index.ledger.rows(
            "SELECT position FROM vectors WHERE position > ? AND position < ? "
            "ORDER BY position LIMIT ?",
            (last, found.record.next_position, _BLOCK_ROWS),
            kinds=(INTEGER,),
        )
    ):
        positions = np.array(rows, np.int64).ravel()
        last = int(positions[-1])
        num_wrong += _num_wrong(index, found, positions)
    if num_wrong:
        yield (
            f"{index.directory / FOLDER_NAME}: {num_wrong:,} vectors have the compressed form of "
            f"others, or none, so that a search can miss them; {AGAIN}"
        )


def _num_wrong(index: Storage, found: Compressed, positions: NDArray[np.int64]) -> int:
    """Count the vectors at (N,) positions whose compressed forms are farther away than stated."""
    is_there = np.isin(positions, found.positions)
    try:
        vectors = index.segments.take(positions[is_there])
    except SegmentUnreadableError:  # which is a problem of the vectors, or a run has moved them
        return 0
    rows = np.searchsorted(found.positions, positions[is_there])
    num_right = 0
    if len(rows):
        points = found.compression.points(vectors)
        errors = points.coordinates - found.compression.decoded(found.codes[rows])
        lengths = found.lengths[rows].astype(np.float64)
        is_near = np.sqrt((errors * errors).sum(axis=1)) <= found.record.error + _ROUNDING
        is_as_long = np.abs(lengths - points.lengths) <= _ROUNDING * points.lengths
        num_right = int(((is_near & is_as_long) | (lengths == 0)).sum())
    return len(positions) - num_right
