"""The root folders of an index, and the parts of them that a run scans.

A root's path is stored with links resolved, so that every spelling of it is the same root. Roots do
not nest: a folder inside a root is part of it, and a folder that contains roots absorbs them.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alexnet_deploy.errors import Argument, UsageError
from alexnet_deploy.index.ledger import BLOB, INTEGER, Ledger
from alexnet_deploy.index.named_folders import check_named, remember_folders
from alexnet_deploy.photographs.finding import has_hidden_part


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A folder whose photographs are in the index.

    Attributes:
        id: its id in the ledger.
        path: absolute, links resolved.
        include_hidden: whether hidden files are included.
    """

    id: int
    path: Path
    include_hidden: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """A root, or one folder in it, that a run scans.

    Attributes:
        root: the root.
        prefix: the folder's path in the root, empty for the whole root.
    """

    root: Root
    prefix: bytes = b""

    @property
    def folder(self) -> Path:
        """Return the folder's absolute path."""
        return self.root.path / os.fsdecode(self.prefix)


def all_roots(ledger: Ledger) -> list[Root]:
    """Return the roots in the order in which they were added."""
    rows = ledger.rows(
        "SELECT id, path, include_hidden FROM roots ORDER BY id", kinds=(INTEGER, BLOB, INTEGER)
    )
    roots = []
    for key, path, hidden in rows:
        if not path.startswith(b"/") or b"\0" in path:
            raise ledger.damaged(f"the root {path!r} is no absolute path")
        roots.append(Root(id=key, path=Path(os.fsdecode(path)), include_hidden=bool(hidden)))
    return roots


class Roots:
    """The roots of an index, and the files of its rows in them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._by_id = {root.id: root for root in all_roots(ledger)}

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
        """Return the file of a row, which lies below its root.

        Raises:
            IncompatibleFileError: `path` leads elsewhere, or there is no such root.
        """
        parts = path.split(b"/")
        if b"\0" in path or not {b"", b".", b".."}.isdisjoint(parts):
            raise self._ledger.damaged(f"the path {path!r} leads out of its root")
        return self[key].path / os.fsdecode(path)


def scopes(
    ledger: Ledger, folders: Sequence[Path], *, include_hidden: bool, directory: Path
) -> list[Scope]:
    """Return the scopes of `folders`, or of all roots if empty; new roots are added to the ledger.

    A missing folder is returned if the index knows it, so that its photographs count as gone.

    Args:
        ledger: in a transaction.
        folders: as the user gave them, which is remembered; only what was given in some run is
            scanned without being given.
        include_hidden: stored with each root from now on.
        directory: of the index itself, which must not be one of them.

    Raises:
        UsageError: a folder that does not exist and is not known, a file, the index itself, a
            hidden folder of a root without hidden files, no folder for an index without any, or
            for one with roots that were never given.
    """
    found: list[Scope] = []
    for folder in folders:
        path = Path(os.path.realpath(folder))
        if _is_in_index(path, directory):
            raise UsageError(f"{folder}: is the index itself; give the folder of the photographs")
        scope = _known_scope(ledger, path)
        if not os.path.isdir(path) and scope is None:
            raise _not_a_folder(folder)
        found.append(scope or Scope(root=_add_root(ledger, path)))
    if folders:
        remember_folders(directory, [scope.folder for scope in found])
    else:
        found = [Scope(root=root) for root in all_roots(ledger)]
        if not found:
            raise UsageError("the index has no photographs yet; give their folder")
        check_named(directory, [scope.folder for scope in found])
    for scope in found:
        if include_hidden:
            ledger.execute("UPDATE roots SET include_hidden = 1 WHERE id = ?", (scope.root.id,))
        elif not scope.root.include_hidden and has_hidden_part(os.fsdecode(scope.prefix)):
            raise UsageError(
                f"{scope.folder}: is hidden in {scope.root.path}, whose hidden files are not "
                "indexed; add ",
                Argument("include_hidden", True),
                " to index them from now on",
            )
    return list(_widest(found, {root.id: root for root in all_roots(ledger)}))


def check_folders(folders: Sequence[Path]) -> None:
    """Reject paths that are not folders, before an index is created.

    Raises:
        UsageError: a file, a path that does not exist, or no folders at all.
    """
    if not folders:
        raise UsageError("the index does not exist yet; give the folders of its photographs")
    for folder in folders:
        if not os.path.isdir(folder):
            raise _not_a_folder(folder)


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
    if _is_in_index(path, directory):
        raise UsageError(argument, f": {new} is the index itself")
    for other in roots.keys() - {moved.path}:
        if other == path or other in path.parents or path in other.parents:
            raise UsageError(argument, f": {path} overlaps the root {other}; index it as it is now")
    remember_folders(directory, [path])
    ledger.execute("UPDATE roots SET path = ? WHERE id = ?", (os.fsencode(path), moved.id))


def _is_in_index(path: Path, directory: Path) -> bool:
    own = Path(os.path.realpath(directory))
    return path == own or own in path.parents


def _known_scope(ledger: Ledger, path: Path) -> Scope | None:
    """Return the part of a known root that `path` is, or None."""
    for root in all_roots(ledger):
        if root.path == path:
            return Scope(root=root)
        if root.path in path.parents:
            scope = Scope(root=root, prefix=os.fsencode(path.relative_to(root.path)))
            if os.path.isdir(path) or _has_photographs(ledger, scope):
                return scope
    return None


def _has_photographs(ledger: Ledger, scope: Scope) -> bool:
    sql = f"SELECT 1 FROM photographs WHERE root = ? AND {IN_SCOPE}"
    return ledger.one(sql, (scope.root.id, *scope_bounds(scope))) is not None


IN_SCOPE = "path >= ? AND path < ?"


def scope_bounds(scope: Scope) -> tuple[bytes, bytes]:
    """Return the parameters of `IN_SCOPE`: paths below the prefix, in byte order."""
    if not scope.prefix:
        return b"", b"\xff" * 5000  # longer than any path (PATH_MAX is 4096)
    return scope.prefix + b"/", scope.prefix + b"0"  # "0" follows "/"


def _add_root(ledger: Ledger, path: Path) -> Root:
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
    for root in inner:
        prefix = os.fsencode(root.path.relative_to(path)) + b"/"
        ledger.execute(
            "UPDATE photographs SET root = ?, path = CAST(? || path AS BLOB) WHERE root = ?",
            (key, prefix, root.id),
        )
        ledger.execute("DELETE FROM roots WHERE id = ?", (root.id,))
    return Root(id=key, path=path, include_hidden=include_hidden)


def _widest(found: list[Scope], roots: dict[int, Root]) -> Iterator[Scope]:
    """Yield each scope once, with its current root, except those inside another."""
    seen: list[Scope] = []
    for scope in found:
        root = roots.get(scope.root.id)
        if root is None:  # absorbed by a folder given later
            continue
        seen.append(Scope(root=root, prefix=scope.prefix))
    for index, scope in enumerate(seen):
        others = seen[:index] + [other for other in seen[index + 1 :] if other != scope]
        if not any(_contains(other, scope) for other in others):
            yield scope


def _contains(outer: Scope, inner: Scope) -> bool:
    return outer.root.id == inner.root.id and (
        not outer.prefix
        or inner.prefix == outer.prefix
        or inner.prefix.startswith(outer.prefix + b"/")
    )


def _not_a_folder(folder: Path) -> UsageError:
    if os.path.exists(folder):
        return UsageError(f"{folder}: is a file; an index holds folders, give the one it is in")
    return UsageError(f"{folder}: does not exist; give a folder of photographs")
