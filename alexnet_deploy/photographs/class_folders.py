"""Data sets with one sub-folder per class, as in ImageNet's layout.

    root/daisy/1.jpg  root/daisy/more/2.png  root/tulip/1.jpg    two classes, three photographs

N photographs. Their names are stored in one block of bytes, because 1.28 million `Path` objects
would take more than 400 MB in each worker.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import DatasetError, UsageError
from alexnet_deploy.photographs.finding import find_photographs, has_hidden_part
from alexnet_deploy.photographs.suffixes import LeftOut, Suffixes, searched_for, split

_LAYOUT = "expected one sub-folder of photographs for each class, as in root/daisy/1.jpg"
_MAX_NAMED = 5  # more would make the message unreadable


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassFolders:
    """The photographs of a data set and their classes: 40 to 60 bytes each, cheap to pickle.

    Attributes:
        root: the folder, as given.
        classes: names of the sub-folders, sorted; a class's number is its index.
        labels: [N] int32, class number of each photograph.
        names: paths relative to the class's folder, concatenated, as raw bytes.
        spans: [N, 2] int64, start and end of each photograph's path in `names`.
    """

    root: Path
    classes: tuple[str, ...]
    labels: NDArray[np.int32]
    names: bytes
    spans: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_unlabelled(self) -> int:
        """Photographs in the folder without a class: there are none, they are refused."""
        return 0

    def path(self, index: int) -> Path:
        """Return the file of one photograph."""
        start, end = self.spans[index].tolist()
        name = os.fsdecode(self.names[start:end])
        return self.root / self.classes[int(self.labels[index])] / name

    def select(self, indices: NDArray[np.int64]) -> "ClassFolders":
        """Return these photographs in this order; classes and their numbers do not change."""
        return ClassFolders(
            root=self.root,
            classes=self.classes,
            labels=self.labels[indices],
            names=self.names,
            spans=self.spans[indices],
        )


def find_class_folders(
    root: Path,
    *,
    if_flat: str = "move them",
    left_out: Callable[[str], None] = lambda path: None,
) -> ClassFolders:
    """Find the photographs below each sub-folder of `root`, sorted by class, then by path.

    As in `finding.find_photographs`, hidden files and folders are skipped and folders within a
    class searched; files that cannot be loaded, such as broken links, are included.

    Args:
        root: the data set.
        if_flat: what to do about photographs beside the sub-folders, for the message.
        left_out: as for `finding.find_photographs`.

    Raises:
        UsageError: `root` does not exist or is not a folder.
        DatasetError: there are no sub-folders; one is empty of photographs, cannot be listed, or
            links to a folder that contains it; or photographs without a class lie beside them.
    """
    classes = _class_names(root, if_flat)
    names: list[bytes] = []
    counts = []
    unread = LeftOut()

    def note(path: str) -> None:
        unread(path)
        left_out(path)

    for name in classes:
        found = _photographs_of(root / name, note)
        counts.append(len(found))
        names.extend(found)
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if empty:
        raise DatasetError(
            f"{root}: {_count(len(empty), 'class')} without photographs ({_some(empty)}); "
            f"looked for {searched_for()}; "
            "fill or remove these sub-folders" + (f"; {line}" if (line := unread.line()) else "")
        )
    ends = np.cumsum([len(name) for name in names], dtype=np.int64)
    return ClassFolders(
        root=root,
        classes=classes,
        labels=np.repeat(np.arange(len(classes), dtype=np.int32), counts),
        names=b"".join(names),
        spans=np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1),
    )


def _class_names(root: Path, if_flat: str) -> tuple[str, ...]:
    """Return the names of the sub-folders, sorted."""
    folders: list[str] = []
    photographs: list[str] = []
    read = Suffixes().read
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if has_hidden_part(entry.name):
                    continue
                if entry.is_dir():
                    _refuse_loop(root, entry)
                    folders.append(entry.name)
                elif split(entry.name)[1] in read:
                    photographs.append(entry.name)
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, OSError) and error.errno == errno.ENOENT:
            reason = "does not exist"
        raise UsageError(f"{root}: {reason}; {_LAYOUT}") from error
    if photographs:
        raise DatasetError(
            f"{root}: {_count(len(photographs), 'photograph')} outside the sub-folders "
            f"({_some(sorted(photographs))}), so without a class; {_LAYOUT}: ",
            if_flat,
        )
    if not folders:
        raise DatasetError(f"{root}: no sub-folders; {_LAYOUT}")
    return tuple(sorted(folders))


def _refuse_loop(root: Path, entry: "os.DirEntry[str]") -> None:
    """Reject a link that would count all photographs again as another class."""
    if entry.is_symlink() and root.resolve().is_relative_to(Path(entry.path).resolve()):
        raise DatasetError(
            f"{entry.path}: links to {root} or a folder above it, so it is not a class; remove it"
        )


def _photographs_of(folder: Path, left_out: Callable[[str], None]) -> list[bytes]:
    """Return the paths of the photographs below one class's folder, relative to it, sorted."""
    start = len(os.fsencode(folder)) + 1
    found = []
    for path in find_photographs([folder], left_out=left_out):
        if path == folder:  # this is how a folder that cannot be listed is reported
            raise DatasetError(f"{folder}: cannot be listed; get permission to read it")
        found.append(os.fsencode(path)[start:])
    return sorted(found)


def _count(number: int, noun: str) -> str:
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number:,} {noun if number == 1 else plural}"


def _some(names: list[str]) -> str:
    """Name the first few."""
    more = f" and {len(names) - _MAX_NAMED:,} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(map(repr, names[:_MAX_NAMED])) + more
