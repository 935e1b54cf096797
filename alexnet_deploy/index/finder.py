"""Map nearest vectors to the photographs that have them."""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy import arguments
from alexnet_deploy.choices import METRICS, Metric
from alexnet_deploy.errors import PhotographError
from alexnet_deploy.index.filters import Filters, Selection
from alexnet_deploy.index.ledger import BLOB, INTEGER, NULL, NUM_PARAMETERS
from alexnet_deploy.index.ranking import Ranking
from alexnet_deploy.index.results import Neighbour, Query
from alexnet_deploy.index.roots import Roots
from alexnet_deploy.index.storage import Storage
from alexnet_deploy.photographs.file_stamps import modified_ns, read_stamped

_ALL = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """Which neighbours to return; see `session.Index.search`."""

    k: int
    metric: Metric
    max_distance: float | None
    filters: Filters
    effort: int | None

    @classmethod
    def of(
        cls, k: object, metric: Metric, max_distance: object, filters: Filters, effort: object
    ) -> Self:
        """Check the arguments of a search; one whose effort is too little for so many is proved.

        Raises:
            UsageError: one of them is out of its range.
        """
        num_wanted = min(arguments.count("k", k), 2**31)  # no index has more; NumPy has 64 bits
        num_compared = None if effort is None else arguments.count("effort", effort)
        return cls(
            k=num_wanted,
            metric=arguments.choice("metric", metric, METRICS),
            max_distance=(
                None if max_distance is None else arguments.distance("max_distance", max_distance)
            ),
            filters=filters,
            effort=None if (num_compared or 0) < 2 * num_wanted else num_compared,
        )


class PhotographFinder:
    """Maps vectors to the photographs that have them, in a snapshot.

    Args:
        storage: of the index.
        selection: the photographs that may be neighbours; None for all.
    """

    def __init__(self, storage: Storage, selection: Selection | None = None) -> None:
        self._storage = storage
        self._selection = selection
        self._ledger = storage.ledger
        self._roots = Roots(storage.ledger)

    def own_ids(self, query: Query, sha256: bytes | None) -> frozenset[int]:
        """Return the ids under which the query's own file is indexed, following links.

        By its path, whatever its content is now, and by links to it with the same content.
        """
        if not isinstance(query, Path):
            return frozenset()
        real = os.path.realpath(query)
        folder, name = os.path.split(os.path.abspath(query))
        ids: set[int] = set()
        for path in {
            real,
            os.path.join(os.path.realpath(folder), name),
            os.path.join(folder, name),
        }:
            for root in self._roots:
                if root.path in Path(path).parents:
                    relative = os.fsencode(os.path.relpath(path, root.path))
                    row = self._ledger.one(
                        "SELECT id FROM photographs WHERE root = ? AND path = ?",
                        (root.id, relative),
                    )
                    ids |= set() if row is None else {int(row[0])}
        ids |= self._imported("id", query)
        position = self._storage.position_of(sha256)
        for file in self.files(position) if position is not None else ():
            if os.path.realpath(file.path) == real:
                ids.add(file.id)
        return frozenset(ids)

    def imported_position(self, query: Path) -> int | None:
        """Return where the vector is that was imported for a photograph of this name, if any."""
        return min(self._imported("position", query), default=None)

    def _imported(self, column: str, query: Path) -> set[int]:
        """Return the ids or the positions of what was imported under a query's path, or URL."""
        if not self._roots.has_imported:
            return set()
        # Of two slashes a Path keeps one.
        names = {str(query), re.sub(r"^(\w+):/(?!/)", r"\1://", str(query))}
        names |= {os.path.abspath(query), os.path.realpath(query)}
        rows = self._ledger.rows(
            f"SELECT {column} FROM photographs WHERE root IN (SELECT root FROM imported) "
            f"AND status = 'indexed' AND path IN ({', '.join('?' * len(names))})",
            [os.fsencode(name) for name in names],
            kinds=(INTEGER,),
        )
        return {number for (number,) in rows}

    def neighbours(
        self,
        ranking: Ranking,
        own_ids: frozenset[int],
        criteria: Criteria,
        *,
        sha256: bytes | None,
        rotations: NDArray[np.int64],
    ) -> Iterator[Neighbour]:
        """Yield the photographs of a ranking, ties by id.

        Args:
            ranking: of one query.
            own_ids: photographs to leave out.
            criteria: which ones, and how many.
            sha256: of the query's bytes, where the index has them.
            rotations: (K,) of the query, by which each vector of the ranking was found.
        """
        own_position = self._storage.position_of(sha256)
        cosines, distances = ranking.cosine_similarity, ranking.l2_distance
        is_cosine = criteria.metric == "cosine"
        values = -cosines if is_cosine else distances
        farthest = np.inf if criteria.max_distance is None else criteria.max_distance
        if is_cosine:
            farthest -= 1  # the limit is on 1 - cosine similarity, and values are -cosine
        start = 0
        while start < len(values) and values[start] <= farthest:
            stop = int(np.searchsorted(values, values[start], "right"))
            tied = {int(ranking.positions[number]): number for number in range(start, stop)}
            for row in self._first_by_id(list(tied), criteria.k + len(own_ids)):
                if row.id not in own_ids:
                    number = tied[row.position]
                    is_as_indexed = row.is_as_indexed()
                    yield Neighbour(
                        path=row.path,
                        cosine_similarity=float(cosines[number]),
                        l2_distance=float(distances[number]),
                        rotation=int(rotations[number]),
                        is_identical=row.position == own_position and row.has_bytes(sha256),
                        is_changed=is_as_indexed is False,
                        imported=row.imported,
                    )
            start = stop

    def files(self, position: int) -> list["IndexedFile"]:
        """Return the files in folders that have one vector: they had the same bytes."""
        return [file for file in self._first_by_id([position], _ALL) if file.imported is None]

    def _first_by_id(self, positions: Sequence[int], num_wanted: int) -> list["IndexedFile"]:
        """Return the first photographs that may be neighbours and have one of the vectors."""
        column, keys = "position", positions
        if self._selection is not None:  # of one vector perhaps not all of its photographs
            column, keys = "id", self._selection.first_ids(positions, num_wanted)
        found: list[tuple[Any, ...]] = []
        for first in range(0, len(keys), NUM_PARAMETERS):
            some = keys[first : first + NUM_PARAMETERS]
            marks = ", ".join("?" * len(some))
            found += self._ledger.rows(
                "SELECT id, root, path, position, size, mtime_ns FROM photographs "
                f"WHERE {column} IN ({marks}) ORDER BY id LIMIT ?",
                (*some, num_wanted),
                kinds=(INTEGER, INTEGER, BLOB, INTEGER, INTEGER | NULL, INTEGER | NULL),
            )
        return [
            IndexedFile(
                key, self._roots.file(root, path), self._roots.imported_name(root, path), *others
            )
            for key, root, path, *others in sorted(found)[:num_wanted]
        ]


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """A photograph of the ledger.

    Attributes:
        id: of its row.
        path: absolute; of an imported one what it names.
        imported: see `Neighbour.imported`.
        position: of its vector.
        size: in bytes, when it was indexed.
        mtime_ns: its time then, as of `FileStamp`.
    """

    id: int
    path: Path
    imported: str | None
    position: int
    size: int | None
    mtime_ns: int | None

    def is_as_indexed(self) -> bool | None:
        """Return whether the file still has the size and, as far as it proves one, the time.

        None where there is no file, or it may not be looked at, and for what was imported.
        """
        if self.imported is not None:
            return None
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return status.st_size == self.size and self.mtime_ns in (None, modified_ns(status))

    def has_bytes(self, sha256: bytes | None) -> bool:
        """Return whether the file has these bytes still, with which it was indexed.

        It is read where the ledger has no time by which to know, see `FileStamp`.
        """
        if not self.is_as_indexed():
            return False
        try:
            return self.mtime_ns is not None or read_stamped(self.path)[1].sha256 == sha256
        except PhotographError:
            return False
