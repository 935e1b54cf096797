"""How many images a second an engine takes, from the caller's array to the caller's arrays.

Beside it, in the same rounds: the upload of the images alone, which no engine is faster than, and
torch at the same work.
"""

import functools
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.runtimes.base import Runner
from gpu_checks.check import Figures
from gpu_checks.rounds import in_turns, median_ratio

ROUNDS = 9
TURN_S = 0.05
TORCH_PRECISIONS = ("fp32", "fp16", "bf16")

Timer = Callable[[], float]
Peer = Callable[[int], float]
"""From the images of a batch to the seconds that torch takes for one."""


def measure(
    engine: Runner,
    upload: Callable[[NDArray[np.uint8]], AbstractContextManager[Callable[[], None]]],
    peer: Peer | None,
) -> Figures:
    """Time full batches of noise.

    Args:
        engine: that is timed.
        upload: opens what copies given images to the GPU and waits for it.
        peer: of `peer_of`.

    Returns:
        `images_per_s`, `torch_images_per_s` and `upload_images_per_s`, medians of the rounds, and
        `times_torch`, how many times as fast as torch the engine is, the median of the ratios.
    """
    batch = engine.options.batch_size
    images = _noise(engine.spec.input_size, batch)
    with upload(images) as copy:
        timers: dict[str, Timer] = {
            "": lambda: seconds_of(lambda: engine.run(images)),
            "upload_": lambda: seconds_of(copy),
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


def seconds_of(work: Callable[[], Any]) -> float:
    """Return the seconds of a call, the mean over a turn of them."""
    start, count = time.perf_counter(), 0
    while not count or time.perf_counter() - start < TURN_S:
        work()
        count += 1
    return (time.perf_counter() - start) / count


@contextmanager
def peer_of(precision: str, device: str = "cuda") -> Iterator[Peer | None]:
    """Let torch wait in a process of its own, whose libraries may be others than the engine's.

    Yields:
        What times it; None where torch is not installed, has not the precision, or fails, with
        the reason in the check's log.
    """
    if precision not in TORCH_PRECISIONS or importlib.util.find_spec("torch") is None:
        yield None
        return
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, precision, device), daemon=True)
    process.start()
    theirs.close()  # or a process that has died would be waited for
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
    """Say through a pipe when torch is ready; answer each batch size with the seconds of one."""
    from gpu_checks.reference import bundled
    from gpu_checks.torch_forward import forward_of

    checkpoint = bundled()
    forward = forward_of(checkpoint, precision, device)
    noise = functools.cache(functools.partial(_noise, checkpoint.spec.input_size))
    forward(noise(1))
    pipe.send("ready")
    with suppress(EOFError):  # nothing more is asked
        while batch := pipe.recv():
            pipe.send(seconds_of(functools.partial(forward, noise(batch))))


def _noise(size: int, batch: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
