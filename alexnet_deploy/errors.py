"""The exception family; the command line turns each into one message and its exit code.

    AlexNetDeployError          1  anything that failed
      MissingPackageError       1  an optional package is not installed
      DeviceError               1  a runtime or device that was asked for cannot be used here
      OutputError               1  a file could not be written
      DownloadError             1  a public network could not be fetched
      NoPhotographsError        1  nothing to work on
      DatasetError              1  photographs with classes that do not do for training or judging
      IndexLockedError          1  another process writes to the index
      MissingPhotographsError   1  too many indexed photographs are not where they were
      ClosedError               1  a model or an index that is closed, or another process's
      UsageError                2  a value that cannot mean what was asked
        ArgumentError           2  the same, of one argument: what came and what was expected
      TooManyFailuresError      3  finished, but more inputs failed than max_failures allows
      VerificationError         4  an artefact does not compute what its checkpoint computes
      IncompatibleFileError     5  a file that is damaged, foreign, or of another model
    PhotographError                one photograph that cannot be read; becomes a result, never exits

A message says what failed, what came, what was expected, and what to do. Where it names an
argument of a call, that is an `Argument`, which the command line writes as its option.
"""

import copyreg
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from alexnet_deploy import installed


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a call in a message: its name, or the value to give it."""

    name: str
    value: object = None

    def __str__(self) -> str:
        """Return it as in Python: `batch_size`, `prune=True`, `device="cpu"`."""
        if self.value is None:
            return self.name
        value = f'"{self.value}"' if isinstance(self.value, str) else repr(self.value)
        return f"{self.name}={value}"


class Message(str):
    """A text for people, in Python's words, that can be put in those of a command line.

    Args:
        parts: the text in order; a part may be a message itself.
    """

    parts: tuple[str | Argument, ...]

    def __new__(cls, *parts: str | Argument) -> "Message":
        """Join the parts."""
        message = super().__new__(cls, "".join(map(str, parts)))
        message.parts = parts
        return message

    def rendered(self, style: Callable[[Argument], str]) -> str:
        """Return the text with every argument as `style` writes it."""
        return "".join(
            style(part)
            if isinstance(part, Argument)
            else (part.rendered(style) if isinstance(part, Message) else part)
            for part in self.parts
        )


class AlexNetDeployError(Exception):
    """Base of every error that a user can cause and mend.

    Args:
        parts: those of the message.
    """

    exit_code = 1

    def __init__(self, *parts: str | Argument) -> None:
        self.message = Message(*parts)
        super().__init__(self.message)

    def rendered(self, style: Callable[[Argument], str]) -> str:
        """Return the message with every argument as `style` writes it."""
        return self.message.rendered(style)

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by calling the class again: some make the message of other arguments.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class MissingPackageError(AlexNetDeployError):
    """An optional package is not installed; the message holds the exact `pip install` line.

    It names the extra, but beside onnxruntime-gpu the package alone in place of [cpu], whose
    onnxruntime would overwrite that.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        is_harmful = extra == "cpu" and installed.has_distribution("onnxruntime-gpu")
        wanted = package if is_harmful else f"'alexnet-deploy[{extra}]'"
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed here; "
            f"install it with: pip install {wanted}"
        )


class DeviceError(AlexNetDeployError):
    """The runtime, device or precision that was asked for cannot be used on this machine."""


class OutputError(AlexNetDeployError):
    """A file could not be written (disk full, no permission); nothing half-written is left."""


class DownloadError(AlexNetDeployError):
    """A public network is not on this disk, and none of its sources gives it."""


class NoPhotographsError(AlexNetDeployError):
    """The paths given hold no photograph."""


class DatasetError(AlexNetDeployError):
    """Photographs with classes cannot be used as they are: an empty class, other classes."""


class IndexLockedError(AlexNetDeployError):
    """Another process holds the index's lock; the message says which."""


class MissingPhotographsError(AlexNetDeployError):
    """So many photographs are gone that the cause may be a drive that is not there."""


class ClosedError(AlexNetDeployError):
    """A model or an index was used after it was closed, or in a process that did not open it."""


class UsageError(AlexNetDeployError):
    """An argument that cannot mean what was asked: a missing path, an unknown layer."""

    exit_code = 2


class ArgumentError(UsageError):
    """An argument whose value is out of its range.

    Attributes:
        argument: its name.
        came: the value.
        expected: what it may be, in words.
        remedy: what else to do; "" for nothing.
    """

    def __init__(self, argument: str, came: object, expected: str, remedy: str = "") -> None:
        super().__init__(
            Argument(argument),
            f" is {_short(repr(came))}, expected {expected}",
            *(("; ", remedy) if remedy else ()),
        )
        self.argument = argument
        self.came = came
        self.expected = expected
        self.remedy = remedy


def _short(text: str) -> str:
    """Return a value's text; of a long one, such as an array's, only the beginning in one line."""
    return text if len(text) <= 200 else f"{' '.join(text[:200].split())}..."


class TooManyFailuresError(AlexNetDeployError):
    """The run finished, and more photographs failed than `max_failures` allows."""

    exit_code = 3


class VerificationError(AlexNetDeployError):
    """The artefact's numbers differ from the reference by more than the tolerance."""

    exit_code = 4


class IncompatibleFileError(AlexNetDeployError):
    """A checkpoint or model file that is damaged, not ours, or of another architecture."""

    exit_code = 5


class PhotographError(Exception):
    """One photograph cannot be read.

    Attributes:
        reason: without the path; also `str(error)`, in Python's words.
    """

    def __init__(self, *parts: str | Argument) -> None:
        self.reason = Message(*parts)
        super().__init__(self.reason)
