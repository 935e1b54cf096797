"""Compare folders with the ledger: what is new, what has changed, what is gone.

SQLite compares, in temporary tables on disk, so that memory does not grow with the number of
photographs.
"""

import functools
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alexnet_deploy.errors import UsageError
from alexnet_deploy.index.exclusions import Patterns
from alexnet_deploy.index.ledger import BLOB, INTEGER, Ledger
from alexnet_deploy.index.roots import Root, Roots
from alexnet_deploy.index.scopes import IN_SCOPE, Scope, scope_bounds
from alexnet_deploy.photographs.file_stamps import is_settled, modified_ns
from alexnet_deploy.photographs.finding import find_photographs
from alexnet_deploy.photographs.suffixes import needs_extra

_TABLES = (
    "CREATE TEMP TABLE found (number INTEGER PRIMARY KEY, root INTEGER NOT NULL, "
    "path BLOB NOT NULL, size INTEGER, mtime_ns INTEGER, is_settled INTEGER NOT NULL, "
    "UNIQUE (root, path))",
    "CREATE TEMP TABLE unread (root INTEGER NOT NULL, path BLOB NOT NULL)",
    "CREATE TEMP TABLE gone (id INTEGER PRIMARY KEY, root INTEGER NOT NULL, "
    "is_lost INTEGER NOT NULL DEFAULT 1)",
    "CREATE TEMP TABLE todo (number INTEGER PRIMARY KEY)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A photograph to read: new, changed, or to be retried.

    Attributes:
        root: id of its root.
        path: relative to the root.
        file: absolute.
        size: when it was found; None if it could not be determined.
        mtime_ns: likewise, or None where it proves nothing, see `FileStamp`.
    """

    root: int
    path: bytes
    file: Path
    size: int | None
    mtime_ns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Photographs of one root that are gone, and whose content is nowhere else in the index.

    Attributes:
        root: their root.
        num_lost: how many.
        num_indexed: how many the root had.
        num_before: how many it had when photographs were first missing, if they still are: what
            is added while a drive is unmounted makes the loss no smaller.
    """

    root: Root
    num_lost: int
    num_indexed: int
    num_before: int

    @property
    def is_suspicious(self) -> bool:
        """Return whether more than a fifth is lost: an unmounted drive loses all."""
        return self.num_lost * 5 > self.num_before


class Scan:
    """The photographs found in some scopes, compared with the ledger.

    Args:
        ledger: in a transaction. The scan uses its connection's temporary tables: one scan per
            connection.
        scopes: to scan, none inside another.
        directory: of the index, which is not scanned.
        retry_failed: whether to retry failures even if nothing changed.
        left_out: as for `finding.find_photographs`.

    Attributes:
        num_found: photographs in the scopes.
        num_tasks: those of them to be read.
        num_failed_before: those that failed in an earlier run and are not retried.
        num_gone: photographs in the ledger that no longer exist.
        num_waiting: photographs in the ledger that only a missing extra could read.
    """

    def __init__(
        self,
        ledger: Ledger,
        scopes: Sequence[Scope],
        *,
        directory: Path,
        retry_failed: bool,
        left_out: Callable[[str], None] = lambda path: None,
    ) -> None:
        self._ledger = ledger
        self._left_out = left_out
        self._scopes = scopes
        self._placed: tuple[tuple[int, str], str | None] = (0, ""), None
        self._roots = Roots(ledger)
        self._exclusions = {root.id: Patterns(root.exclude) for root in self._roots}
        self._num_indexed = dict(
            ledger.rows(
                "SELECT root, count(*) FROM photographs WHERE status != 'failed' GROUP BY root",
                kinds=(INTEGER,),
            )
        )
        for table in _TABLES:
            ledger.execute(table)
        for scope in scopes:
            ledger.execute(
                f"DELETE FROM left_out WHERE root = ? AND {IN_SCOPE}",
                (scope.root.id, *scope_bounds(scope)),
            )
            ledger.execute_many(
                "INSERT OR IGNORE INTO found VALUES (NULL, ?, ?, ?, ?, ?)",
                self._entries(scope, directory),
            )
        ledger.execute(
            "INSERT INTO todo SELECT number FROM found f "
            "LEFT JOIN photographs p ON p.root = f.root AND p.path = f.path "
            "WHERE p.id IS NULL OR p.status = 'pending' OR (p.status = 'failed' AND ?) "
            "OR p.size IS NOT f.size OR p.mtime_ns IS NOT f.mtime_ns",
            (retry_failed,),
        )
        self.num_waiting = 0
        for scope in scopes:
            self._note_gone(scope)
        self._note_losses()
        (self.num_found,) = ledger.one("SELECT count(*) FROM found")
        (self.num_tasks,) = ledger.one("SELECT count(*) FROM todo")
        (self.num_failed_before,) = ledger.one(
            "SELECT count(*) FROM found f "
            "JOIN photographs p ON p.root = f.root AND p.path = f.path "
            "WHERE p.status = 'failed' AND number NOT IN (SELECT number FROM todo)"
        )
        (self.num_gone,) = ledger.one("SELECT count(*) FROM gone")

    def tasks(self) -> Iterator[Task]:
        """Yield the tasks in the order found; each query sees the ledger as it is."""
        last = 0
        while True:
            # In chunks: a statement must not stay open while the tables that it reads change.
            rows = list(
                self._ledger.rows(
                    "SELECT number, root, path, size, iif(is_settled, mtime_ns, NULL) FROM found "
                    "JOIN todo USING (number) WHERE number > ? ORDER BY number LIMIT 1000",
                    (last,),
                )
            )
            if not rows:
                return
            last = rows[-1][0]
            for _, root, path, size, mtime_ns in rows:
                file = self._roots.file(root, path)
                yield Task(root=root, path=path, file=file, size=size, mtime_ns=mtime_ns)

    def unmatched(self, root: Root) -> set[str]:
        """Return which patterns of a root have matched nothing."""
        return self._exclusions[root.id].unmatched

    def losses(self) -> list[Loss]:
        """Return each root's losses, after the tasks are done.

        A renamed or copied photograph is not a loss: its content is elsewhere. Nor is a raw file
        that now lies beside its JPEG.
        """
        self._ledger.execute(
            "UPDATE gone SET is_lost = 0 WHERE id IN ("
            "SELECT g.id FROM gone g JOIN photographs p ON p.id = g.id "
            "WHERE p.status = 'failed' OR EXISTS (SELECT 1 FROM left_out l "
            "WHERE l.root = p.root AND l.path = p.path) OR EXISTS (SELECT 1 FROM photographs other "
            "WHERE other.position = p.position AND other.id NOT IN (SELECT id FROM gone)))"
        )
        before = dict(
            self._ledger.rows("SELECT root, photographs FROM before_loss", kinds=(INTEGER, INTEGER))
        )
        lost = self._ledger.rows("SELECT root, count(*) FROM gone WHERE is_lost GROUP BY root")
        return [
            Loss(
                root=self._roots[root],
                num_lost=num_lost,
                num_indexed=self._num_indexed[root],
                num_before=min(self._num_indexed[root], before.get(root, self._num_indexed[root])),
            )
            for root, num_lost in lost
        ]

    def remove_gone(self, losses: Sequence[Loss]) -> int:
        """Remove gone photographs from the ledger, except the losses of roots not given.

        Returns:
            The number of photographs removed.
        """
        num_removed = 0
        with self._ledger.transaction():
            num_removed += self._ledger.execute(
                "DELETE FROM photographs WHERE id IN (SELECT id FROM gone WHERE NOT is_lost)"
            )
            for loss in losses:
                num_removed += self._ledger.execute(
                    "DELETE FROM photographs WHERE id IN (SELECT id FROM gone WHERE root = ?)",
                    (loss.root.id,),
                )
            for scope in self._scopes:
                if not scope.prefix:
                    self._ledger.execute(
                        "DELETE FROM before_loss WHERE root = ? "
                        "AND root NOT IN (SELECT g.root FROM gone g JOIN photographs USING (id)) "
                        "AND root NOT IN (SELECT root FROM unread)",
                        (scope.root.id,),
                    )
        return num_removed

    def _entries(
        self, scope: Scope, directory: Path
    ) -> Iterator[tuple[int, bytes, int | None, int | None, bool]]:
        """Yield the columns of `found` for each photograph in a scope."""
        try:
            os.scandir(scope.folder).close()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise UsageError(
                f"{scope.folder}: cannot be searched ({error.strerror or error}); fix its drive "
                "or its permissions first: its photographs stay in the index"
            ) from error
        exclusions = self._exclusions[scope.root.id]
        photographs = photographs_in(
            scope.folder,
            scope.root,
            exclusions,
            exclude=directory,
            left_out=functools.partial(self._note_left_out, scope.root),
        )
        for photograph in photographs:
            text = self._filed(photograph, scope.root)
            if text is None:
                continue
            if exclusions and exclusions.match(text):  # it was reached by a link
                continue
            path = os.fsencode(text)
            try:
                status = os.stat(photograph)
            except OSError:
                # Perhaps a folder: what cannot be examined is not necessarily gone.
                self._ledger.execute("INSERT INTO unread VALUES (?, ?)", (scope.root.id, path))
                yield scope.root.id, path, None, None, True
                continue
            if stat.S_ISDIR(status.st_mode):
                # It cannot be listed, which does not mean that its contents are gone.
                self._ledger.execute("INSERT INTO unread VALUES (?, ?)", (scope.root.id, path))
            mtime_ns = modified_ns(status)
            yield scope.root.id, path, status.st_size, mtime_ns, is_settled(mtime_ns)

    def _note_left_out(self, root: Root, photograph: str) -> None:
        """Write down, and count, a photograph that is not tried."""
        text = self._filed(photograph, root)
        if text is None:
            return
        exclusions = self._exclusions[root.id]
        if not (exclusions and exclusions.match(text)):  # it may have been reached by a link
            self._left_out(photograph)
            row = (root.id, os.fsencode(text))
            self._ledger.execute("INSERT OR IGNORE INTO left_out VALUES (?, ?)", row)

    def _filed(self, photograph: str | Path, root: Root) -> str | None:
        """Return the path in `root` under which a photograph is filed; see `_place`."""
        folder, name = os.path.split(photograph)
        if (root.id, folder) != self._placed[0]:  # those of a folder come one after another
            self._placed = (root.id, folder), self._place(folder, root)
        place = self._placed[1]
        return None if place is None else os.path.join(place, name)

    def _place(self, folder: str, root: Root) -> str | None:
        """Return the path in `root` under which a folder's photographs are filed.

        A link may lead to a folder that already is in a root: then they are filed under their place
        there or, in another root, skipped, so that no photograph is indexed twice.
        """
        real = Path(os.path.realpath(folder))
        for other in self._roots:
            if real == other.path or other.path in real.parents:
                return _relative(real, root) if other.id == root.id else None
        return _relative(Path(folder), root)

    def _note_gone(self, scope: Scope) -> None:
        """Note the rows of a scope that were not found, but for those that an extra would read."""
        self._ledger.execute(
            "INSERT INTO gone (id, root) SELECT id, root FROM photographs p "
            f"WHERE root = ? AND {IN_SCOPE} "
            "AND NOT EXISTS (SELECT 1 FROM found f WHERE f.root = p.root AND f.path = p.path) "
            "AND NOT EXISTS (SELECT 1 FROM unread u WHERE u.root = p.root "
            "AND p.path > CAST(u.path || '/' AS BLOB) AND p.path < CAST(u.path || '0' AS BLOB))",
            (scope.root.id, *scope_bounds(scope)),
        )
        kept = self._ledger.rows(
            "SELECT g.id, p.path FROM gone g JOIN photographs p ON p.id = g.id "
            "JOIN left_out l ON l.root = p.root AND l.path = p.path WHERE p.root = ?",
            (scope.root.id,),
            kinds=(INTEGER, BLOB),
        )
        waiting = [(key,) for key, path in kept if needs_extra(os.fsdecode(path))]
        self.num_waiting += len(waiting)
        self._ledger.execute_many("DELETE FROM gone WHERE id = ?", waiting)
        exclusions = self._exclusions[scope.root.id]
        if exclusions:
            rows = self._ledger.rows(
                "SELECT g.id, path FROM gone g JOIN photographs p ON p.id = g.id "
                f"WHERE p.root = ? AND {IN_SCOPE}",
                (scope.root.id, *scope_bounds(scope)),
                kinds=(INTEGER, BLOB),
            )
            # Whoever excludes them wants them gone: no loss.
            wanted = [(key,) for key, path in rows if exclusions.match(os.fsdecode(path))]
            self._ledger.execute_many("UPDATE gone SET is_lost = 0 WHERE id = ?", wanted)

    def _note_losses(self) -> None:
        """Write down how many photographs a root had before it perhaps lost too many.

        Before any is added, so that a killed run leaves the number, too.
        """
        gone = self._ledger.rows(
            "SELECT g.root, count(*) FROM gone g JOIN photographs USING (id) "
            "WHERE is_lost AND status != 'failed' GROUP BY g.root"
        )
        for root, num_gone in list(gone):
            num_indexed = self._num_indexed[root]
            if num_gone * 5 > num_indexed:
                row = (root, num_indexed)
                self._ledger.execute("INSERT OR IGNORE INTO before_loss VALUES (?, ?)", row)


def photographs_in(
    folder: Path,
    root: Root,
    exclusions: Patterns,
    *,
    exclude: Path | None = None,
    left_out: Callable[[str], None] = lambda path: None,
) -> Iterator[Path]:
    """Yield the photographs in a folder of a root, but for what the root leaves out.

    Args:
        folder: the root's, or one in it.
        root: says whether hidden files are included.
        exclusions: of the root.
        exclude: as for `find_photographs`.
        left_out: as for `find_photographs`.
    """
    start = len(os.path.join(root.path, ""))
    return find_photographs(
        [folder],
        include_hidden=root.include_hidden,
        exclude=exclude,
        left_out=left_out,
        skip=(lambda path: exclusions.match(path[start:])) if exclusions else None,
    )


def _relative(folder: Path, root: Root) -> str:
    """Return a folder's path in `root`, "" for the root itself."""
    path = str(folder.relative_to(root.path))
    return "" if path == "." else path
