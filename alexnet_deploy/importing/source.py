"""What a file of another program holds: arrays, and what it says of the network they are from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.model.spec import LrnSpec

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedNetwork:
    """A network as a graph or a Caffe file describes it, in the terms of `ModelSpec`.

    Attributes:
        input_size: px.
        conv1_padding: px: top, left, bottom, right.
        pool_padding: as `ModelSpec.pool_padding`; 0 where the padding adds no window.
        groups: of conv1 .. conv5.
        lrn: None for a network without.
        mean, std: what the graph itself subtracts from grey levels of 0..255 and divides by, in
            the order of conv1's channels; None where its input is already normalized.
    """

    input_size: int
    conv1_padding: tuple[int, int, int, int]
    pool_padding: tuple[int, int, int]
    groups: tuple[int, int, int, int, int]
    lrn: LrnSpec | None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """The content of a foreign file.

    Attributes:
        container: what kind of file it is, for people: "ONNX model".
        arrays: by the file's own names, in its order: floating-point numbers of convolutions as
            (out, in / groups, height, width), of fully connected layers (out, in), biases (out,).
        places: the paper's name of an array to the file's, where the file's own graph says which
            is which: conv1.weight -> conv1_w_0. None where only names and shapes can tell.
        stated: the network as the file describes it; None where it holds arrays alone.
        mean_image: (3, S, S) grey levels, its channels in the order of conv1's.
        notes: lines for people: what was read and left aside.
    """

    container: str
    arrays: Mapping[str, Array]
    places: Mapping[str, str] | None = None
    stated: StatedNetwork | None = None
    mean_image: Array | None = None
    notes: tuple[str, ...] = ()


def shortest(number: float) -> float:
    """Return the shortest decimal that is the same float32: 1e-4, not 9.999999747378752e-05."""
    return float(str(np.float32(number)))
