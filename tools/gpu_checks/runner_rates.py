"""Images per second of a runner, from the caller's array to the caller's arrays.

In the same rounds: the upload of the images alone, an upper bound, and torch at the same work.
"""

import functools
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy import installed
from alexnet_deploy.runtimes.base import Runner
from alexnet_deploy.timing import in_turns, median_ratio, seconds_of
from gpu_checks.check import Figures

ROUNDS = 9
TURN_S = 0.05
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
        `images_per_s`, `torch_images_per_s` and `upload_images_per_s`, medians over the rounds, and
        `times_torch`, the speed-up over torch, the median of the ratios.
    """
    batch = runner.options.batch_size
    images = _noise(runner.spec.input_size, batch)
    with upload(images) as copy:
        timers: dict[str, Timer] = {
            "": lambda: seconds_of(lambda: runner.run(images), at_least_s=TURN_S),
            "upload_": lambda: seconds_of(copy, at_least_s=TURN_S),
        }
        if peer is not None:
            timers["torch_"] = functools.partial(peer, batch)
        in_turns(timers, 1)  # to warm up
        seconds = in_turns(timers, ROUNDS)
    figures: Figures = {
        f"{name}images_per_s": batch / statistics.median(each) for name, each in seconds.items()
    }
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


def _noise(size: int, batch: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
