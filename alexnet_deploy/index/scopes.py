"""The parts of an index's root folders that a run scans, or takes out.

See `roots`.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alexnet_deploy.errors import Argument, UsageError
from alexnet_deploy.index.exclusions import Patterns, folder_pattern
from alexnet_deploy.index.imported_roots import ImportedRoot, imported_roots
from alexnet_deploy.index.ledger import Ledger
from alexnet_deploy.index.named_folders import check_named, remember_folders
from alexnet_deploy.index.roots import (
    Root,
    add_exclusions,
    add_root,
    all_roots,
    is_in_index,
    set_exclusions,
)
from alexnet_deploy.photographs.finding import has_hidden_part


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


def scopes(
    ledger: Ledger,
    folders: Sequence[Path],
    *,
    include_hidden: bool,
    exclude: Sequence[str] | None,
    directory: Path,
) -> list[Scope]:
    """Return the scopes of `folders`, or of all roots if empty; new roots are added to the ledger.

    A missing folder is returned if the index knows it, so that its photographs count as gone.

    Args:
        ledger: in a transaction.
        folders: as the user gave them, which is remembered; only what was given in some run is
            scanned without being given.
        include_hidden: stored with each root from now on.
        exclude: patterns as a user wrote them, stored with each root in place of those before; None
            for those before.
        directory: of the index itself, which must not be one of them.

    Raises:
        UsageError: a folder that does not exist and is not known, a file, the index itself, a
            hidden folder of a root without hidden files, an excluded folder, no folder for an index
            without any, or for one with roots that were never given; a pattern that is none.
    """
    found: list[Scope] = []
    imported = {root.path for root in imported_roots(ledger)}
    for folder in folders:
        path = Path(os.path.realpath(folder))
        if is_in_index(path, directory):
            raise UsageError(f"{folder}: is the index itself; give the folder of the photographs")
        if path in imported:
            raise _is_imported(folder)
        scope = _known_scope(ledger, path)
        if not os.path.isdir(path) and scope is None:
            raise _not_a_folder(folder)
        found.append(scope or Scope(root=add_root(ledger, path)))
    if folders:
        remember_folders(directory, [scope.folder for scope in found])
    else:
        found = [Scope(root=root) for root in all_roots(ledger)]
        if not found and not imported:
            raise UsageError("the index has no photographs yet; give their folder")
        check_named(directory, [scope.folder for scope in found])
    if exclude is not None:
        set_exclusions(ledger, exclude, {scope.root.id for scope in found})
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
    widest = list(_widest(found, {root.id: root for root in all_roots(ledger)}))
    _check_not_excluded(widest)
    return widest


def _check_not_excluded(scopes: Sequence[Scope]) -> None:
    for scope in scopes:
        if scope.prefix and Patterns(scope.root.exclude).match(os.fsdecode(scope.prefix)):
            raise UsageError(
                f"{scope.folder}: is excluded from {scope.root.path}; give the patterns that are "
                "to stay with ",
                Argument("exclude"),
            )


def remove_folder(ledger: Ledger, folder: Path) -> int:
    """Take the photographs in a folder out, there or not, and keep them out.

    Args:
        ledger: in a transaction.
        folder: a root, one in it, which is excluded from now on, or one that roots are in; or a
            file that was imported.

    Returns:
        How many were taken out.

    Raises:
        UsageError: the index has no such folder.
    """
    path = Path(os.path.realpath(folder))
    known_roots: list[Root | ImportedRoot] = [*all_roots(ledger), *imported_roots(ledger)]
    inner = [root for root in known_roots if path in (root.path, *root.path.parents)]
    num_removed = 0
    for root in inner:
        sql = "DELETE FROM photographs WHERE root = ?"
        num_removed += ledger.execute(sql, (root.id,))
        ledger.execute("DELETE FROM roots WHERE id = ?", (root.id,))
    scope = _known_scope(ledger, path)
    if scope is None:
        if inner:
            return num_removed
        raise _no_such_folder("remove", folder, known_roots)
    add_exclusions(ledger, scope.root.id, [folder_pattern(os.fsdecode(scope.prefix))])
    bounds = (scope.root.id, *scope_bounds(scope))
    ledger.execute(f"DELETE FROM left_out WHERE root = ? AND {IN_SCOPE}", bounds)
    sql = f"DELETE FROM photographs WHERE root = ? AND {IN_SCOPE}"
    return num_removed + ledger.execute(sql, bounds)


def scopes_within(ledger: Ledger, folders: Sequence[Path]) -> list[Scope]:
    """Return what the index has in some folders: roots and parts of roots, none inside another.

    Raises:
        UsageError: it has nothing in one, which is no folder in any of its roots either.
    """
    roots = {root.id: root for root in all_roots(ledger)}
    found: list[Scope] = []
    for folder in folders:
        some = _scopes_in(ledger, folder, list(roots.values()))
        if not some:
            raise _no_such_folder("within", folder, roots.values())
        found += some
    return list(_widest(found, roots))


def _scopes_in(ledger: Ledger, folder: Path, roots: Sequence[Root]) -> list[Scope]:
    """Return the roots in a folder, and the parts of roots that it is.

    What is indexed through a link in a root is found under the link's name, too.
    """
    names = {folder.absolute(), Path(os.path.realpath(folder))}
    found = [Scope(root=root) for root in roots if names & {root.path, *root.path.parents}]
    for name in names:
        for outer in name.parents:
            places = (outer, Path(os.path.realpath(outer)))
            prefix = os.fsencode(name.relative_to(outer))
            inner = [Scope(root=root, prefix=prefix) for root in roots if root.path in places]
            found += [one for one in inner if _is_folder(ledger, one)]
    return found


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


def _known_scope(ledger: Ledger, path: Path) -> Scope | None:
    """Return the part of a known root that `path` is, or None."""
    for root in all_roots(ledger):
        if root.path == path:
            return Scope(root=root)
        if root.path in path.parents:
            scope = Scope(root=root, prefix=os.fsencode(path.relative_to(root.path)))
            if _is_folder(ledger, scope):
                return scope
    return None


def _is_folder(ledger: Ledger, scope: Scope) -> bool:
    """Return whether a part of a root is on the disk, or in the ledger."""
    if os.path.isdir(scope.folder):
        return True
    sql = f"SELECT 1 FROM photographs WHERE root = ? AND {IN_SCOPE}"
    return ledger.one(sql, (scope.root.id, *scope_bounds(scope))) is not None


IN_SCOPE = "path >= ? AND path < ?"


def scope_bounds(scope: Scope) -> tuple[bytes, bytes]:
    """Return the parameters of `IN_SCOPE`: paths below the prefix, in byte order."""
    if not scope.prefix:
        return b"", b"\xff" * 5000  # longer than any path (PATH_MAX is 4096)
    return scope.prefix + b"/", scope.prefix + b"0"  # "0" follows "/"


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


def _no_such_folder(
    argument: str, folder: Path, roots: Iterable[Root | ImportedRoot]
) -> UsageError:
    known = ", ".join(str(root.path) for root in roots) or "none"
    return UsageError(
        Argument(argument, str(folder)), f": no folder of the index is there (it has {known})"
    )


def _is_imported(folder: Path) -> UsageError:
    return UsageError(
        f"{folder}: a file of vectors of this name was imported; take it out first, with ",
        Argument("remove", str(folder)),
    )


def _not_a_folder(folder: Path) -> UsageError:
    if os.path.exists(folder):
        return UsageError(f"{folder}: is a file; an index holds folders, give the one it is in")
    return UsageError(f"{folder}: does not exist; give a folder of photographs")
