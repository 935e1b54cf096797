"""The limit on a run's failed photographs, and the rule that a run needs at least one."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self, TypeVar

from alexnet_deploy.errors import (
    Argument,
    ArgumentError,
    NoPhotographsError,
    TooManyFailuresError,
)
from alexnet_deploy.photographs.suffixes import LeftOut, searched_for

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureLimit:
    """How many photographs may fail before a run counts as failed.

    Attributes:
        text: as given by the user.
        value: a count, or a percentage of all photographs.
        is_percentage: which of the two.
    """

    text: str = "1%"
    value: float = 1.0
    is_percentage: bool = True

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "10" as a count and "1%" or "0.5 %" as a percentage.

        Raises:
            UsageError: anything else, a negative number, more than 100%.
        """
        number = text.strip()
        is_percentage = number.endswith("%")
        number = number.removesuffix("%").strip()
        try:
            value = float(number) if is_percentage else float(int(number))
        except ValueError:
            value = -1.0
        if not 0 <= value <= (100 if is_percentage else float("inf")):
            raise ArgumentError(
                "max_failures", text, "a count such as 10 or a percentage from 0% to 100%"
            )
        return cls(text=text.strip(), value=value, is_percentage=is_percentage)

    def allows(self, num_failed: int, num_total: int) -> bool:
        """Return whether `num_failed` of `num_total` is within the limit."""
        if self.is_percentage:
            return num_failed * 100 <= self.value * num_total
        return num_failed <= self.value


def no_photographs(left_out: LeftOut | None = None) -> NoPhotographsError:
    """Return the error for paths without photographs."""
    line = "" if left_out is None else left_out.line()
    return NoPhotographsError(
        f"no photograph found in the paths given; looked for {searched_for()} (hidden files and "
        "service folders are skipped); give another folder, or name the files themselves"
        + (f"; {line}" if line else "")
    )


def at_least_one(photographs: Iterable[_Item], left_out: LeftOut | None = None) -> Iterator[_Item]:
    """Yield the photographs, for work that makes no sense without any.

    Raises:
        NoPhotographsError: there are none; when the first is asked for.
    """
    is_empty = True
    for photograph in photographs:
        is_empty = False
        yield photograph
    if is_empty:
        raise no_photographs(left_out)


def check_failures(num_failed: int, num_total: int, limit: FailureLimit) -> None:
    """Raise if a finished run has too many failures; all failed is always too many.

    Raises:
        TooManyFailuresError: with the counts and the limit.
    """
    failed = f"{num_failed:,} of {num_total:,} photographs could not be read"
    if num_failed and num_failed == num_total:
        raise TooManyFailuresError(
            f"{failed}, so there is no result; the reason stands beside each path"
        )
    if not limit.allows(num_failed, num_total):
        raise TooManyFailuresError(
            f"{failed}, ",
            Argument("max_failures", limit.text),
            " allows fewer; the results of the others are "
            "complete; the reason stands beside each path: repair or remove those files, or raise ",
            Argument("max_failures"),
        )
