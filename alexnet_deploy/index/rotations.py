"""A query in its four orientations, of which the one that is nearest counts.

N images, R orientations, K vectors found.
"""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.choices import Metric
from alexnet_deploy.index.ranking import Ranking
from alexnet_deploy.runtimes.base import Runner

ROTATIONS = (0, 90, 180, 270)
"""Degrees clockwise."""


class TurningRunner:
    """Runs each image in every orientation: an output is (N, R, ...), R as in `ROTATIONS`.

    Crops are turned, so that a photograph is decoded once; for a copy that was turned before it was
    cropped, pixels differ by a rounding.

    Args:
        runner: open; it stays the caller's.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.spec = runner.spec
        self.identity = runner.identity
        self.options = runner.options
        self.description = runner.description

    def run(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        """Compute the outputs of one batch, see `Runner.run`."""
        turned = [
            self._runner.run(np.ascontiguousarray(np.rot90(images, -quarters, axes=(1, 2))))
            for quarters in range(len(ROTATIONS))
        ]
        return {name: np.stack([one[name] for one in turned], axis=1) for name in turned[0]}

    def close(self) -> None:
        """Do nothing: the runner is the caller's."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def nearest_of(rankings: Sequence[Ranking], metric: Metric) -> tuple[Ranking, NDArray[np.intp]]:
    """Rank what the orientations of a query found, each vector once, where it was the nearest.

    Args:
        rankings: one for each orientation; the first wins ties.
        metric: that they were ranked by.

    Returns:
        The ranking, and for each of its vectors the number, (K,), of the one it came from.
    """
    numbers = np.repeat(np.arange(len(rankings)), [len(one.positions) for one in rankings])
    positions = np.concatenate([one.positions for one in rankings])
    cosines = np.concatenate([one.cosine_similarity for one in rankings])
    distances = np.concatenate([one.l2_distance for one in rankings])
    values = -cosines if metric == "cosine" else distances
    order = np.lexsort((numbers, values, positions))
    best = order[np.unique(positions[order], return_index=True)[1]]
    best = best[np.lexsort((positions[best], values[best]))]
    ranking = Ranking(
        positions=positions[best],
        cosine_similarity=cosines[best],
        l2_distance=distances[best],
        num_compared=sum(one.num_compared for one in rankings),
    )
    return ranking, numbers[best]
