"""Class names: the 1000 of ImageNet, or those in a file."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.files.input_files import existing_file
from alexnet_deploy.installed import DATA


def imagenet_labels() -> tuple[str, ...]:
    """Return the 1000 ILSVRC-2012 names in sorted-WNID order, torchvision's output order."""
    return tuple(imagenet_names().values())


@cache
def imagenet_names() -> Mapping[str, str]:
    """Return the ILSVRC-2012 name of each WNID, such as n01440764, in sorted-WNID order."""
    return {wnid: name for _, wnid, _, name in _imagenet_rows()}


@cache
def imagenet_devkit() -> tuple[str, ...]:
    """Return the WNIDs in the order of the development kit, whose ILSVRC2012_ID counts from 1.

    It is the order of the kit's validation ground truth and of the 2012 code, not that of outputs.
    """
    rows = sorted(_imagenet_rows(), key=lambda row: int(row[2]))
    return tuple(wnid for _, wnid, _, _ in rows)


def _imagenet_rows() -> list[list[str]]:
    """Return index, WNID, ILSVRC2012_ID and names of each class."""
    table = DATA / "imagenet_classes.tsv"
    return [row.split("\t") for row in table.read_text("utf-8").splitlines()[1:]]


def read_labels(path: Path) -> tuple[str, ...]:
    """Read class names, one per line, UTF-8 with or without a BOM; trailing empty lines are
    dropped.

    Raises:
        UsageError: the file is missing or not readable.
        IncompatibleFileError: not UTF-8 text, or a line is empty.
    """
    existing_file(path, "a text file with one label per line")
    try:
        lines = path.read_text("utf-8-sig").rstrip().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise IncompatibleFileError(
            f"{path}: labels cannot be read ({error}); expected UTF-8 text, one label per line"
        ) from error
    labels = tuple(line.strip() for line in lines)
    if not all(labels):
        raise IncompatibleFileError(
            f"{path}: line {labels.index('') + 1} is empty; expected one label per line"
        )
    return labels
