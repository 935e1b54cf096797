"""Match class folders with a model's outputs, and the classes of two models."""

import difflib
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import Argument, DatasetError, IncompatibleFileError
from alexnet_deploy.model.spec import ModelSpec
from alexnet_deploy.photographs.class_folders import ClassFolders

_MAX_NAMED = 3  # unknown folders per message, and similar labels for each


def class_indices(folders: ClassFolders, spec: ModelSpec, model: str) -> NDArray[np.int64]:
    """Return the index of the model's output for each class of `folders`.

    A folder's name is looked up among the labels; labels without a folder are allowed. If the model
    has no labels, the folders in sorted order are its classes, provided the counts agree.

    Args:
        folders: the photographs.
        spec: names the classes.
        model: the model's name in messages.

    Raises:
        DatasetError: a folder's name is not a label, or the numbers of folders and classes differ.
        IncompatibleFileError: two classes of the model share the name of a folder.
    """
    if not spec.labels:
        if len(folders.classes) != spec.num_classes:
            raise DatasetError(
                f"{folders.root}: has {len(folders.classes):,} class folders, {model} has "
                f"{spec.num_classes:,} classes and no labels to match them by; export it with ",
                Argument("labels"),
                ", the folders' names in the order of its outputs",
            )
        return np.arange(spec.num_classes)
    counts = Counter(spec.labels)
    unknown = [name for name in folders.classes if name not in counts]
    if unknown:
        raise _unknown_folders(folders, unknown, spec, model)
    for name in folders.classes:
        if counts[name] > 1:
            raise IncompatibleFileError(
                f"{model}: {counts[name]} of its classes are called {name!r}, so the folder "
                f"{folders.root / name} could be either; export it with ",
                Argument("labels"),
                ", each name once",
            )
    index_of = {label: index for index, label in enumerate(spec.labels)}
    return np.array([index_of[name] for name in folders.classes], np.int64)


def check_same_classes(first: ModelSpec, other: ModelSpec, first_name: str, name: str) -> None:
    """Raise if two models' classes differ, so that their probabilities cannot be averaged.

    Raises:
        IncompatibleFileError: naming both models and the first difference.
    """
    outputs = range(min(first.num_classes, other.num_classes))
    different = [index for index in outputs if first.label(index) != other.label(index)]
    if first.num_classes != other.num_classes:
        difference = f"{first.num_classes:,} and {other.num_classes:,} classes"
    elif different:
        labels = " and ".join(repr(spec.label(different[0])) for spec in (first, other))
        difference = f"output {different[0]} is {labels}"
    else:
        return
    raise IncompatibleFileError(
        f"{first_name} and {name}: cannot be averaged, their classes differ ({difference}); "
        "evaluate them one by one, or export both with the same ",
        Argument("labels"),
    )


def _unknown_folders(
    folders: ClassFolders, unknown: list[str], spec: ModelSpec, model: str
) -> DatasetError:
    """Return the error that names the unknown folders, with similar labels."""
    by_folded = {label.casefold(): label for label in spec.labels}
    lines = []
    for name in unknown[:_MAX_NAMED]:
        near = difflib.get_close_matches(name.casefold(), list(by_folded), n=_MAX_NAMED)
        hint = ", ".join(repr(by_folded[label]) for label in near)
        lines.append(f"{name!r} ({f'near: {hint}' if near else 'no label is near'})")
    more = f" and {len(unknown) - _MAX_NAMED:,} more" if len(unknown) > _MAX_NAMED else ""
    some = ", ".join(map(repr, spec.labels[:_MAX_NAMED]))
    return DatasetError(
        f"{folders.root}: {len(unknown):,} of {len(folders.classes):,} class folders are not "
        f"labels of {model}: {'; '.join(lines)}{more}; its {spec.num_classes:,} labels begin with "
        f"{some}; rename the folders, or export the model with ",
        Argument("labels"),
        ", the folders' names in the order of its outputs",
    )
