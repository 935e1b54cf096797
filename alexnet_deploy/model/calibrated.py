"""The ranges that an int8 network rounds its activations in: with a checkpoint they are all of it.

The same checkpoint and ranges give the same network, of the same identity, on every machine;
measuring again need not give the same ranges.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from alexnet_deploy.files.records import Matching, Within, check_fields, require

_MOST_LAYERS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The data that an int8 network's ranges come from.

    Attributes:
        photographs: how many were used.
        are_samples: whether they were the package's own samples.
    """

    photographs: Annotated[int, Within(1, 2**31)]
    are_samples: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRange:
    """The largest magnitude that is represented of a layer's activations; the rest is clipped."""

    layer: Annotated[str, Matching(r"\w{1,100}")]
    # Its scale stays below `quantization.LARGEST_SCALE`.
    largest: Annotated[float, Within(above=0, most=1e30)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationRanges:
    """The ranges of all layers that are rounded, and what they were measured with.

    Attributes:
        checkpoint: its identity; the ranges are of no use for another.
        calibration: the photographs.
        layers: each once; the network's input is among them, under the name of its tensor.
    """

    checkpoint: Annotated[str, Within(1, 1000)]
    calibration: Calibration
    layers: Annotated[tuple[LayerRange, ...], Within(1, _MOST_LAYERS)]

    def __post_init__(self) -> None:
        """Check the fields; see `ModelSpec.__post_init__`."""
        check_fields(self)
        names = [one.layer for one in self.layers]
        require(len(set(names)) == len(names), "layers", names, "each layer once")

    def thresholds(self) -> Mapping[str, float]:
        """Return the largest magnitudes by layer."""
        return {one.layer: one.largest for one in self.layers}


def readable_ranges(fields: Mapping[str, Any] | None) -> list[str]:
    """Return lines for `info` of a record's fields; none where there are no ranges."""
    if not fields:
        return []
    count = fields["calibration"]["photographs"]
    return [f"  calibration   on {count:,} photographs, for {len(fields['layers'])} layers"]


def check_ranges(ranges: ActivationRanges | None, precision: str) -> None:
    """Reject a record with ranges and another precision than int8; for its `__post_init__`.

    Raises:
        IncompatibleFileError: it has.
    """
    require(ranges is None or precision == "int8", "ranges", ranges, "none but for int8")
