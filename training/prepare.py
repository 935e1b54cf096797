"""Section 2, done once: every photograph as a 256 x 256 JPEG, and the set's colour statistics.

The squares are the paper's, or those that another network wants (`pictures.PictureForm`).

    target/daisy/1.jpg, ...   classes and folders as in the source; 2.png becomes 2.png.jpg
    target/mean_image.npy     [256, 256, 3] float32, RGB, 0..255, in NumPy's format
    target/prepared.json      counts, RGB covariance, what was skipped and why; written last
    target/unfinished.txt     present while `prepare` runs, and after it was stopped

It can be killed at any moment and run again. JPEGs are written atomically, and the comment in each
identifies the version of the photograph that it was made from, by size and time, so it is made
once. The statistics are those of the stored JPEGs, which training will decode; they are summed in
integers, and afresh in each run, at 2 ms per picture on one core. An interrupted run therefore ends
with the same bytes as any other, and a damaged JPEG is detected and replaced.
"""

import io
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.errors import (
    DatasetError,
    OutputError,
    PhotographError,
    UsageError,
)
from alexnet_deploy.files.locks import locked
from alexnet_deploy.files.output_files import atomic_write, errors_of
from alexnet_deploy.photographs.class_folders import ClassFolders, find_class_folders
from alexnet_deploy.photographs.decoding import decode_photograph, open_photograph
from alexnet_deploy.photographs.finding import find_photographs, has_hidden_part
from alexnet_deploy.photographs.pipeline import Batch, Loaded, batches, default_threads
from alexnet_deploy.photographs.suffixes import LeftOut
from training.colour import MEAN_IMAGE_NAME, ColourStatistics, ColourSums
from training.pictures import PAPER_FORM, Failure, PictureForm, square_picture
from training.prepared import (
    FORMAT_VERSION,
    PREPARED_NAME,
    QUALITY,
    UNFINISHED_NAME,
    write_prepared,
)

_JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
_HEAD_BYTES = 512  # of a stored JPEG; they include its comment
_BATCH_SIZE = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrepareReport:
    """What `prepare` did.

    Attributes:
        num_made: JPEGs made by this run; the others existed already.
        skipped: photographs that could not be read.
        left_out: those in the folders that were not tried.
        statistics: of all JPEGs in the folder.
    """

    num_made: int
    skipped: tuple[Failure, ...]
    left_out: LeftOut
    statistics: ColourStatistics

    def line(self) -> str:
        """Summarize the run in one line."""
        num_kept = self.statistics.num_photographs - self.num_made
        return (
            f"{self.num_made:,} pictures made, {num_kept:,} were there already, "
            f"{len(self.skipped):,} photographs skipped"
            + (f"; {line}" if (line := self.left_out.line()) else "")
        )


def prepare(
    source: Path,
    target: Path,
    *,
    form: PictureForm = PAPER_FORM,
    threads: int | None = None,
    on_result: Callable[[Path, str | None], None] = lambda path, error: None,
) -> PrepareReport:
    """Store every photograph in the class sub-folders of `source` as a square JPEG in `target`.

    Photographs that cannot be read are skipped, counted and listed in `prepared.json`.

    Args:
        source: as for `class_folders.find_class_folders`.
        target: created if necessary; may hold the output of an earlier run on this source.
        form: of the pictures; that of the network to train.
        threads: that decode and encode; None for one per processor.
        on_result: called for each photograph, in order, with its path and the reason why it is
            skipped, or None.

    Raises:
        UsageError: an argument is out of range, `source` does not exist, or one folder is inside
            the other.
        DatasetError: `source` has no classes, or one in which nothing can be read; two of its
            photographs would be stored under one name; `target` holds something else.
        OutputError: a file cannot be written, or another process is preparing this target; stored
            pictures are kept.
    """
    _check_folders(source, target)
    left_out = LeftOut()
    folders = find_class_folders(source, left_out=left_out)
    _check_target(folders, target)
    store = _Store(source, target, form)
    sums = ColourSums(form.size)
    with _unfinished(target):
        stream = batches(
            (folders.path(index) for index in range(len(folders))),
            store.load,
            input_size=form.size,
            batch_size=_BATCH_SIZE,
            threads=default_threads() if threads is None else threads,
        )
        with closing(stream):
            counts, skipped = _store_all(stream, folders, sums, on_result)
        store.refuse_stale(skipped)
        _refuse_unreadable_classes(source, counts, skipped)
        statistics = sums.statistics()
        write_prepared(
            target,
            form=form,
            counts=counts,
            statistics=statistics,
            skipped=[replace(one, path=one.path.relative_to(source)) for one in skipped],
        )
    return PrepareReport(
        num_made=store.num_made,
        skipped=tuple(skipped),
        left_out=left_out,
        statistics=statistics,
    )


def _store_all(
    stream: Iterable[Batch[Path]],
    folders: ClassFolders,
    sums: ColourSums,
    on_result: Callable[[Path, str | None], None],
) -> tuple[dict[str, int], list[Failure]]:
    """Consume the stream, which stores the pictures; return counts by class, and failures."""
    counts = dict.fromkeys(folders.classes, 0)
    skipped: list[Failure] = []
    labels = iter(folders.labels.tolist())
    for batch in stream:
        sums.add(batch.images[: sum(slot.row is not None for slot in batch.slots)])
        for slot in batch.slots:
            counts[folders.classes[next(labels)]] += slot.error is None
            if slot.error is not None:
                skipped.append(Failure(path=slot.item, reason=slot.error))
            on_result(slot.item, slot.error)
    return counts, skipped


class _Store:
    """The folder being filled."""

    def __init__(self, source: Path, target: Path, form: PictureForm) -> None:
        self.num_made = 0
        self._source = source
        self._target = target
        self._form = form
        self._counting = threading.Lock()

    def load(self, path: Path) -> Loaded:
        """Return the pixels of a photograph's JPEG, which is made unless it exists.

        Runs in several threads at once.
        """
        stored = self._stored(path)
        with open_photograph(path) as file:
            comment = self._comment(os.fstat(file.fileno()))
            picture = self._read(stored, comment)
            if picture is None:
                data = self._encode(square_picture(decode_photograph(file), self._form), comment)
                with errors_of(stored):
                    stored.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(stored) as output:
                    output.write(data)
                with self._counting:
                    self.num_made += 1
                picture = np.asarray(decode_photograph(io.BytesIO(data)))
        return Loaded(crop=picture)

    def refuse_stale(self, skipped: Iterable[Failure]) -> None:
        """Refuse to finish with pictures of photographs that can no longer be read.

        They are not deleted, because the cause may be a drive that was disconnected.
        """
        stale = [one for one in skipped if os.path.lexists(self._stored(one.path))]
        if stale:
            raise DatasetError(
                f"{stale[0].path}: {stale[0].reason}; an earlier run could read it ({len(stale):,} "
                "such photographs in all); repair them and run prepare again, or remove their "
                f"pictures, such as {self._stored(stale[0].path)}"
            )

    def _stored(self, path: Path) -> Path:
        return self._target / _stored_name(path.relative_to(self._source))

    def _comment(self, status: os.stat_result) -> bytes:
        """Return the comment that identifies a version of a photograph and these settings."""
        return (
            f"alexnet-deploy prepare {FORMAT_VERSION}: {self._form}, quality {QUALITY}, "
            f"of {status.st_size} bytes, mtime_ns {status.st_mtime_ns}\n"
        ).encode()

    def _read(self, stored: Path, comment: bytes) -> NDArray[np.uint8] | None:
        """Decode the stored JPEG, or return None unless it is intact and has this comment."""
        try:
            with open_photograph(stored) as file:
                if comment not in file.read(_HEAD_BYTES):
                    return None
                picture = np.asarray(decode_photograph(file))
        except PhotographError:
            return None
        return picture if picture.shape == (self._form.size, self._form.size, 3) else None

    def _encode(self, picture: NDArray[np.uint8], comment: bytes) -> bytes:
        data = io.BytesIO()
        image = Image.fromarray(picture)
        image.save(data, "JPEG", quality=QUALITY, subsampling="4:4:4", comment=comment)
        return data.getvalue()


def _stored_name(name: Path) -> Path:
    """Return the name of the stored JPEG: a JPEG keeps its own, any other gets .jpg appended."""
    if name.suffix.lower() in _JPEG_SUFFIXES:
        return name
    return name.with_name(f"{name.name}.jpg")


def _check_folders(source: Path, target: Path) -> None:
    real_source, real_target = (Path(os.path.realpath(path)) for path in (source, target))
    if real_source.is_relative_to(real_target) or real_target.is_relative_to(real_source):
        raise UsageError(
            f"{target}: is inside {source}, or the other way round, and the pictures would be "
            "taken for photographs; choose a folder beside it"
        )


def _check_target(folders: ClassFolders, target: Path) -> None:
    """Refuse two photographs stored under one name, and a target that holds anything else."""
    foreign = []
    members = np.split(np.arange(len(folders)), np.cumsum(np.bincount(folders.labels))[:-1])
    for name, indices in zip(folders.classes, members, strict=True):
        made_from: dict[Path, Path] = {}
        for path in map(folders.path, indices.tolist()):
            stored = target / _stored_name(path.relative_to(folders.root))
            if stored in made_from:
                raise DatasetError(
                    f"{made_from[stored]} and {path.name} would both be stored as {stored.name}; "
                    "rename one of them"
                )
            made_from[stored] = path
        if (target / name).is_dir():
            foreign += [
                found for found in find_photographs([target / name]) if found not in made_from
            ]
    own = {*folders.classes, MEAN_IMAGE_NAME, PREPARED_NAME, UNFINISHED_NAME}
    if os.path.lexists(target):
        try:
            others = set(os.listdir(target)) - own
        except OSError as error:
            raise UsageError(f"{target}: {error.strerror or error}; name a folder") from error
        foreign += [target / name for name in sorted(others) if not has_hidden_part(name)]
    if foreign:
        raise DatasetError(
            f"{target}: holds {len(foreign):,} files or folders that are not made from "
            f"{folders.root}, such as {foreign[0]}; remove them or choose an empty folder"
        )


def _refuse_unreadable_classes(
    source: Path, counts: Mapping[str, int], skipped: Iterable[Failure]
) -> None:
    for name, count in counts.items():
        if not count:
            first = next(one for one in skipped if one.path.is_relative_to(source / name))
            raise DatasetError(
                f"{source / name}: none of its photographs can be read (the first, "
                f"{first.path.name}: {first.reason}); repair them or remove the class, and run "
                "prepare again"
            )


@contextmanager
def _unfinished(target: Path) -> Iterator[None]:
    """Keep a locked `unfinished.txt` in the folder until the block ends without an error."""
    path = target / UNFINISHED_NAME
    with errors_of(path):
        target.mkdir(parents=True, exist_ok=True)
        was_stopped = path.exists()
    refusal = OutputError(
        f"{target}: another process is preparing photographs there; wait until it has finished, or "
        "stop it: what it has stored is kept"
    )
    with locked(path, lambda _: refusal):
        with errors_of(path):
            path.write_bytes(b"prepare is running here, or was stopped: run it again\n")
            (target / PREPARED_NAME).unlink(missing_ok=True)
            for part in target.rglob(".alexnet-deploy-*.part") if was_stopped else ():
                part.unlink()
        yield
        with errors_of(path):
            path.unlink()
