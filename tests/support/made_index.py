"""An index of made vectors, as runs of `index` would leave it, without photographs or a network."""

import hashlib
import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.index.ledger import Ledger
from alexnet_deploy.index.manifest import Manifest, VectorSpace, write_manifest
from alexnet_deploy.index.segments import vector_checksum
from alexnet_deploy.index.storage import Storage, open_storage_to_write
from alexnet_deploy.photographs.pixels import EXACT

_names = itertools.count()


def make_index(directory: Path, dimension: int, *, segment_rows: int = 64) -> None:
    """Make an empty index."""
    (directory / "vectors").mkdir(parents=True)
    Ledger.create(directory)
    space = VectorSpace(
        identity="0" * 64,
        layer="pool5",
        dimension=dimension,
        preprocessing={},
        precision="fp32",
        decode=EXACT,
    )
    write_manifest(Manifest(space=space, segment_rows=segment_rows), directory)
    with Ledger.open(directory) as ledger, ledger.transaction():
        ledger.execute("INSERT INTO roots (path, include_hidden) VALUES (?, 0)", (b"/made",))


@contextmanager
def run_on(directory: Path) -> Iterator[Storage]:
    """Open an index as a run does, which is recorded."""
    with open_storage_to_write(directory) as index:
        with index.ledger.transaction():
            index.ledger.execute(
                "INSERT INTO runs (started, finished) VALUES (?, ?)", (time.time(), time.time())
            )
        yield index


def add(index: Storage, vectors: NDArray[np.float16]) -> list[int]:
    """Add a photograph for each vector; return the positions."""
    start = index.next_position()
    positions = list(range(start, start + len(vectors)))
    names = [b"%d.jpg" % next(_names) for _ in vectors]
    hashes = [hashlib.sha256(name).digest() for name in names]
    index.segments.append(start, vectors)
    with index.ledger.transaction():
        index.ledger.execute_many(
            "INSERT INTO vectors VALUES (?, ?, ?)",
            zip(positions, hashes, map(vector_checksum, vectors), strict=True),
        )
        index.ledger.execute_many(
            "INSERT INTO photographs (root, path, size, mtime_ns, sha256, position, status) "
            "VALUES (1, ?, 1, 1, ?, ?, 'indexed')",
            zip(names, hashes, positions, strict=True),
        )
        index.ledger.execute("UPDATE settings SET next_position = next_position + ?", (len(names),))
    return positions


def remove(index: Storage, positions: Sequence[int]) -> None:
    """Remove the photographs of some vectors, which stay until a prune."""
    with index.ledger.transaction():
        index.ledger.execute_many(
            "DELETE FROM photographs WHERE position = ?", [(one,) for one in positions]
        )


def live(index: Storage) -> NDArray[np.int64]:
    """Return the positions of the vectors that photographs have, ascending."""
    rows = index.ledger.rows("SELECT position FROM photographs ORDER BY position")
    return np.array([position for (position,) in rows], np.int64)


def clustered(count: int, dimension: int, seed: int = 0) -> NDArray[np.float16]:
    """Return vectors as of photographs: positive, of some kinds, each with neighbours."""
    generator = np.random.default_rng(seed)
    kinds = np.random.default_rng(9).normal(0, 1, (40, 12)) @ np.random.default_rng(8).normal(
        0, 1, (12, dimension)
    )
    rows = kinds[generator.integers(0, 40, count)] + generator.normal(0, 0.7, (count, dimension))
    return np.maximum(rows, 0).astype(np.float16)
