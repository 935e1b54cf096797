"""Map nearest vectors to the photographs that have them."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_deploy.choices import Metric
from alexnet_deploy.index.ledger import BLOB, INTEGER
from alexnet_deploy.index.ranking import Ranking
from alexnet_deploy.index.results import Neighbour, Query
from alexnet_deploy.index.roots import Roots
from alexnet_deploy.index.storage import Storage

_NUM_PARAMETERS = 500  # per statement; SQLite allows 32,766


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """Which neighbours to return; see `session.Index.search`."""

    k: int
    metric: Metric
    max_distance: float | None


class PhotographFinder:
    """Maps vectors to the photographs that have them, in a snapshot."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
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
        position = self._storage.position_of(sha256)
        for key, indexed in self._photographs(position) if position is not None else ():
            if os.path.realpath(indexed) == real:
                ids.add(key)
        return frozenset(ids)

    def neighbours(
        self,
        ranking: Ranking,
        own_ids: frozenset[int],
        criteria: Criteria,
    ) -> Iterator[Neighbour]:
        """Yield the photographs of a ranking, ties by id."""
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
            for key, path, position in self._first_by_id(list(tied), criteria.k + len(own_ids)):
                if key not in own_ids:
                    number = tied[position]
                    yield Neighbour(
                        path=path,
                        cosine_similarity=float(cosines[number]),
                        l2_distance=float(distances[number]),
                    )
            start = stop

    def _first_by_id(
        self, positions: Sequence[int], num_wanted: int
    ) -> list[tuple[int, Path, int]]:
        """Return id, path and position of the first photographs that have one of the vectors."""
        found: list[tuple[Any, ...]] = []
        for first in range(0, len(positions), _NUM_PARAMETERS):
            some = positions[first : first + _NUM_PARAMETERS]
            marks = ", ".join("?" * len(some))
            found += self._ledger.rows(
                f"SELECT id, root, path, position FROM photographs WHERE position IN ({marks}) "
                "ORDER BY id LIMIT ?",
                (*some, num_wanted),
                kinds=(INTEGER, INTEGER, BLOB, INTEGER),
            )
        return [
            (key, self._roots.file(root, path), position)
            for key, root, path, position in sorted(found)[:num_wanted]
        ]

    def _photographs(self, position: int) -> Iterator[tuple[int, Path]]:
        for key, root, path in self._ledger.rows(
            "SELECT id, root, path FROM photographs WHERE position = ?",
            (position,),
            kinds=(INTEGER, INTEGER, BLOB),
        ):
            yield key, self._roots.file(root, path)
