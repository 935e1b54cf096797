"""`log.jsonl`: the results of a run, one JSON line per epoch.

A line is on disk before the next epoch begins. Whatever a killed writer leaves after the last line
break is not a record; a resumed run truncates it, together with the epochs after its checkpoint.
"""

import dataclasses
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.files.input_files import existing_file
from alexnet_deploy.files.output_files import atomic_write, errors_of, sync_directory
from alexnet_deploy.files.records import Within, check_fields, read_record, require

LOG_NAME = "log.jsonl"
"""Name of the log in the folder of a run."""

_VALIDATION = ("val_loss", "val_top1", "val_top5", "val_mean_class_top1")
_Count = Annotated[int, Within(0)]
_Amount = Annotated[float, Within(0)]
_Share = Annotated[float, Within(0, 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """One epoch of training and the validation after it.

    Attributes:
        epoch: 1 for the first; 0 is the network before its first step.
        step: steps taken since the start of the run.
        learning_rate: of the weights, at the epoch's last step; meaningless at epoch 0.
        train_loss: mean training loss over the epoch's photographs, with label smoothing but
            without weight decay; None at epoch 0.
        train_top1: accuracy on the augmented crops, under dropout; None where not counted.
        val_loss: mean cross-entropy over the validation photographs, in nats.
        val_top1, val_top5: accuracy on the validation photographs, 0..1.
        val_mean_class_top1: mean over the classes of each one's top-1 accuracy, 0..1. The last
            four are None in a run without validation.
        images_per_second: of training alone, without validation; None at epoch 0.
        wall_s: seconds that the epoch took, validation included.
        num_skipped: photographs that could not be read in this epoch.
        best: it beat all previous epochs on validation; False in a run without.
    """

    epoch: _Count
    step: _Count
    learning_rate: _Amount
    train_loss: _Amount | None
    train_top1: _Share | None
    val_loss: _Amount | None
    val_top1: _Share | None
    val_top5: _Share | None
    val_mean_class_top1: _Share | None
    images_per_second: _Amount | None
    wall_s: _Amount
    num_skipped: _Count
    best: bool

    def __post_init__(self) -> None:
        """Refuse impossible values and those JSON cannot hold; numbers become int or float.

        Raises:
            IncompatibleFileError: naming the field, what came and what was expected.
        """
        check_fields(self)
        missing = [getattr(self, name) is None for name in _VALIDATION]
        require(all(missing) or not any(missing), "validation", missing, "all figures or none")
        require(not (self.best and any(missing)), "best", True, "false without validation")


def append_record(path: Path, record: EpochRecord) -> None:
    """Append one line to a log, created if necessary, and wait until it is on disk.

    Raises:
        OutputError: no space, no permission; the log is left as it was.
    """
    line = json.dumps(dataclasses.asdict(record), allow_nan=False).encode() + b"\n"
    with errors_of(path), open(path, "ab", buffering=0) as file:
        size = file.tell()
        try:
            while line:  # a disk that fills up first takes a part of it
                line = line[file.write(line) :]
            os.fsync(file.fileno())
        except BaseException:
            with suppress(OSError):  # the first error is the one to report
                file.truncate(size)
            raise
    if size == 0:
        sync_directory(path.parent)


def read_log(path: Path) -> tuple[EpochRecord, ...]:
    """Return the records of a log, in epoch order.

    Raises:
        UsageError: there is no such file, or it may not be read.
        IncompatibleFileError: a line is not a record, or its epoch does not follow the previous.
    """
    existing_file(path, f"the {LOG_NAME} of a training run")
    records: list[EpochRecord] = []
    for number, line in enumerate(_whole_lines(path), start=1):
        again = "move the log away: training continues without it"
        record = read_record(EpochRecord, line, f"{path}: line {number}", again)
        if records and record.epoch <= records[-1].epoch:
            raise IncompatibleFileError(
                f"{path}: line {number} is epoch {record.epoch}, the line before is epoch "
                f"{records[-1].epoch}; two runs wrote here: move it away, and give each a "
                "folder of its own"
            )
        records.append(record)
    return tuple(records)


def cut_back(path: Path, epoch: int) -> tuple[EpochRecord, ...]:
    """Remove the records after `epoch` and an incomplete last line; return the remaining records.

    Args:
        path: the log; if there is none, none is created.
        epoch: the last complete epoch of the checkpoint from which the run resumes.

    Raises:
        IncompatibleFileError: as `read_log`; the log is left as it was.
        OutputError: the log cannot be written; it is left as it was.
    """
    if not path.exists():
        return ()
    records = tuple(record for record in read_log(path) if record.epoch <= epoch)
    # The lines themselves rather than the records rewritten: what was logged stays byte for byte.
    kept = b"".join(line + b"\n" for line in _whole_lines(path)[: len(records)])
    if len(kept) < path.stat().st_size:
        with atomic_write(path) as file:
            file.write(kept)
        sync_directory(path.parent)
    return records


def _whole_lines(path: Path) -> list[bytes]:
    # After the last line break there is nothing, or part of a line from a killed writer.
    return path.read_bytes().split(b"\n")[:-1]
