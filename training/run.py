"""A training run, epoch by epoch, resumable after any step."""

import dataclasses
import math
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet_deploy import __version__
from alexnet_deploy.errors import Argument, DatasetError
from training.beginning import Beginning, dropout_scale
from training.checkpointing import (
    BEST_NAME,
    Progress,
    RunState,
    last_checkpoint,
    save_best,
    save_state,
)
from training.curves import CURVES_NAME, draw_curves
from training.data import Data, WorkerError
from training.epoch_log import LOG_NAME, EpochRecord, append_record
from training.optimizers import memory_of
from training.options import TrainOptions
from training.photographs import PhotographBatch
from training.pictures import Failure
from training.rates import one_cycle
from training.reporting import Reporter, counting, epoch_line
from training.skipped import SkippedPhotographs
from training.stopping import Stopped, StopRequest
from training.trainer import DivergedError, Trainer, Validation, lower_rate
from training.weights import after_dropout, deployable

MOST_LOST = 100
"""Unreadable photographs in a row that end a run; so many are not just single bad files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """The outcome of a run.

    Attributes:
        checkpoint: the last one written.
        best: the network with the lowest validation error, or None without validation.
        epoch: completed epochs.
        step: steps taken in all.
        records: of every epoch, including those before it was resumed.
        signal_number: of the signal that stopped it, or None if it is complete.
    """

    checkpoint: Path
    best: Path | None
    epoch: int
    step: int
    records: tuple[EpochRecord, ...]
    signal_number: int | None


class Run:
    """Train epoch by epoch, and maintain the folder of the run.

    Args:
        options: of the run.
        data: the photographs to train and validate on.
        beginning: the network's origin, without its weights, for every checkpoint.
        trainer: the network in its current state.
        progress: how far the run has come.
        records: of the completed epochs.
        reporter: told of progress and of failures.
    """

    def __init__(
        self,
        options: TrainOptions,
        data: Data,
        beginning: Beginning,
        trainer: Trainer,
        progress: Progress,
        records: Iterable[EpochRecord],
        reporter: Reporter,
    ) -> None:
        self._options = options
        self._recipe = options.recipe
        self._folder = options.output
        self._data = data
        self._beginning = beginning
        self._trainer = trainer
        self._progress = progress
        self._records = list(records)
        self._reporter = reporter
        self._steps_per_epoch = len(data.training) // options.recipe.batch_size
        self._skipped = SkippedPhotographs(self._folder)
        self._skipped.add(data.unreadable)
        self._num_empty_steps = self._num_lost = 0  # since a photograph was read
        self._saved_at = time.monotonic()

    def train(self, stop: StopRequest) -> RunReport:
        """Run until the last epoch is complete or a signal arrives.

        Raises:
            DivergedError: the loss or a weight is not finite, or the loss is far above guessing.
            DatasetError: the photographs are gone: many in a row, or all of an epoch, cannot be
                read.
            WorkerError: a worker process was killed.
            OutputError: a checkpoint or the log cannot be written.

        A `DatasetError` or a `WorkerError` leaves a checkpoint, as a signal does; photographs that
        could not be read last are tried again when the run resumes.
        """
        progress, num_epochs = self._progress, self._recipe.num_epochs
        if self._records:
            self._draw()  # the log may have been cut back, or curves.png lost
        try:
            if progress.step == 0 and not self._records:
                self._before_the_first_step(stop)
            while progress.epoch < num_epochs and not stop.has_come:
                self._take_steps(stop)
                self._end_epoch(stop)
        except (Stopped, WorkerError, DatasetError) as error:
            # All are raised between two steps, so the progress until then can be saved.
            if progress.step or not isinstance(error, DatasetError):
                self._save(None)
            if not isinstance(error, Stopped):
                raise
        is_complete = progress.epoch >= num_epochs
        return self._report(None if is_complete else stop.signal_number)

    def _before_the_first_step(self, stop: StopRequest) -> None:
        """Log epoch 0 and write the first checkpoint, so that there always is one."""
        start = time.perf_counter()
        validation, num_skipped = self._validate(stop)
        seconds = time.perf_counter() - start
        self._log(self._record(validation, self._rate(0), seconds, num_skipped))
        self._save(validation)
        self._draw()
        if validation is not None:
            num_classes = len(self._data.classes)
            self._reporter.say(
                f"before the first step: validation loss {validation.loss:.3f}, "
                f"guessing has ln {num_classes} = {math.log(num_classes):.3f}"
            )

    def _take_steps(self, stop: StopRequest) -> None:
        """Take the remaining steps of the epoch.

        Raises:
            Stopped: after a step, if a signal has arrived.
        """
        progress, size = self._progress, self._recipe.batch_size
        order = self._order(progress.epoch)
        done = progress.step_in_epoch * size
        title = f"epoch {progress.epoch + 1} of {self._recipe.num_epochs}"
        start = time.perf_counter()
        with (
            counting(self._reporter, title, len(order), done=done),
            closing(self._data.training_batches(order[done:], size)) as batches,
        ):
            for batch in batches:
                self._step(batch)
                self._reporter.advance(size)
                end = time.perf_counter()
                progress.epoch_s += end - start
                start = end
                stop.check()
                if time.monotonic() - self._saved_at > 60 * self._options.save_minutes:
                    self._save(None)

    def _step(self, batch: PhotographBatch) -> None:
        progress = self._progress
        self._tell(batch.failures)
        if len(batch.labels):
            result = self._trainer.step(batch, progress.step, self._rate(progress.step))
            progress.loss_sum += result.loss
            progress.num_right += result.num_right
            progress.num_photographs += result.num_photographs
            self._num_empty_steps = self._num_lost = 0
        else:
            self._num_empty_steps += 1
            self._num_lost += len(batch.failures)
        progress.num_skipped += len(batch.failures)
        progress.step += 1
        progress.step_in_epoch += 1
        if self._num_lost >= MOST_LOST or (self._num_lost and not self._data.root.is_dir()):
            num_lost = self._num_lost
            self._take_back_empty_steps()
            raise DatasetError(
                f"{self._data.root}: after step {progress.step}, none of the last {num_lost} "
                f"photographs can be read ({batch.failures[-1].reason}); bring the folder back, "
                "then ",
                Argument("resume", True),
                " continues from there",
            )

    def _take_back_empty_steps(self) -> None:
        """Undo the steps without a photograph, so that a resumed run tries theirs again."""
        self._progress.step -= self._num_empty_steps
        self._progress.step_in_epoch -= self._num_empty_steps
        self._progress.num_skipped -= self._num_lost
        self._num_empty_steps = self._num_lost = 0

    def _end_epoch(self, stop: StopRequest) -> None:
        """Validate, then write the log, checkpoints and curves.

        The log is written first: if a run is killed before the checkpoint, it repeats the epoch
        and truncates its line. The curves come last, as they can be redrawn.

        Raises:
            Stopped: during validation, if a signal has arrived.
        """
        start, progress = time.perf_counter(), self._progress
        if not progress.num_photographs:
            self._take_back_empty_steps()
            raise DatasetError(
                f"{self._data.root}: none of its photographs could be read in epoch "
                f"{progress.epoch + 1}; check the files, then ",
                Argument("resume", True),
                " repeats the epoch",
            )
        self._num_empty_steps = self._num_lost = 0  # of the completed epoch
        validation, num_skipped = self._validate(stop)
        seconds = progress.epoch_s + time.perf_counter() - start
        record = self._record(validation, self._rate(progress.step - 1), seconds, num_skipped)
        progress.begin_epoch()
        if validation is not None:
            progress.best_top1 = max(progress.best_top1, validation.top1)
            guessing = self._data.guessing_error
            progress.plateau.update(1 - validation.top1, guessing, self._recipe)
        state = self._state(validation)
        self._log(record)
        if record.best:
            save_best(self._folder, state)
        self._save(validation, state)
        self._draw()
        self._reporter.say(epoch_line(record, self._recipe.num_epochs))

    def _validate(self, stop: StopRequest) -> tuple[Validation | None, int]:
        """Return the validation results, if any, and the number of photographs skipped."""
        source = self._data.validation
        if source is None:
            return None, 0
        failures: list[Failure] = []
        with counting(self._reporter, "validation", len(source)):
            batches = self._validation_batches(failures, stop)
            validation = self._trainer.validate(batches, self._progress.step)
        return validation, len(failures)

    def _validation_batches(
        self, failures: list[Failure], stop: StopRequest
    ) -> Generator[PhotographBatch]:
        size = 2 * self._recipe.batch_size
        with closing(self._data.validation_batches(size)) as batches:
            for batch in batches:
                stop.check()
                self._tell(batch.failures)
                failures.extend(batch.failures)
                yield batch
                self._reporter.advance(size)

    def _tell(self, failures: Sequence[Failure]) -> None:
        self._skipped.add(failures)
        for failure in failures:
            self._reporter.failed(failure.path, failure.reason)

    def _record(
        self, validation: Validation | None, rate: float, seconds: float, num_skipped: int
    ) -> EpochRecord:
        """Summarize the current epoch; epoch 0 is the network before its first step."""
        progress = self._progress
        begun, count = progress.step > 0, progress.num_photographs
        names = (field.name for field in dataclasses.fields(Validation))
        figures = {name: getattr(validation, name, None) for name in names}
        return EpochRecord(
            epoch=progress.epoch + 1 if begun else 0,
            step=progress.step,
            learning_rate=rate,
            train_loss=progress.loss_sum / count if begun else None,
            train_top1=progress.num_right / count if begun else None,
            **{f"val_{name}": value for name, value in figures.items()},
            images_per_second=count / progress.epoch_s if begun else None,
            wall_s=seconds,
            num_skipped=len(self._data.unreadable) + progress.num_skipped + num_skipped,
            best=begun and validation is not None and validation.top1 > progress.best_top1,
        )

    def _log(self, record: EpochRecord) -> None:
        append_record(self._folder / LOG_NAME, record)
        self._records.append(record)

    def _draw(self) -> None:
        draw_curves(
            self._records,
            self._folder / CURVES_NAME,
            title=f"{self._recipe.name} recipe, {len(self._data.training):,} photographs",
            num_classes=len(self._data.classes),
        )

    def _report(self, signal_number: int | None) -> RunReport:
        best, last = self._folder / BEST_NAME, last_checkpoint(self._folder)
        assert last is not None  # the first is written before the first step
        return RunReport(
            checkpoint=last,
            best=best if best.exists() else None,
            epoch=self._progress.epoch,
            step=self._progress.step,
            records=tuple(self._records),
            signal_number=signal_number,
        )

    def _save(self, validation: Validation | None, state: RunState | None = None) -> None:
        """Write a checkpoint to resume from, and the list of photographs skipped until then."""
        self._skipped.save()
        state = self._state(validation) if state is None else state
        save_state(self._folder, state, self._options.keep)
        self._saved_at = time.monotonic()

    def _state(self, validation: Validation | None) -> RunState:
        """Return all that goes into a checkpoint.

        Raises:
            DivergedError: a weight or the optimizer state is not finite.
        """
        network = self._trainer.network
        merged = network.merged(dict(network.named_parameters()))
        memory = memory_of(network, self._trainer.optimizer)
        self._check(merged)
        self._check({f"the optimizer's {name}": tensor for name, tensor in memory.items()})
        scale, after = dropout_scale(self._recipe), after_dropout(self._beginning.spec)
        arrays = deployable(merged, scale, after)
        if self._beginning.mean_image is not None:
            image = self._beginning.mean_image.transpose(2, 0, 1)
            arrays["mean_image"] = np.ascontiguousarray(image)
        return RunState(
            spec=dataclasses.replace(self._beginning.spec, provenance=self._provenance(validation)),
            arrays=arrays,
            memory=memory,
            components=self._beginning.components,
            old_layers=self._beginning.old_layers,
            progress=self._progress,
        )

    def _check(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            if not tensor.isfinite().all():
                rate = self._trainer.optimizer.rate
                raise DivergedError(
                    f"step {self._progress.step - 1}: {name} is no longer finite, at learning "
                    f"rate {rate:.3g}; the last checkpoint is intact: ",
                    lower_rate(self._recipe),
                )

    def _provenance(self, validation: Validation | None) -> dict[str, object]:
        """Return the provenance that a checkpoint records."""
        options, progress = self._options, self._progress
        origin: dict[str, object] = {
            "trained_by": f"alexnet-deploy {__version__}, torch {torch.__version__}",
            "recipe": self._beginning.effective(self._recipe),
            "seed": options.seed,
            "epochs": progress.epoch,
            "steps": progress.step,
            "num_photographs": len(self._data.training),
        }
        if self._beginning.init is not None:
            origin |= {"init": self._beginning.init, "trained": options.train}
        if validation is not None:
            origin["validation"] = dataclasses.asdict(validation)
        return origin

    def _rate(self, step: int) -> float:
        if self._recipe.schedule == "one_cycle":
            return one_cycle(self._recipe, step, self._steps_per_epoch)
        return self._progress.plateau.rate(self._recipe)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """Return the photographs of an epoch, shuffled, without an incomplete last batch."""
        rng = np.random.default_rng((self._options.seed, epoch))
        order = rng.permutation(len(self._data.training))
        return order[: self._steps_per_epoch * self._recipe.batch_size]
