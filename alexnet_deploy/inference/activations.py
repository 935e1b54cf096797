"""From a layer's activations to the numbers that are kept of them: pooled, and in float16 or not.

C channels, H/W positions, D numbers of a vector.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy import arguments
from alexnet_deploy.choices import POOLS, Pool, StoredType
from alexnet_deploy.errors import Argument, Message, UsageError
from alexnet_deploy.model.spec import ModelSpec


def check_pool(pool: Pool, layers: tuple[str, ...], spec: ModelSpec) -> None:
    """Reject to pool where no layer has maps.

    Raises:
        UsageError: naming the layers.
    """
    arguments.choice("pool", pool, POOLS)
    shapes = spec.layer_shapes()
    if pool != "none" and all(len(shapes[layer]) == 1 for layer in layers):
        raise UsageError(
            Argument("pool", pool),
            f" is for maps, (C, H, W), and {', '.join(layers)} has none; leave it out, or take a "
            "layer such as conv5",
        )


def pooled_shape(shape: tuple[int, ...], pool: Pool) -> tuple[int, ...]:
    """Return the shape that `pooled` gives: (C,) of maps (C, H, W), else `shape`."""
    return shape if pool == "none" or len(shape) == 1 else shape[:1]


def pooled(activations: NDArray[np.float32], pool: Pool) -> NDArray[np.float32]:
    """Reduce maps (C, H, W) to one number a channel, (C,); a vector (D,) stays as it is."""
    if pool == "none" or activations.ndim == 1:
        return activations
    if pool == "max":
        largest: NDArray[np.float32] = activations.max(axis=(1, 2))
        return largest
    mean: NDArray[np.float64] = activations.mean(axis=(1, 2), dtype=np.float64)
    return mean.astype(np.float32)


def stored(
    activations: NDArray[np.float32], dtype: StoredType, layer: str
) -> tuple[NDArray[np.floating], str | None]:
    """Round to `dtype`, little-endian and contiguous; with the reason if they do not fit.

    Args:
        activations: of one photograph, finite.
        dtype: what is kept.
        layer: its name, for the reason.
    """
    with np.errstate(over="ignore"):  # checked on the next line
        row = np.ascontiguousarray(activations, dtype=STORED[dtype])
    if dtype == "float32" or np.isfinite(row).all():
        return row, None
    return row, Message(
        f"its {layer} activations reach {float(np.abs(activations).max()):.3g}, float16 holds up "
        "to 65504; take ",
        Argument("dtype", "float32"),
    )


STORED: Mapping[StoredType, np.dtype[np.floating]] = MappingProxyType(
    {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
)
"""How numbers are kept on disk, by name."""
