"""Checkpoints that need not be read to start: what each is, remembered by its file's stamp.

The cache knows an export by the hash of all weights, which takes a pass over the checkpoint. So it
keeps spec and identity beside the file's device, inode, size and times, and where all of those are
as they were, the file is taken to be as it was. Results do not rest on that: they come from a
network whose own hash is compared. Given up is to notice that the *file* has changed where not even
its inode's time of change shows it: whoever may set the clock or write to the device can arrange
that, a file system may lose it in a crash, and a program that holds the file mapped may still write
to it. Clocks tick; so a file that changed within two seconds of being read is not remembered. Nor
is one whose time of change is in whole seconds: FAT, sshfs and images such as squashfs give the
time of modification there, which whoever copies a file or builds an image sets as he likes.
"""

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from alexnet_deploy import __version__
from alexnet_deploy.errors import IncompatibleFileError, OutputError
from alexnet_deploy.export.cache import read_entry, write_entry
from alexnet_deploy.files.private_folders import private_folder
from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.spec import ModelSpec
from alexnet_deploy.photographs.file_stamps import is_settled
from alexnet_deploy.weights.names import ModelSource, open_checkpoint
from alexnet_deploy.weights.store import stored_path


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordedCheckpoint:
    """What a checkpoint is; its weights are read when they are needed.

    Attributes:
        source: where it is.
        spec: of the checkpoint.
        identity: of the checkpoint.
        weights: None where they have not been read.
    """

    source: ModelSource
    spec: ModelSpec
    identity: str
    weights: Checkpoint | None = None

    def read(self) -> Checkpoint:
        """Return the checkpoint itself.

        Raises:
            IncompatibleFileError: as `open_checkpoint`, or it is not the one that was recorded.
        """
        checkpoint = self.weights or open_checkpoint(self.source)
        if checkpoint.identity != self.identity or checkpoint.spec != self.spec:
            raise IncompatibleFileError(
                f"{self.source}: has changed while it was being opened; try again"
            )
        return checkpoint


def open_recorded(source: ModelSource) -> RecordedCheckpoint:
    """Return what a checkpoint is, from the cache where its file is as it was, else by reading it.

    Raises:
        IncompatibleFileError, MissingPackageError, UsageError: as `open_checkpoint`.
    """
    path = _path_of(source)
    key = f"{__version__} {os.path.abspath(path)!a}"
    stamp = _stamp(path)
    entry = read_entry(key, "checkpoint") if stamp else None
    if entry is not None and entry.fields["stamp"] == stamp:
        spec = ModelSpec.from_json(entry.fields["spec"], str(source))
        return RecordedCheckpoint(source=source, spec=spec, identity=entry.fields["identity"])
    checkpoint = open_checkpoint(source)
    spec, identity = checkpoint.spec, checkpoint.identity
    if stamp and stamp == _stamp(path):
        with suppress(OutputError):  # said where the network is to be kept
            fields = {"stamp": stamp, "spec": spec.to_json(), "identity": identity}
            write_entry(key, "checkpoint", fields)
    return RecordedCheckpoint(source=source, spec=spec, identity=identity, weights=checkpoint)


def _path_of(source: ModelSource) -> Path:
    """Return a checkpoint's file; "." for a network that is in no store of the user's own."""
    if isinstance(source, Path):
        return source
    with suppress(OutputError):
        private_folder("data")
        return stored_path(source.name) or Path()
    return Path()


def _stamp(path: Path) -> list[int] | None:
    """Return what changes when the file does; None where a change might leave it as it is."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    changed = status.st_ctime_ns
    is_telling = is_settled(changed) and changed % 1_000_000_000
    if not stat.S_ISREG(status.st_mode) or not is_telling:
        return None
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, changed]
