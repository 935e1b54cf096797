"""Patterns of files and folders in a root: of what an index leaves out, of what is searched.

A pattern without a slash is compared with every name below the root, any other with the path from
the root. `*`, `?` and `[...]` do not cross a slash, `**` stands for any folders between two. What
lies in a folder that matches is matched with it.
"""

import fnmatch
import glob
import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from alexnet_deploy.errors import Argument, UsageError

_ANY = "**"


class Patterns:
    """Some patterns of a root, any of which may match.

    Attributes:
        unmatched: those of them that have matched nothing yet.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._compiled = {one: re.compile(_expression(_names(one)), re.S) for one in patterns}
        self.unmatched = set(self._compiled)

    def __bool__(self) -> bool:
        return bool(self._compiled)

    def match(self, path: str) -> bool:
        """Return whether a path, relative to the root, or a folder that it is in, matches."""
        found = {one for one, compiled in self._compiled.items() if compiled.match(path)}
        self.unmatched -= found
        return bool(found)


def within(pattern: str, folder: Path, argument: str = "exclude") -> str | None:
    """Return the pattern for the root `folder` of what a user wrote; None if it lies elsewhere.

    Args:
        pattern: what was written; the whole path from / is one, too.
        folder: of the root.
        argument: that it was written for.

    Raises:
        UsageError: it names no file or folder in any root.
    """
    names = pattern.split("/")
    if ".." in names or not {*names} - {"", ".", _ANY}:
        raise UsageError(
            Argument(argument, pattern),
            ": expected names in the folder, such as raw, '*.png' or 2019/raw",
        )
    if not pattern.startswith("/"):
        return pattern
    inside = str(folder / "x")[:-1]
    return f"./{pattern.removeprefix(inside)}" if pattern.startswith(inside) else None


def within_each(argument: str, patterns: Sequence[str], folders: Sequence[Path]) -> list[list[str]]:
    """Return, for each of some roots' folders, the patterns that a user wrote, see `within`.

    Raises:
        UsageError: one names no file or folder, or one in none of them.
    """
    found = [[within(pattern, folder, argument) for pattern in patterns] for folder in folders]
    for pattern, *inside in zip(patterns, *found, strict=True):
        if folders and not any(inside):
            known = ", ".join(map(str, folders))
            raise UsageError(Argument(argument, pattern), f": lies in none of {known}")
    return [[pattern for pattern in inside if pattern is not None] for inside in found]


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


def _expression(names: list[str]) -> str:
    """Return the regular expression of a pattern, for the first names of a path.

    Its time grows with the product of both lengths at most, whatever a stranger's index has for
    patterns: the first place where a fixed part fits is as good as any other, so that nothing after
    an atomic group goes back into it.
    """
    parts: list[str] = []
    for is_any, part in itertools.groupby(names, _ANY.__eq__):
        if not is_any:
            anywhere = "(?:[^/]+/)*?" if parts or names[0] == _ANY else ""
            parts.append(f"(?>{anywhere}{'/'.join(map(_name_expression, part))}(?=/|\\Z))")
    return "/".join(parts)


def _name_expression(name: str) -> str:
    parts = [""]
    for piece in re.findall(r"\[!?\]?[^]]*\]|.", name, re.S):
        if piece == "*":
            parts.append("")
        elif piece == "?":
            parts[-1] += "[^/]"
        else:  # without the (?s: and )\Z around it
            parts[-1] += "(?!/)" * (len(piece) > 1) + fnmatch.translate(piece)[4:-3]
    first, *others = parts
    middle = "".join(f"(?>[^/]*?{part})" for part in others[:-1])
    return first + middle + "".join(f"[^/]*{part}" for part in others[-1:])
