"""Patterns of files and folders that an index leaves out of one of its roots.

A pattern without a slash is compared with every name below the root, any other with the path from
the root. `*`, `?` and `[...]` do not cross a slash, `**` stands for any folders between two. What
lies in a folder that matches is left out with it.
"""

import glob
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from alexnet_deploy.errors import Argument, UsageError

_ANY = "**"


class Exclusions:
    """The patterns of a root.

    Attributes:
        unmatched: those of them that have matched nothing yet.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._names = {pattern: _names(pattern) for pattern in patterns}
        self.unmatched = set(self._names)

    def __bool__(self) -> bool:
        return bool(self._names)

    def match(self, path: str) -> bool:
        """Return whether a path, relative to the root, or a folder that it is in, is left out."""
        names = path.split("/")
        found = {one for one, pattern in self._names.items() if _begins_with(names, pattern)}
        self.unmatched -= found
        return bool(found)


def within(pattern: str, folder: Path) -> str | None:
    """Return the pattern for the root `folder` of what a user wrote; None if it lies elsewhere.

    Raises:
        UsageError: it names no file or folder in any root.
    """
    names = pattern.split("/")
    if ".." in names or not {*names} - {"", ".", _ANY}:
        raise UsageError(
            Argument("exclude", pattern),
            ": expected names in the folder, such as raw, '*.png' or 2019/raw",
        )
    if not pattern.startswith("/"):
        return pattern
    inside = str(folder / "x")[:-1]
    return f"./{pattern.removeprefix(inside)}" if pattern.startswith(inside) else None


def moved_into(pattern: str, prefix: str) -> str:
    """Return the pattern for a root in which that of `pattern` is the folder `prefix`."""
    return "/".join([".", glob.escape(prefix), *_names(pattern)])


def folder_pattern(prefix: str) -> str:
    """Return the pattern of one folder in a root."""
    return f"./{glob.escape(prefix)}"


def _names(pattern: str) -> list[str]:
    """Return what each name of a path is compared with, from the root."""
    names = [] if "/" in pattern.rstrip("/") else [_ANY]
    for name in pattern.split("/"):
        if name not in ("", ".") and [name] != names[-1:] * (name == _ANY):
            names.append(name)
    if names[-1:] == [_ANY]:  # all in a folder, or the folder: the same
        names.pop()
    return names or ["*"]


def _begins_with(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether the first of `names`, one or more, match all of `pattern`."""
    places = {0}  # in the pattern, up to which the names so far may match
    for name in names:
        places |= {place + 1 for place in places if pattern[place] == _ANY}
        places = {
            place if pattern[place] == _ANY else place + 1
            for place in places
            if pattern[place] == _ANY or fnmatchcase(name, pattern[place])
        }
        if len(pattern) in places:
            return True
    return False
