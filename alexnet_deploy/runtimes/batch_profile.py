"""The batch sizes that an engine is built for: one optimization profile."""

from dataclasses import dataclass
from typing import Self

from alexnet_deploy.errors import Argument, ArgumentError, UsageError

_LARGEST = 2**16  # TensorRT's tensors have at most 2**31 elements, 14,266 images of 224 px


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProfile:
    """Images per call; the engine rejects fewer than `min` and more than `max`.

    Attributes:
        min: smallest batch, 1 or more.
        opt: batch for which the builder chooses kernels.
        max: largest batch; sets the engine's memory.
    """

    min: int = 1
    opt: int = 32
    max: int = 32

    def __post_init__(self) -> None:
        """Reject sizes that are not 1 <= min <= opt <= max.

        Raises:
            UsageError: naming the arguments, the values given and what was expected.
        """
        for name in ("min", "opt", "max"):
            number = getattr(self, name)
            if type(number) is not int or not 1 <= number <= _LARGEST:
                raise ArgumentError(f"profile.{name}", number, f"1 to {_LARGEST}")
        if not self.min <= self.opt <= self.max:
            raise UsageError(
                Argument("profile.min", self.min),
                ", ",
                Argument("profile.opt", self.opt),
                ", ",
                Argument("profile.max", self.max),
                ": expected min <= opt <= max",
            )

    @classmethod
    def around(cls, *, min: int | None, opt: int | None, max: int | None) -> Self:
        """Return the profile with the given sizes, and the missing ones (None) inferred from them.

        Raises:
            UsageError: as for the class.
        """
        defaults = cls()
        if opt is None:
            opt = defaults.opt if max is None or max > defaults.opt else max
        if max is None:
            max = defaults.max if opt < defaults.max else opt
        return cls(min=defaults.min if min is None else min, opt=opt, max=max)

    def nearest(self, batch: int) -> int:
        """Return the allowed size nearest to `batch`."""
        return max(self.min, min(batch, self.max))

    def shapes(
        self, image: tuple[int, int, int]
    ) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Return the three input shapes of an `image` (H, W, 3): min, opt and max in front."""
        return (self.min, *image), (self.opt, *image), (self.max, *image)
