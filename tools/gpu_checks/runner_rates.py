"""Images per second of a runner on a GPU, from the caller's array to the caller's arrays."""

import dataclasses
import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from itertools import chain
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.choices import Device
from alexnet_deploy.inference.run import run_batches
from alexnet_deploy.photographs.pipeline import Loaded
from alexnet_deploy.runtimes.base import Runner
from alexnet_deploy.timing import in_turns, median_ratio, seconds_of
from gpu_checks.record import Figures

ROUNDS = 9
TURN_S = 0.05
NUM_CONSUMED = 8
"""Batches that are consumed one after the other."""

Upload = Callable[[NDArray[np.uint8]], AbstractContextManager[Callable[[], None]]]
"""Opens a function that copies given images to the GPU and waits."""


def measure(runner: Runner, upload: Upload) -> Figures:
    """Time full batches of noise.

    Returns:
        Medians over the rounds: `images_per_s`; `upload_images_per_s`, of the copy alone, an upper
        bound; `consumed_images_per_s` from crops to results, as a command with two calls of the
        runner at once, and `consumed_in_turn_images_per_s`, with one. `times_in_turn` is how many
        times as fast two at once are.
    """
    size, batch = runner.spec.input_size, runner.options.batch_size
    images = noise(size, batch)
    with upload(images) as copy:
        timers: dict[str, Callable[[], float]] = {
            "": partial(seconds_of, lambda: runner.run(images), at_least_s=TURN_S),
            "upload_": partial(seconds_of, copy, at_least_s=TURN_S),
            "consumed_": partial(_consumed_s, runner, images, "cuda"),
            "consumed_in_turn_": partial(_consumed_s, runner, images, "cpu"),
        }
        in_turns(timers, 1)  # to warm up
        seconds = in_turns(timers, ROUNDS)
    figures = {
        f"{name}images_per_s": batch / statistics.median(each) for name, each in seconds.items()
    }
    figures["times_in_turn"] = median_ratio(seconds["consumed_in_turn_"], seconds["consumed_"])
    return figures


def noise(size: int, batch: int) -> NDArray[np.uint8]:
    """Return (N, S, S, 3) crops."""
    return np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)


def _consumed_s(runner: Runner, images: NDArray[np.uint8], as_on: Device) -> float:
    """Return the seconds a batch of results takes, with calls as on that device."""
    options = dataclasses.replace(runner.options, device=as_on)
    called: Any = SimpleNamespace(spec=runner.spec, options=options, run=runner.run)
    crops = list(images) * NUM_CONSUMED

    def consume() -> None:
        batches = run_batches(called, crops, load=lambda crop: Loaded(crop=crop))
        assert all(result.error is None for result in chain.from_iterable(batches))

    return seconds_of(consume, at_least_s=TURN_S) / NUM_CONSUMED
