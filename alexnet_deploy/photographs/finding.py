"""Find photographs below the paths that a user gives."""

import errno
import glob
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from alexnet_deploy import arguments
from alexnet_deploy.errors import UsageError
from alexnet_deploy.photographs.suffixes import Suffixes, split

# Thumbnails, recycle bins and snapshots of Synology, QNAP, Windows and macOS (zip), and ext4's.
_SERVICE_FOLDERS = frozenset(
    {"@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "lost+found"}
    | {"$recycle.bin", "system volume information", "__macosx"}
)


def find_photographs(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    include_hidden: bool = False,
    exclude: Path | None = None,
    skip: Callable[[str], bool] | None = None,
    left_out: Callable[[str], None] = lambda path: None,
) -> Iterator[Path]:
    """Check the paths immediately, then yield each photograph once, lazily.

    A folder is searched recursively for files with the suffix of a photograph: its own files by
    name, then its sub-folders by name, then linked folders. A raw file beside a JPEG of its name is
    the same photograph, and left out. A file given explicitly is always yielded, whatever it is. A
    path that does not exist and contains one of `*?[` is a pattern; `**` crosses folders. A folder
    that cannot be listed, and a broken link with a photograph's suffix, are yielded too: loading
    them raises the reason.

    A folder is visited once, under the first path that leads to it, so links cannot loop; a file
    given twice, or also below a given folder, is yielded once. Memory holds the visited folders,
    the arguments, and the names in one folder, not the photographs.

    Args:
        paths: files, folders and patterns, one or several, in order.
        include_hidden: also search names that begin with a dot and service folders of file servers
            and archivers (`@eaDir`, `#recycle`, `__MACOSX`).
        exclude: an existing folder that is never searched, by whichever path it is reached.
        skip: called with the path of each file and folder that is found in a folder; True leaves it
            out.
        left_out: called with the path of each photograph in a folder that is left out: a raw file
            beside its JPEG, or one that nothing reads that is installed.

    Raises:
        UsageError: a path does not exist, or a pattern matches nothing.
    """
    several = arguments.paths("paths", paths)
    given = [name for path in several for name in _expand(path, include_hidden)]
    return _Search(given, include_hidden, exclude, skip, left_out).photographs()


def find_listed(
    paths: Sequence[str],
    *,
    include_hidden: bool = False,
    left_out: Callable[[str], None] = lambda path: None,
) -> Iterator[Path]:
    """Yield what a list names, as `find_photographs` does, but each name is what it says.

    No name is a pattern, and one that is not there is yielded: loading it raises the reason.
    """
    return _Search(list(paths), include_hidden, None, None, left_out).photographs()


def check_not_photograph(output: Path, photographs: Iterable[object]) -> None:
    """Refuse to write over a photograph that is read, by whichever path it is named.

    Args:
        output: the file to be written, there or not.
        photographs: their paths; anything else among them is no file.

    Raises:
        UsageError: `output` is one of them.
    """
    if not output.exists():
        return
    real = os.path.realpath(output)
    paths = (photograph for photograph in photographs if isinstance(photograph, Path))
    if any(os.path.realpath(path) == real for path in paths):
        raise UsageError(f"{output}: is one of the photographs; name another file")


def has_hidden_part(path: str) -> bool:
    """Return whether any name in a path is skipped unless hidden files are included."""
    return any(
        name.startswith(".") or name.lower() in _SERVICE_FOLDERS for name in path.split(os.sep)
    )


def _expand(text: str, include_hidden: bool) -> list[str]:
    """Return the path itself if it exists, else its matches as a pattern."""
    try:
        os.lstat(text)
    except PermissionError:
        return [text]
    except (OSError, ValueError) as error:  # ValueError: a null character
        if not any(character in text for character in "*?["):
            reason = getattr(error, "strerror", None) or str(error)
            if isinstance(error, FileNotFoundError):
                reason = "does not exist"
            raise UsageError(
                f"path {text!r}: {reason}; give a photograph, a folder, or a pattern in quotes"
            ) from error
        matches = sorted(glob.iglob(text, recursive=True, include_hidden=include_hidden))
        if not matches:
            raise UsageError(
                f"pattern {text!r} matches nothing; check the folder and the suffix "
                "('**' crosses folders)"
            ) from error
        return matches
    return [text]


class _Search:
    """The state of one search: visited folders, and which of the given files have been yielded."""

    def __init__(
        self,
        given: list[str],
        include_hidden: bool,
        exclude: Path | None,
        skip: Callable[[str], bool] | None,
        left_out: Callable[[str], None],
    ) -> None:
        self._suffixes = Suffixes()
        self._left_out = left_out
        self._given = given
        self._skip = skip
        self._include_hidden = include_hidden
        self._visited: set[tuple[int, int]] = set()  # (device, inode) of folders
        if exclude is not None:
            status = exclude.stat()
            self._visited.add((status.st_dev, status.st_ino))
        self._came = {_identity(path): False for path in given if not os.path.isdir(path)}

    def photographs(self) -> Iterator[Path]:
        """Yield the photographs of the given paths, in order."""
        for path in self._given:
            if os.path.isdir(path):
                yield from self._below(path)
            elif self._comes_first(_identity(path)):
                yield Path(path)

    def _comes_first(self, identity: str) -> bool:
        """Return whether a file has not been yielded yet; only given files can recur."""
        if identity not in self._came:
            return True
        first = not self._came[identity]
        self._came[identity] = True
        return first

    def _below(self, root: str) -> Iterator[Path]:
        """Yield the photographs below one folder; links to folders are followed last.

        This way each folder appears under its own path rather than that of a link to it.
        """
        folders, linked = [root], deque[str]()
        while folders or linked:
            folder = folders.pop() if folders else linked.popleft()
            try:
                status = os.stat(folder)
                if (status.st_dev, status.st_ino) in self._visited:
                    continue
                self._visited.add((status.st_dev, status.st_ino))
                files, inner, links = self._list(folder)
            except OSError:
                yield Path(folder)  # `load_photograph` finds and reports the same reason
                continue
            real_folder = os.path.realpath(folder) if self._came else ""
            for name in files:
                if not self._came or self._comes_first(os.path.join(real_folder, name)):
                    yield Path(folder, name)
            folders.extend(os.path.join(folder, name) for name in reversed(inner))
            linked.extend(os.path.join(folder, name) for name in links)

    def _list(self, folder: str) -> tuple[list[str], list[str], list[str]]:
        """Return the names of photographs, folders and links to folders, each sorted."""
        files: list[str] = []
        unread: list[str] = []
        folders: list[str] = []
        links: list[str] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if not self._include_hidden and has_hidden_part(name):
                    continue
                if self._skip is not None and self._skip(entry.path):
                    continue
                if _is_folder(entry):
                    (links if entry.is_symlink() else folders).append(name)
                elif (suffix := split(name)[1]) in self._suffixes.read:
                    files.append(name)
                elif suffix in self._suffixes.left_out:
                    unread.append(name)
        files, twins = self._suffixes.without_twins(files)
        for name in sorted(unread + twins):
            path = os.path.join(folder, name)
            if not self._came or _identity(path) not in self._came:  # one that was named is tried
                self._left_out(path)
        return sorted(files), sorted(folders), sorted(links)


def _identity(path: str) -> str:
    """Return a file's identity: links in its folder's path are resolved, the file itself is not.

    So a link and its target are two inputs, as two copies would be.
    """
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder, a link to one, or a link that cannot be examined."""
    try:
        return entry.is_dir()
    except OSError as error:
        return error.errno == errno.EACCES
