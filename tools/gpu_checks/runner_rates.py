"""Images per second of a runner, from the caller's array to the caller's arrays.

In the same rounds: the upload of the images alone, an upper bound; the way of a command, from crops
to results, with two calls of the runner at once and with one; and torch at the same work.
"""

import dataclasses
import functools
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import chain
from multiprocessing import get_context
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy import installed
from alexnet_deploy.choices import Device
from alexnet_deploy.inference.run import run_batches
from alexnet_deploy.photographs.pipeline import Loaded
from alexnet_deploy.runtimes.base import Runner
from alexnet_deploy.timing import in_turns, median_ratio, seconds_of
from gpu_checks.check import Figures

ROUNDS = 9
TURN_S = 0.05
NUM_CONSUMED = 8
"""Batches that are consumed one after the other."""
TORCH_PRECISIONS = ("fp32", "fp16", "bf16")

Timer = Callable[[], float]
Peer = Callable[[int], float]
"""Maps a batch size to the seconds that torch takes for a batch."""


def measure(
    runner: Runner,
    upload: Callable[[NDArray[np.uint8]], AbstractContextManager[Callable[[], None]]],
    peer: Peer | None,
) -> Figures:
    """Time full batches of noise.

    Args:
        runner: the one to time.
        upload: opens a function that copies given images to the GPU and waits.
        peer: from `peer_of`.

    Returns:
        `images_per_s`, `torch_images_per_s`, `upload_images_per_s`, `consumed_images_per_s` and
        `consumed_in_turn_images_per_s`, medians over the rounds; `times_in_turn` and
        `times_torch`, the speed-ups by overlap and over torch, medians of the ratios.
    """
    batch = runner.options.batch_size
    images = _noise(runner.spec.input_size, batch)
    with upload(images) as copy:
        timers: dict[str, Timer] = {
            "": lambda: seconds_of(lambda: runner.run(images), at_least_s=TURN_S),
            "upload_": lambda: seconds_of(copy, at_least_s=TURN_S),
            "consumed_": lambda: _consumed_s(runner, images, "cuda"),
            "consumed_in_turn_": lambda: _consumed_s(runner, images, "cpu"),
        }
        if peer is not None:
            timers["torch_"] = functools.partial(peer, batch)
        in_turns(timers, 1)  # to warm up
        seconds = in_turns(timers, ROUNDS)
    figures: Figures = {
        f"{name}images_per_s": batch / statistics.median(each) for name, each in seconds.items()
    }
    figures["times_in_turn"] = median_ratio(seconds["consumed_in_turn_"], seconds["consumed_"])
    if peer is not None:
        figures["times_torch"] = median_ratio(seconds["torch_"], seconds[""])
    return figures


@contextmanager
def peer_of(precision: str, device: str = "cuda") -> Iterator[Peer | None]:
    """Keep torch ready in its own process, whose libraries may differ from the runner's.

    Yields:
        A function that times it; None if torch is not installed, lacks the precision, or fails,
        with the reason in the check's log.
    """
    if precision not in TORCH_PRECISIONS or not installed.has_module("torch"):
        yield None
        return
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, precision, device), daemon=True)
    process.start()
    theirs.close()  # else a dead process would be waited for
    try:
        try:
            ours.recv()
        except EOFError:
            print(f"no torch beside it: its process has ended for {precision}", file=sys.stderr)
            yield None
            return

        def seconds(batch: int) -> float:
            ours.send(batch)
            answer: float = ours.recv()
            return answer

        yield seconds
    finally:
        ours.close()
        process.join()


def serve(pipe: Any, precision: str, device: str) -> None:
    """Signal through a pipe when torch is ready; answer each batch size with its seconds."""
    from gpu_checks.reference import bundled
    from gpu_checks.torch_forward import forward_of

    checkpoint = bundled()
    forward = forward_of(checkpoint, precision, device)
    noise = functools.cache(functools.partial(_noise, checkpoint.spec.input_size))
    forward(noise(1))
    pipe.send("ready")
    with suppress(EOFError):  # no more requests
        while batch := pipe.recv():
            pipe.send(seconds_of(lambda: forward(noise(batch)), at_least_s=TURN_S))


def _consumed_s(runner: Runner, images: NDArray[np.uint8], as_on: Device) -> float:
    """Return the seconds a batch of results takes, with calls as on that device."""
    options = dataclasses.replace(runner.options, device=as_on)
    called: Any = SimpleNamespace(spec=runner.spec, options=options, run=runner.run)
    crops = list(images) * NUM_CONSUMED

    def consume() -> None:
        batches = run_batches(called, crops, load=lambda crop: Loaded(crop=crop))
        assert all(result.error is None for result in chain.from_iterable(batches))

    return seconds_of(consume, at_least_s=TURN_S) / NUM_CONSUMED


def _noise(size: int, batch: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
