"""The options of a run, and `run.json`, which records them."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from alexnet_deploy.errors import (
    Argument,
    ArgumentError,
    IncompatibleFileError,
    Message,
    UsageError,
)
from alexnet_deploy.files.output_files import atomic_write
from alexnet_deploy.files.records import LATER, Within, json_object, read_record
from alexnet_deploy.files.regular_files import read_file
from alexnet_deploy.photographs.class_folders import ClassFolders
from alexnet_deploy.weights.names import ModelSource
from training.networks import Trained
from training.recipes import Recipe
from training.trainer import Precision

RUN_NAME = "run.json"
_BLOCK = 65_536  # photographs
_ANEW = Message("begin again in another folder, with ", Argument("init"))
_HOLD_OUT = Argument("hold_out", 0.1)
_OF_THE_PHOTOGRAPHS = ("classes", "photographs", "validation_photographs")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """What to train on, how, and where to write.

    Attributes:
        data: a folder of class sub-folders, prepared or not.
        output: the folder of the run; created if necessary.
        validation: another such folder, with the same classes, or None.
        hold_out: share of `data`'s photographs, 0..1, to validate on if `validation` is None; 0
            for no validation.
        recipe: the hyperparameters.
        devices: as `devices.parse_devices` reads them.
        precision: of products; weights are float32.
        seed: of everything random.
        init: a network to start from, or None.
        old_rate_factor: if `init` lacks some of the classes, a factor on the learning rate of all
            layers but fc8.
        train: which layers learn; "head", fc8 alone, only from `init`.
        keep: number of checkpoints to keep for resuming.
        save_minutes: interval between checkpoints within an epoch.
        num_workers: processes that decode photographs that do not fit in memory.
        memory_bytes: limit on photographs kept in memory.
        resume: continue the run in `output`.
    """

    data: Path
    output: Path
    validation: Path | None
    hold_out: float
    recipe: Recipe
    devices: str
    precision: Precision
    seed: int
    init: ModelSource | None
    old_rate_factor: float
    train: Trained
    keep: int
    save_minutes: float
    num_workers: int
    memory_bytes: int
    resume: bool

    def __post_init__(self) -> None:
        """Refuse impossible options.

        Raises:
            UsageError: naming the argument.
        """
        if not 0 <= self.hold_out < 1:
            raise ArgumentError("hold_out", self.hold_out, "a share from 0 to below 1")
        if self.recipe.schedule == "plateau" and self.validation is None and not self.hold_out:
            raise UsageError(
                f"recipe {self.recipe.name} lowers its learning rate when the validation error "
                "stalls, and there is no validation: give a folder as ",
                Argument("validation"),
                ", or ",
                _HOLD_OUT,
            )
        if not 0 < self.old_rate_factor <= 1:
            raise ArgumentError("old_rate_factor", self.old_rate_factor, "more than 0, at most 1")
        if self.train == "head" and self.init is None:
            raise UsageError(
                Argument("train", "head"),
                " leaves all layers but fc8 as they are, which have learnt nothing yet; give a "
                "trained network as ",
                Argument("init"),
            )
        if not self.save_minutes > 0:
            raise ArgumentError("save_minutes", self.save_minutes, "more than 0")
        if not 0 <= self.seed < 2**63:
            raise ArgumentError("seed", self.seed, "a number from 0 to 2^63 - 1")
        if self.validation is not None and self.validation.resolve() == self.data.resolve():
            raise UsageError(
                Argument("validation", str(self.validation)),
                " is the folder to train on, which says nothing about other photographs; leave it "
                "out and give ",
                _HOLD_OUT,
            )
        for photographs in (self.data, self.validation):
            # curves.png would be taken for one of them.
            if photographs and self.output.resolve().is_relative_to(photographs.resolve()):
                raise UsageError(
                    Argument("output", str(self.output)),
                    f" would be among the photographs of {photographs}; name a folder outside",
                )

    def of_numbers(self) -> dict[str, object]:
        """Return the options that determine the results of the run, for `run.json`."""
        named = None if self.init is None else str(self.init)
        return {
            "data": str(self.data.resolve()),
            "validation": None if self.validation is None else str(self.validation.resolve()),
            "hold_out": self.hold_out if self.validation is None else 0.0,
            "recipe": dataclasses.asdict(self.recipe),
            "precision": self.precision,
            "seed": self.seed,
            "init": str(self.init.resolve()) if isinstance(self.init, Path) else named,
            "old_rate_factor": None if self.init is None else self.old_rate_factor,
            "train": self.train,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """The content of `run.json`: what `of_numbers` and `_contents` returned when the run began."""

    FORMAT: ClassVar[int] = 1

    data: str
    validation: str | None
    hold_out: Annotated[float, Within(0, below=1)]
    recipe: Recipe
    precision: Precision
    seed: Annotated[int, Within(0)]
    init: str | None
    old_rate_factor: Annotated[float, Within(above=0, most=1)] | None
    classes: tuple[str, ...]
    photographs: str
    validation_photographs: str | None
    train: Trained = dataclasses.field(default="all", metadata=LATER)


def write_run(
    options: TrainOptions, training: ClassFolders, validation: ClassFolders | None
) -> None:
    """Write `run.json` into the folder of the run.

    Args:
        options: of the run.
        training: the photographs, without those known to be unreadable.
        validation: the same for those to validate on, or None.

    Raises:
        OutputError: it cannot be written.
    """
    content = {"version": _Begun.FORMAT} | options.of_numbers() | _contents(training, validation)
    with atomic_write(options.output / RUN_NAME) as file:
        file.write(json.dumps(content, indent=1).encode() + b"\n")


def check_options(options: TrainOptions) -> None:
    """Refuse to resume with other options than the run began with.

    Devices, workers and memory may change: they affect only rounding, the dropout masks (on
    another kind of device), and whether unreadable photographs are dropped at the start, which
    `check_photographs` detects. The number of epochs may grow under "plateau", whose learning rate
    does not depend on it: a complete run then continues. Folders may have moved.

    Raises:
        IncompatibleFileError: `run.json` is missing or damaged.
        UsageError: an option differs; the message names it.
    """
    begun = _read(options.output / RUN_NAME)
    _check_recipe(options, begun.recipe)
    now = options.of_numbers()
    if (begun.validation is None) != (options.validation is None):
        raise _changed(options, "validation", begun.validation, now["validation"])
    _check_same(options, begun, now, without=("recipe", "data", "validation"))


def check_photographs(
    options: TrainOptions, training: ClassFolders, validation: ClassFolders | None
) -> None:
    """Refuse to resume with other photographs than the run began with.

    Raises:
        IncompatibleFileError: `run.json` is missing or damaged.
        UsageError: their names, number or classes differ; this includes a photograph that could
            not be read into memory then, and now can be or is no longer read into memory.
    """
    _check_same(options, _read(options.output / RUN_NAME), _contents(training, validation))


def _contents(training: ClassFolders, validation: ClassFolders | None) -> dict[str, object]:
    return {
        "classes": training.classes,
        "photographs": _digest(training),
        "validation_photographs": None if validation is None else _digest(validation),
    }


def _read(path: Path) -> _Begun:
    try:
        fields = json_object(read_file(path, _ANEW), str(path), _ANEW)
    except FileNotFoundError as error:
        raise IncompatibleFileError(f"{path}: does not exist; ", _ANEW) from error
    if "version" in fields:  # what this file calls its format
        fields["format"] = fields.pop("version")
    return read_record(_Begun, fields, str(path), _ANEW)


def _check_recipe(options: TrainOptions, began: Recipe) -> None:
    now = options.recipe
    for field in dataclasses.fields(Recipe):
        came, expected = getattr(now, field.name), getattr(began, field.name)
        longer = field.name == "num_epochs" and came > expected
        if came == expected or (longer and began.schedule == "plateau"):
            continue
        why = f", and the learning rate of {began.schedule} falls to 0 in the last of them"
        raise _changed(options, f"recipe.{field.name}", expected, came, why if longer else "")


def _check_same(
    options: TrainOptions,
    begun: _Begun,
    now: dict[str, object],
    without: Sequence[str] = (),
) -> None:
    for name, value in now.items():
        if name not in without and getattr(begun, name) != value:
            raise _changed(options, name, getattr(begun, name), value)


def _changed(
    options: TrainOptions, name: str, began: object, now: object, why: str = ""
) -> UsageError:
    """Return the error for an option, or a name of `_contents`, that differs."""
    if name in _OF_THE_PHOTOGRAPHS:
        given = Message(f"with {name.replace('_', ' ')} {_short(began)}")
    else:
        given = Message("without " if began is None else "with ", Argument(name, began))
    return UsageError(
        f"{options.output / RUN_NAME}: the run began ",
        given,
        f", now it is {_short(now)}{why}; give the same again, or another ",
        Argument("output"),
    )


def _digest(folders: ClassFolders) -> str:
    """Return a fingerprint of the photographs and their classes, in order."""
    digest = hashlib.sha256(folders.labels.tobytes())
    for first in range(0, len(folders), _BLOCK):  # in blocks: `tolist` makes Python integers
        for start, end in folders.spans[first : first + _BLOCK].tolist():
            digest.update(folders.names[start:end] + b"\0")
    return f"{len(folders):,} photographs, {digest.hexdigest()[:16]}"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
