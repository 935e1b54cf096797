"""Photographs whose classes are in a file, such as ImageNet's validation set.

The file is recognized by its first line:

    490                                  the devkit's ILSVRC2012_validation_ground_truth.txt
    ILSVRC2012_val_00000001.JPEG 65      Caffe's val.txt; a WNID may stand for the number
    ImageId,PredictionString             Kaggle's LOC_val_solution.csv
    path,label                           any other, as CSV with these two columns among others

Line n of the devkit's file is the class of ILSVRC2012_val_<n>, in the devkit's numbers, which are
made WNIDs here. Other labels stay as they are, and are matched with a model's outputs later.
N photographs.
"""

import csv
import io
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import Argument, DatasetError, Message, UsageError
from alexnet_deploy.files.input_files import existing_file
from alexnet_deploy.files.path_text import printable
from alexnet_deploy.model.labels import imagenet_devkit
from alexnet_deploy.photographs.class_folders import ClassFolders, find_class_folders
from alexnet_deploy.photographs.finding import find_photographs
from alexnet_deploy.photographs.suffixes import Suffixes, split

NUMBER = re.compile("0|[1-9][0-9]{0,6}")
WNID = re.compile("n[0-9]{8}")
_FIRST = "ILSVRC2012_val_00000001"  # a sea snake, n01751748
_FIRST_OF_DEVKIT = ("490", "489")  # its number there, from 1 as in the kit or from 0
_NAMED = re.compile(rf"(\S.*?)\s+({NUMBER.pattern}|{WNID.pattern})\s*")
_FORMS = (
    "expected Caffe's val.txt, LOC_val_solution.csv or ILSVRC2012_validation_ground_truth.txt, "
    "or a CSV whose first line is path,label"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledFiles:
    """Photographs with the classes that a file gives them, in its order.

    Attributes:
        file: says which class each photograph is.
        classes: its labels, each once, sorted; numbers by their value.
        labels: [N] int32, index in `classes` of each photograph.
        paths: [N], of the photographs, there or not.
        num_unlabelled: photographs in the folder that the file does not name.
    """

    file: Path
    classes: tuple[str, ...]
    labels: NDArray[np.int32]
    paths: tuple[Path, ...]
    num_unlabelled: int

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> Path:
        """Return the file of one photograph."""
        return self.paths[index]


Labelled = ClassFolders | LabelledFiles
"""Photographs with their classes, whichever way they were given."""


def find_labelled(
    folder: Path,
    truth: Path | None = None,
    *,
    left_out: Callable[[str], None] = lambda path: None,
) -> Labelled:
    """Find the photographs of a folder and their classes.

    Args:
        folder: has a sub-folder for each class, or the photographs that `truth` names.
        truth: the file with their classes; see above for its forms. Names are relative to `folder`;
            one without a photograph's suffix is that of the file which has one.
        left_out: as for `finding.find_photographs`.

    Raises:
        UsageError: `folder` or `truth` is not there.
        DatasetError: the layout is wrong (see `find_class_folders`); `truth` is of no known form or
            names a photograph twice; or not one of its photographs is in the folder.
    """
    if truth is None:
        remedy = Message("move them, or name the file with their classes: ", Argument("truth"))
        return find_class_folders(folder, if_flat=remedy, left_out=left_out)
    existing_file(truth, "the file with the photographs' classes")
    if not folder.is_dir():
        raise UsageError(f"{folder}: is no folder; give the one with the photographs of {truth}")
    there = {os.path.normpath(path) for path in find_photographs([folder], left_out=left_out)}
    label_of = _labels_by_path(folder, truth, there)
    if not label_of:
        raise DatasetError(f"{truth}: names no photograph")
    missing = label_of.keys() - there
    if len(missing) == len(label_of) and not any(map(os.path.lexists, missing)):
        holds = f"holds {min(there)}" if there else "holds no photograph"
        raise DatasetError(
            f"{truth}: of the {len(label_of):,} photographs that it names none is there, such as "
            f"{next(iter(label_of))}; give the folder that its names are relative to; {folder} "
            f"{holds}"
        )
    is_numbered = all(map(NUMBER.fullmatch, label_of.values()))
    classes = sorted(set(label_of.values()), key=int if is_numbered else None)
    number_of = {name: number for number, name in enumerate(classes)}
    return LabelledFiles(
        file=truth,
        classes=tuple(classes),
        labels=np.array([number_of[name] for name in label_of.values()], np.int32),
        paths=tuple(map(Path, label_of)),
        num_unlabelled=len(there - label_of.keys()),
    )


def _labels_by_path(folder: Path, truth: Path, there: set[str]) -> dict[str, str]:
    """Return the label of each photograph that the file names, in its order."""
    by_stem = defaultdict(list)
    for path in there:
        by_stem[os.path.splitext(path)[0]].append(path)
    read = Suffixes().read
    label_of: dict[str, str] = {}
    for name, label in _rows(truth):
        if label in _FIRST_OF_DEVKIT and Path(name).stem == _FIRST:
            raise DatasetError(
                f"{truth}: says {label} of {name}, a number of ImageNet's development kit, whose "
                "order is not that of outputs, where it is 65; give the kit's own "
                "ILSVRC2012_validation_ground_truth.txt"
            )
        path = os.path.normpath(folder / name)
        if split(name)[1] not in read:
            found = sorted(by_stem[path])
            if len(found) > 1:
                raise DatasetError(
                    f"{truth}: {name!r} could be {' or '.join(found)}; name it with its suffix"
                )
            path = found[0] if found else path
        if path in label_of:
            raise DatasetError(f"{truth}: names {path} twice; leave one of the two lines out")
        label_of[path] = label
    return label_of


def _rows(truth: Path) -> Iterator[tuple[str, str]]:
    """Yield name and label of each photograph.

    Raises:
        DatasetError: the file is of no known form, or a line is not as the first.
    """
    # File names need not be UTF-8; see `files.path_text`.
    text = truth.read_text("utf-8-sig", errors="surrogateescape").rstrip()
    lines = text.split("\n")
    first = lines[0].strip()
    header = [name.strip() for name in next(csv.reader([first], skipinitialspace=True), [])]
    if header == ["ImageId", "PredictionString"]:
        for name, boxes in _csv_rows(truth, text, *header):
            yield name, boxes.partition(" ")[0]  # the class, then its box, once for each box
    elif {"path", "label"} <= set(header):
        yield from _csv_rows(truth, text, "path", "label")
    elif NUMBER.fullmatch(first):
        yield from _devkit_rows(truth, lines)
    elif _NAMED.fullmatch(first):
        yield from _named_rows(truth, lines)
    else:
        start = first if len(first) <= 60 else f"{first[:60]}..."
        raise DatasetError(f"{truth}: begins with '{printable(start)}'; {_FORMS}")


def _csv_rows(
    truth: Path, text: str, name_column: str, label_column: str
) -> Iterator[tuple[str, str]]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    try:
        header = [name.strip() for name in next(rows)]
        columns = header.index(name_column), header.index(label_column)
        for row in filter(None, rows):  # without empty lines
            name, label = (row[column] if len(row) == len(header) else "" for column in columns)
            if not name.strip() or not label.strip():
                raise _wrong_line(truth, rows.line_num, ",".join(header))
            yield name.strip(), label.strip()
    except csv.Error as error:
        raise DatasetError(f"{truth}: line {rows.line_num:,} is no CSV ({error})") from error


def _devkit_rows(truth: Path, lines: list[str]) -> Iterator[tuple[str, str]]:
    wnids = imagenet_devkit()
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not NUMBER.fullmatch(text) or not 1 <= int(text) <= len(wnids):
            expected = (
                f"a number of ImageNet's development kit, 1 to {len(wnids)}, alone; the number of "
                "an output needs the photograph's name before it"
            )
            raise _wrong_line(truth, number, expected)
        yield f"ILSVRC2012_val_{number:08}", wnids[int(text) - 1]


def _named_rows(truth: Path, lines: list[str]) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines, start=1):
        match = _NAMED.fullmatch(line)
        if match is None:
            raise _wrong_line(truth, number, "a photograph's name, and a number or WordNet id")
        yield match[1], match[2]


def _wrong_line(truth: Path, number: int, expected: str) -> DatasetError:
    return DatasetError(f"{truth}: line {number:,} is wrong; expected {expected}")
