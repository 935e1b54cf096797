"""What a disk may hold after the power has failed, by the operations until then.

Modelled: what was written since the last sync of its file is there in part, in pieces of 512 bytes
of which any may be missing (zeros, or what was there before), and so are changes of the size. What
was created, renamed or removed since the last sync of its folder is there or not, name by name and
in no order, as POSIX allows; a sync of a file says nothing of its name. Journaling file systems
keep more than this.

Not modelled: disks that lie about syncs, pieces that are torn within 512 bytes, damage of what was
synced, permissions and times, links.
"""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.support.disk_watch import Operation

PIECE_BYTES = 512
Fate = Literal["lost", "kept", "mixed"]
"""Of what was not synced: nothing of it is there, all of it, or any part."""

_Name = int | None
"""The inode that a name has, or None."""


@dataclass(slots=True)
class _File:
    """A file, as it is on the disk, and what was done to it since."""

    synced: bytes = b""
    pending: list[Operation] = field(default_factory=list)


class Disk:
    """A folder on a disk.

    Args:
        root: an existing folder whose content is on the disk.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder_inodes = {root.stat().st_ino: str(root)}
        self._files: dict[int, _File] = {}
        # What each path may be on the disk: the last is what it is now.
        self._names: dict[str, list[_Name]] = {}
        self._folders: dict[str, list[bool]] = {str(root): [True]}
        for path in root.rglob("*"):
            if path.is_dir():
                self._folders[str(path)] = [True]
                self._folder_inodes[path.stat().st_ino] = str(path)
            else:
                self._files[path.stat().st_ino] = _File(synced=path.read_bytes())
                self._names[str(path)] = [path.stat().st_ino]

    def do(self, operation: Operation) -> None:
        """Take an operation that has succeeded."""
        path = operation.path
        if operation.kind == "create":
            self._files[operation.inode] = _File()
            self._rename(path, operation.inode)
        elif operation.kind in ("write", "truncate"):
            self._files[operation.inode].pending.append(operation)
        elif operation.kind == "sync":
            self._sync(operation)
        elif operation.kind == "rename":
            inode = self._names[path][-1]
            self._rename(operation.other, inode)
            self._rename(path, None)
        elif operation.kind == "unlink":
            self._rename(path, None)
        elif operation.kind == "mkdir":
            self._folders[path] = [False, True]

    def _rename(self, path: str, inode: _Name) -> None:
        self._names.setdefault(path, [None]).append(inode)

    def _sync(self, operation: Operation) -> None:
        if operation.inode in self._files:
            file = self._files[operation.inode]
            file.synced = _applied(file.synced, file.pending)
            file.pending.clear()
            return
        for states in (self._names, self._folders):
            for path, versions in states.items():
                if str(Path(path).parent) == operation.path:
                    del versions[:-1]

    def write_to(self, target: Path, fate: Fate, rng: random.Random) -> None:
        """Make what the disk holds if the power fails now, in a folder that does not exist."""
        target.mkdir()
        for path, versions in sorted(self._folders.items()):
            place = target / Path(path).relative_to(self._root)
            if _chosen(versions, fate, rng) and place.parent.is_dir():
                place.mkdir(exist_ok=True)
        for path, names in sorted(self._names.items()):
            inode = _chosen(names, fate, rng)
            place = target / Path(path).relative_to(self._root)
            if inode is not None and place.parent.is_dir():
                place.write_bytes(self._content(self._files[inode], fate, rng))

    def _content(self, file: _File, fate: Fate, rng: random.Random) -> bytes:
        if fate == "lost":
            return file.synced
        if fate == "kept":
            return _applied(file.synced, file.pending)
        # Half of the time a prefix, else any pieces: either may be harder to bear.
        if rng.random() < 0.5:
            return _applied(file.synced, file.pending[: rng.randint(0, len(file.pending))])
        pieces = [piece for operation in file.pending for piece in _pieces(operation)]
        return _applied(file.synced, [piece for piece in pieces if rng.random() < 0.5])


def _chosen(versions: Sequence[_Name] | Sequence[bool], fate: Fate, rng: random.Random) -> _Name:
    if fate == "mixed":
        return rng.choice(versions)
    return versions[0] if fate == "lost" else versions[-1]


def _pieces(operation: Operation) -> list[Operation]:
    """Divide a write where the disk may."""
    if operation.kind != "write":
        return [operation]
    start, end = operation.offset, operation.offset + len(operation.data)
    cuts = [start, *range((start // PIECE_BYTES + 1) * PIECE_BYTES, end, PIECE_BYTES), end]
    return [
        Operation(
            kind="write",
            path=operation.path,
            other="",
            inode=operation.inode,
            offset=first,
            data=operation.data[first - start : last - start],
        )
        for first, last in itertools.pairwise(cuts)
    ]


def _applied(content: bytes, operations: Sequence[Operation]) -> bytes:
    data = bytearray(content)
    for operation in operations:
        if operation.kind == "truncate":
            size = operation.offset
            data = data[:size].ljust(size, b"\0")
        else:
            end = operation.offset + len(operation.data)
            data = data.ljust(operation.offset, b"\0")
            data[operation.offset : end] = operation.data
    return bytes(data)
