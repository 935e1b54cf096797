"""What the compressed vectors of an index say of themselves: `ann/compressed.json`."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from alexnet_deploy.choices import CODE_BITS
from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.files.records import Within, damaged, read_record, require
from alexnet_deploy.files.regular_files import open_folder, read_file
from alexnet_deploy.index.ledger import REAL
from alexnet_deploy.index.storage import Storage

FOLDER_NAME = "ann"
RECORD_NAME = "compressed.json"
_MAX_BYTES = 2**16
"""Ours have about one thousand."""
AGAIN = "delete it, and index again: it is only a cache"
NUM_NEAREST = 10
"""For which shares and recall are measured."""
EFFORTS = (20, 50, 100, 200, 500, 1000)
"""Vectors read, for which recall is measured."""
_Name = Annotated[str, Within(1, 1000)]
_Share = Annotated[float, Within(0, 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressedRecord:
    """The contents of `compressed.json`.

    Attributes:
        identity: of the network, as in the manifest.
        layer: of the vectors, as in the manifest.
        run: the ledger's last run when rows were last appended.
        started: when that run started, in seconds since 1970. A ledger in which no such run has
            finished is another, or an older copy: its positions may hold other vectors.
        fit: the number of the files.
        num_axes: d.
        error: of the `Compression`.
        num_rows: vectors that have a row, whether photographs have them or not.
        next_position: before it all had one, then.
        num_fitted: rows when the axes were fitted.
        lost: what the axes leave out of the variance of those rows.
        lost_later: the same of the rows since then; 0 where there are none.
        coder: what makes the binary codes, "none", "itq" or "given".
        coder_widths: of the `BinaryCoder`; none without one.
        num_measured: rows when the next two were measured, by some of the index's own vectors.
        share_read: of the vectors, to prove which 10 are the nearest; the median.
        recall: of the nearest 10, for each of `EFFORTS`, by the binary codes if there are any.
    """

    FORMAT: ClassVar[int] = 1

    identity: _Name
    layer: _Name
    run: Annotated[int, Within(1)]
    started: float
    fit: Annotated[int, Within(0, 99999)]
    num_axes: Annotated[int, Within(1, 2**8)]
    error: Annotated[float, Within(0, 2)]
    num_rows: Annotated[int, Within(1, 2**40)]
    next_position: Annotated[int, Within(1)]
    num_fitted: Annotated[int, Within(1, 2**40)]
    lost: _Share
    lost_later: _Share = 0.0
    coder: Literal["none", "itq", "given"] = "none"
    coder_widths: Annotated[tuple[Annotated[int, Within(1, 10**7)], ...], Within(0, 9)] = ()
    num_measured: Annotated[int, Within(0, 2**40)] = 0
    share_read: _Share = 1.0
    recall: tuple[_Share, ...] = ()

    def __post_init__(self) -> None:
        """Check that the coder is one, or none."""
        is_coder = len(self.coder_widths) > 1 and self.coder_widths[-1] in CODE_BITS
        is_none = not self.coder_widths
        require(
            is_none if self.coder == "none" else is_coder,
            "coder_widths",
            self.coder_widths,
            f"none, or the widths of layers that end in {', '.join(map(str, CODE_BITS))} bits",
        )

    @property
    def bits(self) -> int:
        """Of a binary code; 0 without."""
        return self.coder_widths[-1] if self.coder_widths else 0

    def recall_of(self, effort: int) -> float | None:
        """Return the recall measured for `effort`, or for less; None where none was."""
        known = [one for least, one in zip(EFFORTS, self.recall, strict=False) if least <= effort]
        return known[-1] if known else None

    def line(self) -> str:
        """Say to a person what compressing has brought."""
        recall, codes = self.recall_of(100), f", and {self.bits} bits" if self.bits else ""
        return (
            f"{self.num_rows:,} vectors are compressed to {self.num_axes + 1} bytes{codes}; a "
            f"search for {NUM_NEAREST} reads {self.share_read:.2%} of them to prove that it missed "
            "none" + ("" if recall is None else f", with an effort of 100 it finds {recall:.1%}")
        )


def record_stamp(directory: Path) -> tuple[int, ...] | None:
    """Return what changes when the record does; None where there is none."""
    try:
        status = os.lstat(directory / FOLDER_NAME / RECORD_NAME)
    except FileNotFoundError:
        return None
    except OSError as error:  # `compressed_record` says what is wrong with it
        return (error.errno or 0,)
    return status.st_dev, status.st_ino, status.st_mtime_ns


def compressed_record(storage: Storage) -> CompressedRecord | None:
    """Return the record of the compressed vectors, whose files are not looked at; None without any.

    Raises:
        IncompatibleFileError: as `read_compressed`.
    """
    path = storage.directory / FOLDER_NAME / RECORD_NAME
    try:
        os.close(open_folder(path.parent))  # which is no link
        text = read_file(path, AGAIN, follow_links=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise damaged(str(path.parent), error.strerror or error, AGAIN) from error
    if len(text) > _MAX_BYTES:  # to check millions of numbers takes minutes
        raise damaged(str(path), f"it has {len(text):,} bytes", AGAIN)
    record = read_record(CompressedRecord, text, str(path), AGAIN)
    _check_belongs(storage, record)
    return record


def _check_belongs(storage: Storage, record: CompressedRecord) -> None:
    space, path = storage.manifest.space, storage.directory / FOLDER_NAME
    sql = "SELECT started FROM runs WHERE id = ? AND finished IS NOT NULL"
    row = storage.ledger.one(sql, (record.run,), kinds=(REAL,))
    own = (space.identity, space.layer, None if row is None else row[0])
    if own != (record.identity, record.layer, record.started):
        raise IncompatibleFileError(
            f"{path}: is of another index, or of a later state of this one, which came from a "
            f"copy; {AGAIN}"
        )
    if record.next_position > storage.next_position():
        raise damaged(str(path), f"the next position is {record.next_position}", AGAIN)
