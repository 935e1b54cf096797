"""Filters of a search: which photographs may be its neighbours, decided before any is ranked.

M photographs that pass, N vectors that they have.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy import arguments
from alexnet_deploy.index.exclusions import Patterns, within_each
from alexnet_deploy.index.ledger import BLOB, INTEGER, NULL, Ledger
from alexnet_deploy.index.roots import Roots
from alexnet_deploy.index.scopes import IN_SCOPE, scope_bounds, scopes_within
from alexnet_deploy.photographs.file_stamps import modified_ns

_ROW = np.dtype([("id", np.int64), ("position", np.int64)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What a photograph must be to be found; what is empty or None says nothing.

    Attributes:
        within: absolute paths of folders; it is in one of them.
        glob: patterns, see `exclusions`; one matches its path from the root.
        since_ns: nanoseconds since 1970; its file was modified then or later.
    """

    within: tuple[Path, ...] = ()
    glob: tuple[str, ...] = ()
    since_ns: int | None = None

    @classmethod
    def of(cls, within: object, glob: object, since: object) -> Self:
        """Check the arguments of `session.Index.search`.

        Raises:
            UsageError: one of them has another type, or `since` is no time.
        """
        return cls(
            within=tuple(Path(one).absolute() for one in arguments.paths("within", within)),
            glob=tuple(arguments.paths("glob", glob)),
            since_ns=None if since is None else arguments.time_ns("since", since),
        )

    def __bool__(self) -> bool:
        return self != Filters()


class Selection:
    """The photographs of an index that pass its filters.

    Attributes:
        positions: (N,) int64, ascending, of their vectors.
    """

    def __init__(self, rows: NDArray[Any]) -> None:
        rows = rows[np.argsort(rows["position"], kind="stable")]
        self._ids, self._positions = rows["id"].copy(), rows["position"].copy()
        self.positions: NDArray[np.int64] = np.unique(self._positions)

    def first_ids(self, positions: Sequence[int], count: int) -> list[int]:
        """Return the lowest `count` ids of those that have one of the vectors, ascending."""
        starts = np.searchsorted(self._positions, positions, "left")
        stops = np.searchsorted(self._positions, positions, "right")
        found = [self._ids[start:stop] for start, stop in zip(starts, stops, strict=True)]
        ids: list[int] = np.sort(np.concatenate(found))[:count].tolist()
        return ids


class Selector:
    """Selects photographs, and keeps the last selection until the ledger changes."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._last: tuple[Filters, int] | None = None
        self._selection: Selection | None = None

    def select(self, filters: Filters) -> Selection | None:
        """Return the photographs that pass, in a snapshot of the ledger; None without filters.

        Raises:
            UsageError: the index has nothing in a folder that is not there either; or a pattern
                names no file or folder, or one outside all roots.
        """
        if not filters:
            return None
        (version,) = self._ledger.one("PRAGMA data_version")  # grows with others' commits
        if self._last != (filters, version):
            rows = np.fromiter(_passing(self._ledger, filters), _ROW)
            self._selection, self._last = Selection(rows), (filters, version)
        return self._selection


def _passing(ledger: Ledger, filters: Filters) -> Iterator[tuple[int, int]]:
    """Yield id and position of each photograph that passes.

    Where the ledger has no time, since the file had just been written, the file itself is asked;
    what was imported has none.
    """
    roots, since_ns = Roots(ledger), filters.since_ns
    inside = within_each("glob", filters.glob, [root.path for root in roots])
    patterns = {root.id: Patterns(some) for root, some in zip(roots, inside, strict=True)}
    of_imported = Patterns(filters.glob)  # compared with names, as their files give them
    parts: list[tuple[str, tuple[Any, ...]]] = [("1", ())]
    if filters.within:
        scopes = scopes_within(ledger, filters.within)
        parts = [(f"root = ? AND {IN_SCOPE}", (one.root.id, *scope_bounds(one))) for one in scopes]
    for condition, bounds in parts:
        for key, root, position, path, mtime_ns in ledger.rows(
            f"SELECT id, root, position, path, mtime_ns FROM photographs WHERE {condition} "
            "AND position IS NOT NULL AND (? IS NULL OR mtime_ns IS NULL OR mtime_ns >= ?)",
            (*bounds, since_ns, since_ns),
            kinds=(INTEGER, INTEGER, INTEGER, BLOB, INTEGER | NULL),
        ):
            name = roots.imported_name(root, path)
            own = of_imported if name is not None else patterns[roots[root].id]
            # A URL has an empty name after its scheme.
            names = "/".join(filter(None, os.fsdecode(path).split("/")))
            if filters.glob and not own.match(names):
                continue
            is_open = mtime_ns is None and since_ns is not None
            if is_open and (name is not None or not _is_modified(roots.file(root, path), since_ns)):
                continue
            yield key, position


def _is_modified(path: Path, since_ns: int | None) -> bool:
    """Return whether a file is there and was modified since."""
    try:
        return modified_ns(os.stat(path)) >= (since_ns or 0)
    except OSError:
        return False
