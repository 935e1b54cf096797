"""The photographs that a run trains and validates on."""

import re
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import AlexNetDeployError, Argument, DatasetError, IncompatibleFileError
from alexnet_deploy.photographs.class_folders import ClassFolders, find_class_folders
from training.colour import ColourStatistics, ColourSums
from training.options import TrainOptions
from training.photographs import (
    PhotographBatch,
    PhotographSource,
    batches,
    hold_out,
    open_source,
)
from training.pictures import Failure, PictureForm
from training.prepared import PreparedFolder, read_prepared
from training.reporting import Reporter, counting

SAMPLE_SIZE = 10_000
"""Size of the sample for the colour statistics of a set neither prepared nor in memory."""
_SAMPLE_BATCH = 128
_BATCH_SIZE = Argument("recipe.batch_size")
# torch's wording; for an exception inside a worker it says "in DataLoader worker process 0".
_WORKER_DIED = re.compile(r"DataLoader worker \(pid")


class WorkerError(AlexNetDeployError):
    """A worker process that reads photographs has died."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundData:
    """Photographs to train on and, if any, to validate on, before they are read.

    Attributes:
        training: those to train on.
        validation: those to validate on, or None.
        prepared: what `prepare` stored in the training folder, or None if it is not prepared.
        validation_prepared: the same for the folder given for validation.
    """

    training: ClassFolders
    validation: ClassFolders | None
    prepared: PreparedFolder | None
    validation_prepared: PreparedFolder | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Photographs to train on, and to validate on.

    Attributes:
        training: those to train on, without those known to be unreadable.
        validation: those to validate on, likewise, or None.
        prepared: statistics that `prepare` stored in the training folder, if it is prepared.
        num_workers: processes that read what is not in memory.
    """

    training: PhotographSource
    validation: PhotographSource | None
    prepared: ColourStatistics | None
    num_workers: int

    @property
    def root(self) -> Path:
        """The folder of training photographs."""
        return self.training.folders.root

    @property
    def folders(self) -> tuple[ClassFolders, ClassFolders | None]:
        """The photographs to train on and to validate on."""
        validation = None if self.validation is None else self.validation.folders
        return self.training.folders, validation

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the outputs."""
        return self.training.folders.classes

    @property
    def unreadable(self) -> tuple[Failure, ...]:
        """Photographs that could not be read into memory with the others."""
        sources = (self.training, self.validation)
        return tuple(one for source in sources if source is not None for one in source.failures)

    @property
    def guessing_error(self) -> float:
        """Validation error, 0..1, of predicting the most frequent class every time."""
        if self.validation is None:
            return 1.0
        counts = np.bincount(self.validation.folders.labels)
        return 1.0 - float(counts.max() / counts.sum())

    def training_batches(
        self, order: NDArray[np.int64], batch_size: int
    ) -> Generator[PhotographBatch]:
        """Yield the training photographs in the given order."""
        return _batches(self.training, order, batch_size, self.num_workers)

    def validation_batches(self, batch_size: int) -> Generator[PhotographBatch]:
        """Yield every validation photograph once; nothing without validation."""
        if self.validation is None:
            return
        order = np.arange(len(self.validation))
        yield from _batches(self.validation, order, batch_size, self.num_workers)

    def colour_statistics(self, reporter: Reporter, seed: int) -> ColourStatistics:
        """Return mean image and covariance of the training photographs.

        Photographs in memory are all counted. For a prepared folder the stored statistics are
        used, which include what is now held out. Of any other folder a sample is read.

        Raises:
            DatasetError: no photograph of the sample can be read.
        """
        numbers = np.arange(len(self.training))
        if self.training.images is None:
            if self.prepared is not None:
                return self.prepared
            rng = np.random.default_rng(seed)
            numbers = np.sort(rng.permutation(numbers)[:SAMPLE_SIZE])
            reporter.say(
                f"colours: from {len(numbers):,} of {len(self.training):,} photographs, since "
                f"{self.root} is not prepared"
            )
        sums = ColourSums(self.training.form.size)
        with counting(reporter, "colours of the photographs", len(numbers)):
            for batch in self.training_batches(numbers, _SAMPLE_BATCH):
                sums.add(batch.images.numpy())
                reporter.advance(_SAMPLE_BATCH)
        if not sums.num_photographs:
            raise DatasetError(
                f"{self.root}: none of {len(numbers):,} photographs can be read; check the files, "
                "or name another folder"
            )
        return sums.statistics()


def find_data(options: TrainOptions) -> FoundData:
    """Find the photographs and hold some out, without reading any.

    Raises:
        UsageError, DatasetError: there are none, one class only, fewer than a batch, or other
            classes in the validation folder.
        IncompatibleFileError: `prepare` has not finished a folder, or it has changed since.
    """
    training = find_class_folders(options.data)
    prepared = read_prepared(training)
    if len(training.classes) < 2:
        raise DatasetError(
            f"{options.data}: one class only ({training.classes[0]}), expected two or more to "
            "tell apart; name the folder that holds the folders of the classes"
        )
    validation = validation_prepared = None
    if options.validation is not None:
        validation = find_class_folders(options.validation)
        validation_prepared = read_prepared(validation)
        _check_classes(training, validation)
    elif options.hold_out:
        training, validation = hold_out(training, options.hold_out, options.seed)
    check_batch(training, options.recipe.batch_size, _BATCH_SIZE)
    return FoundData(
        training=training,
        validation=validation,
        prepared=prepared,
        validation_prepared=validation_prepared,
    )


def open_data(
    found: FoundData, options: TrainOptions, reporter: Reporter, form: PictureForm
) -> Data:
    """Read into memory what fits.

    Args:
        found: the photographs.
        options: set the memory limit and the number of workers.
        reporter: told of progress, and of each photograph that cannot be read.
        form: of the pictures that the network wants.

    Raises:
        DatasetError: so few can be read that a class has none, or there is no full batch.
        IncompatibleFileError: a folder was prepared for pictures of another form.
    """
    check_form(found.training, found.prepared, form)
    if found.validation is not None:
        check_form(found.validation, found.validation_prepared, form)
    training = read_what_fits(found.training, form, options.memory_bytes, reporter)
    check_batch(training.folders, options.recipe.batch_size, _BATCH_SIZE)
    _check_every_class(training)
    validation = None
    if found.validation is not None:
        used = 0 if training.images is None else training.images.nbytes
        validation = read_what_fits(found.validation, form, options.memory_bytes - used, reporter)
    return Data(
        training=training,
        validation=validation,
        prepared=None if found.prepared is None else found.prepared.statistics,
        num_workers=options.num_workers,
    )


def check_form(folders: ClassFolders, prepared: PreparedFolder | None, form: PictureForm) -> None:
    """Refuse a folder of pictures in another form than the network wants.

    Raises:
        IncompatibleFileError: naming both, and what to do.
    """
    if prepared is not None and prepared.form != form:
        raise IncompatibleFileError(
            f"{folders.root}: its pictures were prepared as {prepared.form}, the network wants "
            f"{form}; prepare the photographs again, for that network, with its checkpoint as ",
            Argument("init"),
            ", or name the photographs themselves",
        )


def read_what_fits(
    folders: ClassFolders, form: PictureForm, memory_bytes: int, reporter: Reporter
) -> PhotographSource:
    """Call `open_source`, reporting progress and each photograph that cannot be read."""

    def on_result(path: Path, reason: str | None) -> None:
        reporter.advance(1)
        if reason is not None:
            reporter.failed(path, reason)

    with counting(reporter, "reading photographs", len(folders)):
        return open_source(folders, form=form, memory_limit_bytes=memory_bytes, on_result=on_result)


def _batches(
    source: PhotographSource, order: NDArray[np.int64], batch_size: int, num_workers: int
) -> Generator[PhotographBatch]:
    stream = batches(source, order, batch_size=batch_size, num_workers=num_workers)
    with closing(stream):
        try:
            yield from stream
        except RuntimeError as error:
            if not _WORKER_DIED.search(str(error)):
                raise
            raise WorkerError(
                f"{source.folders.root}: a worker process was killed, perhaps for lack of memory "
                f"or of /dev/shm ({error}); ",
                Argument("resume", True),
                " continues after the last step; if it happens again, give fewer ",
                Argument("num_workers"),
            ) from error


def check_batch(folders: ClassFolders, batch_size: int, argument: Argument) -> None:
    """Refuse to train on too few photographs for one batch.

    Raises:
        DatasetError: naming the argument that sets the batch size.
    """
    if len(folders) < batch_size:
        raise DatasetError(
            f"{folders.root}: {len(folders):,} photographs to train on, fewer than a batch of "
            f"{batch_size}; give a smaller ",
            argument,
            ", or more photographs",
        )


def _check_every_class(source: PhotographSource) -> None:
    """Refuse a class of which no photograph could be read, as far as they have been."""
    folders = source.folders
    counts = np.bincount(folders.labels, minlength=len(folders.classes))
    if not counts.all():
        name = folders.classes[int(counts.argmin())]
        raise DatasetError(
            f"{folders.root}: class {name!r}: none of its photographs can be read, so it cannot "
            "be learned; repair them, or move its folder away"
        )


def _check_classes(training: ClassFolders, validation: ClassFolders) -> None:
    for one, other in ((training, validation), (validation, training)):
        missing = sorted(set(one.classes) - set(other.classes))
        if missing:
            more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise DatasetError(
                f"{other.root}: class {missing[0]!r} of {one.root} is missing{more}; expected "
                "the same classes to train and to validate on"
            )
