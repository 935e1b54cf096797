"""Find the photographs of an index that are there more than once: `alexnet-deploy duplicates`.

Three answers, of which each begins with what the one before has left. The same bytes: by the
SHA-256 in the ledger, of files that are as they were. The same pixels: both decoded at full size.
Nearly the same: perceptual hashes propose pairs, which are then read, turned and cut to match, and
compared.

Likeness is not transitive, so a group of the last kind is a star: the largest file is compared
with each of the others, in the order of their size, and takes those that match it.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import PhotographError
from alexnet_deploy.files.path_text import printable
from alexnet_deploy.index.duplicate_groups import Copy, Duplicates, Group
from alexnet_deploy.index.exact_search import within_hamming
from alexnet_deploy.index.finder import PhotographFinder
from alexnet_deploy.index.hashes import (
    of_present_folders,
    read_contents,
    store_hashes,
    stored_hashes,
    unhashed,
)
from alexnet_deploy.index.imported_roots import of_folders
from alexnet_deploy.index.ledger import BLOB, INTEGER
from alexnet_deploy.index.named_folders import check_named
from alexnet_deploy.index.roots import all_roots
from alexnet_deploy.index.storage import Storage, open_storage, open_storage_to_write
from alexnet_deploy.photographs.likeness import (
    ORIENTATIONS,
    UPRIGHT,
    Orientation,
    colourfulness,
    greys_of,
    likeness,
    pixels_digest,
    read_thumbnail,
)
from alexnet_deploy.photographs.perceptual_hash import HASH_BYTES, turned
from alexnet_deploy.photographs.pipeline import default_threads

Result = TypeVar("Result")

_MOST_BITS = 64
"""Of 256, by which hashes of pairs that are looked at differ; see tools/duplicates_figures.py."""
_MOST_BITS_OF_SAME_PIXELS = 16
"""One may be decoded at a fraction of its size, and the other not."""
_GREY, _COLOURED = 2.0, 8.0
"""Colourfulness at most and at least of what lost its colours, and of what it was made of."""
_LEADS_AT_ONCE, _OTHERS_AT_ONCE = 32, 4096
"""Photographs whose hashes are compared in one call: however alike, what is found fits memory."""
_MOST_KEPT = 8192
"""Thumbnails in memory, of 16 KB."""


def find_duplicates(
    directory: Path,
    *,
    threads: int | None = None,
    on_plan: Callable[[int], None] = lambda _: None,
    on_read: Callable[[Path, str | None], None] = lambda *_: None,
    notify: Callable[[str], None] = lambda _: None,
) -> Duplicates:
    """Find what is more than once in an index.

    The first run on an index decodes each photograph and stores its perceptual hashes; one that was
    stopped is continued. Later ones decode what is new, and what may be alike.

    Args:
        directory: of the index.
        threads: that decode and compare; None for all cores.
        on_plan: called with the number of steps, photographs to hash and to compare.
        on_read: called for each step, with what was read for it, and why it could not be.
        notify: called with lines for a person.

    Raises:
        UsageError: there is no such index, or its folders were never named for it here.
        IncompatibleFileError: it is damaged.
        IndexLockedError: another process writes to it, and hashes have to be stored.
        OutputError: they cannot be written.
        MissingPackageError: ImageHash or faiss is not installed.
    """
    threads = threads or default_threads()
    with open_storage(directory) as index:
        check_named(directory, (root.path for root in all_roots(index.ledger)))
        new, num_contents = unhashed(index), _count(index, of_present_folders(index.ledger))
        _say_what_is_left_out(index, notify)
        num_absent = _count(index, of_folders(index.ledger)) - num_contents
    on_plan(len(new) + num_contents)
    if new:
        notify(
            f"{len(new):,} photographs to be hashed, once; what is stored stays if it is stopped"
        )
        with open_storage_to_write(directory) as index:
            store_hashes(index, new, threads=threads, on_read=on_read)
    with open_storage(directory) as index:
        search = _Search(index, threads, on_read, notify)
        same_bytes = tuple(_same_bytes(index, notify))
        same_pixels = tuple(search.same_pixels())
        nearly_same = tuple(search.nearly_same())
        is_here = of_present_folders(index.ledger)
        return Duplicates(
            directory=directory,
            num_photographs=_count(index, is_here, "position"),
            num_failed=len(unhashed(index)) + search.num_failed + num_absent,
            num_absent=num_absent,
            same_bytes=same_bytes,
            same_pixels=same_pixels,
            nearly_same=nearly_same,
        )


def _count(index: Storage, condition: str, what: str = "DISTINCT position") -> int:
    (number,) = index.ledger.one(f"SELECT count({what}) FROM photographs WHERE {condition}")
    return int(number)


def _say_what_is_left_out(index: Storage, notify: Callable[[str], None]) -> None:
    """Say which folders are not there, and how many vectors were imported without photographs."""
    for root in all_roots(index.ledger):
        if not os.path.isdir(root.path):
            number = _count(index, f"root = {root.id}", "position")
            notify(f"{printable(root.path)}: is not there; its {number:,} photographs are left out")
    num_imported = _count(index, f"NOT ({of_folders(index.ledger)})", "position")
    if num_imported:
        notify(f"{num_imported:,} imported vectors are left out: their photographs are not here")


def _same_bytes(index: Storage, notify: Callable[[str], None]) -> Iterator[Group]:
    """Yield the files that share a vector and are as they were indexed; of links only the first."""
    finder, num_others = PhotographFinder(index), 0
    shared = index.ledger.rows(
        "SELECT position, v.sha256 FROM vectors v JOIN photographs USING (position) "
        "GROUP BY position HAVING count(*) > 1 ORDER BY position",
        kinds=(INTEGER, BLOB),
    )
    for position, sha256 in list(shared):
        files: dict[tuple[int, int], Path] = {}
        for file in finder.files(position):
            try:
                status = os.stat(file.path) if file.has_bytes(sha256) else None
            except (OSError, PhotographError):
                status = None
            if status is None:
                num_others += 1
            else:
                files.setdefault((status.st_dev, status.st_ino), file.path)
        paths = list(files.values())
        if len(paths) > 1:
            yield Group(first=paths[0], copies=tuple(Copy(path=path) for path in paths[1:]))
    if num_others:
        notify(
            f"{num_others:,} files that had the bytes of others are gone or were changed; bring "
            "the index up to date, then run this again"
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Small:
    """A thumbnail's greys, and how colourful it is."""

    greys: NDArray[np.uint8]
    colourfulness: float


class _Search:
    """The contents of an index by number, the largest file first, and which are taken."""

    def __init__(
        self,
        index: Storage,
        threads: int,
        on_read: Callable[[Path, str | None], None],
        notify: Callable[[str], None],
    ) -> None:
        self._index = index
        self._threads = threads
        self._on_read = on_read
        self._notify = notify
        stored = stored_hashes(index)
        self._sha256s, self._hashes = stored.sha256s, stored.hashes
        self._is_free = np.ones(len(self._sha256s), bool)
        self._paths: dict[int, Path] = {}
        self._small: dict[int, _Small] = {}
        self._failed: set[int] = set()

    @property
    def num_failed(self) -> int:
        """How many could not be read again."""
        return len(self._failed)

    def same_pixels(self) -> Iterator[Group]:
        """Yield the photographs whose pixels are equal; all but the first of each are taken."""
        whole = self._hashes[:, 0]
        candidates = set[int]()
        for first in range(0, len(whole), _OTHERS_AT_ONCE):
            some = whole[first : first + _OTHERS_AT_ONCE]
            for start in range(0, len(whole), _LEADS_AT_ONCE):
                queries = whole[start : start + _LEADS_AT_ONCE]
                found, near = self._within(some, queries, _MOST_BITS_OF_SAME_PIXELS)
                is_other = found + start != near + first
                candidates.update((near[is_other] + first).tolist())
        if candidates:
            self._notify(f"comparing the pixels of {len(candidates):,} photographs")
        by_pixels: dict[bytes, list[int]] = {}
        for number, digest in self._read(sorted(candidates), pixels_digest):
            by_pixels.setdefault(digest, []).append(number)
        for first, *others in by_pixels.values():
            if others:
                self._is_free[others] = False
                copies = tuple(Copy(path=self._paths[number]) for number in others)
                yield Group(first=self._paths[first], copies=copies)

    def nearly_same(self) -> Iterator[Group]:
        """Yield each photograph that has others nearly the same, which are taken by it."""
        free = np.flatnonzero(self._is_free)
        for number in np.flatnonzero(~self._is_free).tolist():
            self._step(number)
        for start in range(0, len(free), _LEADS_AT_ONCE):
            leads = free[start : start + _LEADS_AT_ONCE]
            copies: dict[int, list[Copy]] = {}
            for first in range(start, len(free), _OTHERS_AT_ONCE):
                still = leads[self._is_free[leads]]
                if not len(still):
                    break
                others = free[first : first + _OTHERS_AT_ONCE]
                pairs = self._pairs(still, others[self._is_free[others]])
                for lead, copy in self._matching(pairs):
                    copies.setdefault(lead, []).append(copy)
            for lead in leads.tolist():
                if lead in copies:
                    yield Group(first=self._paths[lead], copies=tuple(copies[lead]))
                self._step(lead)

    def _step(self, number: int) -> None:
        """Tell that one was compared, unless it was told that it could not be."""
        if number not in self._failed:
            self._on_read(self._paths.get(number) or self._indexed_path(number), None)

    def _pairs(
        self, leads: NDArray[np.int64], others: NDArray[np.int64]
    ) -> dict[tuple[int, int], list[Orientation]]:
        """Return the pairs, of a lead and a smaller file, that may be alike, and turned how."""
        found: dict[tuple[int, int], list[Orientation]] = {}

        def add(which: NDArray[np.int64], near: NDArray[np.int64], how: Orientation) -> None:
            for pair in zip(leads[which].tolist(), others[near].tolist(), strict=True):
                if pair[0] < pair[1] and how not in found.setdefault(pair, []):
                    found[pair].append(how)

        whole, windows = self._hashes[leads, 0], self._hashes[leads, 1:]
        other_whole, other_windows = self._hashes[others, 0], self._hashes[others, 1:]
        for how in ORIENTATIONS:
            add(*self._within(other_whole, turned(whole, how), _MOST_BITS), how)
        num_windows = windows.shape[1]
        which, near = self._within(other_whole, windows.reshape(-1, HASH_BYTES), _MOST_BITS)
        add(which // num_windows, near, UPRIGHT)
        which, near = self._within(other_windows.reshape(-1, HASH_BYTES), whole, _MOST_BITS)
        add(which, near // num_windows, UPRIGHT)
        return found

    def _within(
        self, codes: NDArray[np.uint8], queries: NDArray[np.uint8], most: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return within_hamming(codes, queries, most, threads=self._threads)

    def _matching(
        self, pairs: dict[tuple[int, int], list[Orientation]]
    ) -> Iterator[tuple[int, Copy]]:
        """Yield the pairs that are nearly the same; the second is taken."""
        needed = {number for pair in pairs for number in pair}
        for number, small in self._read(sorted(needed - self._small.keys()), _small):
            self._small[number] = small
        for lead, other in sorted(pairs):
            both = self._small.get(lead), self._small.get(other)  # None if it has left the index
            if self._is_free[lead] and self._is_free[other] and both[0] and both[1]:
                copy = _copy(both[0], both[1], pairs[lead, other], self._paths[other])
                if copy is not None:
                    self._is_free[other] = False
                    yield lead, copy
        for number in list(self._small)[:-_MOST_KEPT]:
            del self._small[number]

    def _indexed_path(self, number: int) -> Path:
        """Return the first path that the index has for a content."""
        position = self._index.position_of(self._sha256s[number])
        files = [] if position is None else PhotographFinder(self._index).files(position)
        return files[0].path if files else self._index.directory

    def _read(
        self, numbers: Sequence[int], work: Callable[[bytes], Result]
    ) -> Iterator[tuple[int, Result]]:
        """Yield what `work` makes of each photograph's bytes; what cannot be read is left out."""
        of_sha256 = {self._sha256s[number]: number for number in numbers}
        for read in read_contents(self._index, of_sha256, work, threads=self._threads):
            number = of_sha256[read.sha256]
            if read.result is not None:
                self._paths[number] = read.path
                yield number, read.result
            elif self._is_free[number]:
                self._is_free[number] = False
                self._failed.add(number)
                self._on_read(read.path, read.error)


def _small(data: bytes) -> _Small:
    thumbnail = read_thumbnail(data)
    return _Small(greys_of(thumbnail), colourfulness(thumbnail))


def _copy(
    lead: _Small, other: _Small, orientations: Sequence[Orientation], path: Path
) -> Copy | None:
    """Return how the other differs, in the first orientation, and so the simplest, that matches."""
    for how in orientations:
        shown, beyond = 1.0, 0.0
        found = likeness(lead.greys, other.greys, how)
        if found is not None and found.is_match:
            shown = found.share
        else:
            found = likeness(other.greys, lead.greys, how.inverse)
            if found is None or not found.is_match:
                continue
            beyond = 1 - found.share
        is_grey = other.colourfulness <= _GREY and lead.colourfulness >= _COLOURED
        return Copy(
            path=path,
            correlation=found.correlation,
            orientation=how,
            shown=shown,
            beyond=beyond,
            is_grey=is_grey,
        )
    return None
