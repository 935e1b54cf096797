"""Match the classes of photographs with a model's outputs, and the classes of two models.

C classes that the photographs have, K outputs of the model.
"""

import difflib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import Argument, DatasetError, IncompatibleFileError
from alexnet_deploy.model.labels import imagenet_labels, imagenet_names
from alexnet_deploy.model.spec import ModelSpec
from alexnet_deploy.photographs.class_folders import ClassFolders
from alexnet_deploy.photographs.truth_files import NUMBER, Labelled

MatchedBy = Literal["label", "wnid", "number", "order"]
_MAX_NAMED = 3  # unknown classes per message, and similar labels for each


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassMatch:
    """Which output each class is.

    Attributes:
        indices: [C] int64, 0 .. K - 1.
        by: what was matched: the model's labels, the WordNet ids of ImageNet's classes, numbers of
            the outputs, or folders in sorted order, of a model without labels.
    """

    indices: NDArray[np.int64]
    by: MatchedBy


def match_classes(photographs: Labelled, spec: ModelSpec, model: str) -> ClassMatch:
    """Return the output of each class of `photographs`; outputs may be left without a class.

    A class is looked up among the labels; if not all are there, among the WordNet ids of the
    outputs, which a model has whose labels are ImageNet's or begin with such ids, as in Caffe's
    synset_words.txt, or which has 1000 classes without labels. In a file, classes may also be the
    numbers of the outputs, from 0. Else, if the model has no labels, the folders in sorted order
    are its classes, provided the counts agree.

    Args:
        photographs: with their classes.
        spec: names the outputs.
        model: the model's name in messages.

    Raises:
        DatasetError: a class is no output of the model, or the numbers of folders and outputs
            differ.
        IncompatibleFileError: two outputs share the name of a class.
    """
    classes = photographs.classes
    has_folders = isinstance(photographs, ClassFolders)
    source = photographs.root if isinstance(photographs, ClassFolders) else photographs.file
    if set(classes) <= set(spec.labels):
        return ClassMatch(indices=_by_label(classes, spec, source, model), by="label")
    wnids = _output_of_wnid(spec)
    if set(classes) <= wnids.keys():
        return ClassMatch(indices=np.array([wnids[name] for name in classes], np.int64), by="wnid")
    if not has_folders and all(map(NUMBER.fullmatch, classes)):
        return ClassMatch(indices=_by_number(classes, spec, source, model), by="number")
    if spec.labels:
        raise _unknown_classes(source, classes, spec, model)
    if has_folders and len(classes) == spec.num_classes:
        return ClassMatch(indices=np.arange(spec.num_classes), by="order")
    raise DatasetError(
        f"{source}: has {len(classes):,} classes, {model} has {spec.num_classes:,} and no labels "
        "to match them by; import its checkpoint with ",
        Argument("labels"),
        ", the classes' names in the order of its outputs",
    )


def _by_label(
    classes: tuple[str, ...], spec: ModelSpec, source: Path, model: str
) -> NDArray[np.int64]:
    counts = Counter(spec.labels)
    for name in classes:
        if counts[name] > 1:
            raise IncompatibleFileError(
                f"{model}: {counts[name]} of its outputs are called {name!r}, so the class of that "
                f"name in {source} could be either; import its checkpoint with ",
                Argument("labels"),
                ", each name once",
            )
    index_of = {label: index for index, label in enumerate(spec.labels)}
    return np.array([index_of[name] for name in classes], np.int64)


def _output_of_wnid(spec: ModelSpec) -> Mapping[str, int]:
    """Return the output of each of ImageNet's WordNet ids, if the model is known to have them."""
    names = imagenet_names()
    if spec.labels == imagenet_labels() or (not spec.labels and spec.num_classes == len(names)):
        return {wnid: index for index, wnid in enumerate(names)}
    words = [label.partition(" ")[0] for label in spec.labels]
    return {word: index for index, word in enumerate(words) if word in names}


def _by_number(
    classes: tuple[str, ...], spec: ModelSpec, source: Path, model: str
) -> NDArray[np.int64]:
    numbers = np.array(list(map(int, classes)), np.int64)
    if numbers.max() >= spec.num_classes:
        raise DatasetError(
            f"{source}: has a class {numbers.max()}, the outputs of {model} are 0 to "
            f"{spec.num_classes - 1}; count from 0, in the order of the outputs (the numbers of "
            "ImageNet's development kit have another order, and are read from its own file alone)"
        )
    return numbers


def check_same_classes(
    first: ModelSpec, other: ModelSpec, first_name: str, name: str, *, purpose: str = "averaged"
) -> None:
    """Raise if two models' classes differ, so that they cannot be averaged or compared.

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
        f"{first_name} and {name}: cannot be {purpose}, their classes differ ({difference}); "
        "evaluate them one by one, or import their checkpoints with the same ",
        Argument("labels"),
    )


def _unknown_classes(
    source: Path, classes: tuple[str, ...], spec: ModelSpec, model: str
) -> DatasetError:
    """Return the error that names the unknown classes, with similar labels."""
    known = set(spec.labels)
    unknown = [name for name in classes if name not in known]
    by_folded = {label.casefold(): label for label in spec.labels}
    lines = []
    for name in unknown[:_MAX_NAMED]:
        near = difflib.get_close_matches(name.casefold(), list(by_folded), n=_MAX_NAMED)
        hint = ", ".join(repr(by_folded[label]) for label in near)
        lines.append(f"{name!r} ({f'near: {hint}' if near else 'no label is near'})")
    more = f" and {len(unknown) - _MAX_NAMED:,} more" if len(unknown) > _MAX_NAMED else ""
    some = ", ".join(map(repr, spec.labels[:_MAX_NAMED]))
    return DatasetError(
        f"{source}: {len(unknown):,} of {len(classes):,} classes are not labels of {model}: "
        f"{'; '.join(lines)}{more}; its {spec.num_classes:,} labels begin with {some}; rename the "
        "classes, or import its checkpoint with ",
        Argument("labels"),
        ", the classes' names in the order of its outputs",
    )
