"""The root folders of an index.

A root's path is stored with links resolved, so that every spelling of it is the same root. Roots do
not nest: a folder inside a root is part of it, and a folder that contains roots absorbs them.

Files of vectors that were imported are roots of another kind, see `imported_roots`.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alexnet_deploy.errors import Argument, UsageError
from alexnet_deploy.index.exclusions import moved_into, within_each
from alexnet_deploy.index.imported_roots import absolute_path, imported_roots, of_folders
from alexnet_deploy.index.ledger import BLOB, INTEGER, Ledger
from alexnet_deploy.index.named_folders import remember_folders
from alexnet_deploy.photographs.finding import has_hidden_part


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A folder whose photographs are in the index.

    Attributes:
        id: its id in the ledger.
        path: absolute, links resolved.
        include_hidden: whether hidden files are included.
        exclude: patterns of what is left out, see `exclusions`.
    """

    id: int
    path: Path
    include_hidden: bool
    exclude: tuple[str, ...] = ()


def all_roots(ledger: Ledger) -> list[Root]:
    """Return the folders in the order in which they were added."""
    is_folder = of_folders(ledger, root="id")
    rows = ledger.rows(
        f"SELECT id, path, include_hidden FROM roots WHERE {is_folder} ORDER BY id",
        kinds=(INTEGER, BLOB, INTEGER),
    )
    excluded: dict[int, list[str]] = {}
    if ledger.version() > 2:
        sql = "SELECT root, pattern FROM exclusions ORDER BY root, pattern"
        for key, pattern in ledger.rows(sql, kinds=(INTEGER, BLOB)):
            excluded.setdefault(key, []).append(os.fsdecode(pattern))
    roots = []
    for key, path, hidden in rows:
        root = Root(
            id=key,
            path=absolute_path(ledger, path),
            include_hidden=bool(hidden),
            exclude=tuple(excluded.get(key, ())),
        )
        roots.append(root)
    return roots


class Roots:
    """The roots of an index, and the files of its rows in them; its items are the folders.

    Attributes:
        has_imported: whether some of them are files of vectors.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._by_id = {root.id: root for root in all_roots(ledger)}
        self._imported = {root.id for root in imported_roots(ledger)}
        self.has_imported = bool(self._imported)

    def __iter__(self) -> Iterator[Root]:
        return iter(self._by_id.values())

    def __getitem__(self, key: int) -> Root:
        """Return the root of a row.

        Raises:
            IncompatibleFileError: there is none.
        """
        if key not in self._by_id:
            raise self._ledger.damaged(f"a photograph is of root {key}, and there is none")
        return self._by_id[key]

    def file(self, key: int, path: bytes) -> Path:
        """Return the file of a row, which lies below its root; of an imported row what it names.

        Raises:
            IncompatibleFileError: `path` leads elsewhere, or there is no such root.
        """
        name = self.imported_name(key, path)
        if name is not None:
            return Path(name)
        parts = path.split(b"/")
        if b"\0" in path or not {b"", b".", b".."}.isdisjoint(parts):
            raise self._ledger.damaged(f"the path {path!r} leads out of its root")
        return self[key].path / os.fsdecode(path)

    def shown(self, key: int, path: bytes) -> Path | str:
        """Return what a row is called: its file, or the name under which it was imported.

        Raises:
            IncompatibleFileError: as `file` and `imported_name`.
        """
        return self.imported_name(key, path) or self.file(key, path)

    def imported_name(self, key: int, path: bytes) -> str | None:
        """Return what the file of an imported row calls its photograph, None for other rows.

        Raises:
            IncompatibleFileError: no file can say that.
        """
        if key not in self._imported:
            return None
        if not path or b"\0" in path:
            raise self._ledger.damaged(f"the name {path!r} is none that is imported")
        return os.fsdecode(path)


def move_root(ledger: Ledger, old_and_new: str, *, directory: Path) -> None:
    """Change a root's path: the folder was moved, or its drive is mounted elsewhere.

    Args:
        ledger: in a transaction.
        old_and_new: "OLD=NEW"; either may contain "=".
        directory: of the index itself, which must not be one of them.

    Raises:
        UsageError: OLD is not a root, or NEW is not a folder, lies in the index, or overlaps
            another root.
    """
    argument = Argument("moved_roots", old_and_new)
    roots = {root.path: root for root in all_roots(ledger)}
    for index, character in enumerate(old_and_new):
        old, new = old_and_new[:index], old_and_new[index + 1 :]
        # Unresolved first: a link to the new place may have been left there.
        names = (Path(os.path.abspath(old)), Path(os.path.realpath(old)))
        moved = next((roots[name] for name in names if old and name in roots), None)
        if character == "=" and moved is not None:
            break
    else:
        known = ", ".join(str(path) for path in roots) or "none"
        raise UsageError(
            argument, f": expected OLD=NEW with OLD one of the index's roots ({known})"
        )
    path = Path(os.path.realpath(new))
    if not new or not os.path.isdir(path):
        raise UsageError(argument, f": {new or 'NEW'} is not a folder")
    if is_in_index(path, directory):
        raise UsageError(argument, f": {new} is the index itself")
    for other in roots.keys() - {moved.path}:
        if other == path or other in path.parents or path in other.parents:
            raise UsageError(argument, f": {path} overlaps the root {other}; index it as it is now")
    remember_folders(directory, [path])
    ledger.execute("UPDATE roots SET path = ? WHERE id = ?", (os.fsencode(path), moved.id))


def set_exclusions(ledger: Ledger, patterns: Sequence[str], keys: Iterable[int]) -> None:
    """Store what roots leave out, in place of what they did.

    Raises:
        UsageError: a pattern names nothing in any of them.
    """
    roots = [root for root in all_roots(ledger) if root.id in keys]
    inside = within_each("exclude", patterns, [root.path for root in roots])
    for root, some in zip(roots, inside, strict=True):
        ledger.execute("DELETE FROM exclusions WHERE root = ?", (root.id,))
        add_exclusions(ledger, root.id, some)


def is_in_index(path: Path, directory: Path) -> bool:
    """Return whether a path, links resolved, is an index or lies in it."""
    own = Path(os.path.realpath(directory))
    return path == own or own in path.parents


def add_root(ledger: Ledger, path: Path) -> Root:
    """Add a new root; roots inside it become parts of it."""
    inner = [root for root in all_roots(ledger) if path in root.path.parents]
    include_hidden = any(
        root.include_hidden or has_hidden_part(str(root.path.relative_to(path))) for root in inner
    )
    ledger.execute(
        "INSERT INTO roots (path, include_hidden) VALUES (?, ?)",
        (os.fsencode(path), include_hidden),
    )
    (key,) = ledger.one("SELECT id FROM roots WHERE path = ?", (os.fsencode(path),))
    marks = ", ".join("?" * len(inner))
    # What is missing from one of them is missing from the whole. Of one group, since SQLite before
    # 3.39 has no HAVING without groups.
    ledger.execute(
        "INSERT INTO before_loss SELECT ?, sum(coalesce(b.photographs, (SELECT count(*) "
        "FROM photographs p WHERE p.root = r.id AND p.status != 'failed'))) FROM roots r "
        f"LEFT JOIN before_loss b ON b.root = r.id WHERE r.id IN ({marks}) "
        "GROUP BY 1 HAVING count(b.root)",
        (key, *(root.id for root in inner)),
    )
    for root in inner:
        folder = str(root.path.relative_to(path))
        ledger.execute(
            "UPDATE photographs SET root = ?, path = CAST(? || path AS BLOB) WHERE root = ?",
            (key, os.fsencode(f"{folder}/"), root.id),
        )
        add_exclusions(ledger, key, [moved_into(pattern, folder) for pattern in root.exclude])
        ledger.execute("DELETE FROM roots WHERE id = ?", (root.id,))
    return Root(id=key, path=path, include_hidden=include_hidden)


def add_exclusions(ledger: Ledger, key: int, patterns: Iterable[str]) -> None:
    """Let a root leave out more."""
    ledger.execute_many(
        "INSERT OR IGNORE INTO exclusions VALUES (?, ?)",
        [(key, os.fsencode(pattern)) for pattern in patterns],
    )
