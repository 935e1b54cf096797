"""Run the network on photographs: one result each, failures included, and a run summary.

A photograph for which the network computes anything but finite numbers has failed, too.

On a GPU two calls of the runner are under way, in threads of their own, while the caller consumes
what came before and gathers what comes next. On a CPU each call ends before the next batch is
looked at: it uses all cores, and a thread for it won nothing.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.photographs.file_stamps import FileStamp
from alexnet_deploy.photographs.pipeline import (
    Batch,
    Item,
    Load,
    Loaded,
    Slot,
    batches,
    crop_loader,
    default_threads,
)
from alexnet_deploy.photographs.pixels import EXACT, Decode
from alexnet_deploy.photographs.sources import ImageSource
from alexnet_deploy.photographs.suffixes import LeftOut
from alexnet_deploy.runtimes.base import Runner

_Source = TypeVar("_Source", bound=ImageSource)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhotographResult(Generic[Item]):
    """The network's outputs for one photograph, or why there are none.

    Attributes:
        source: as given.
        outputs: one float32 array per layer of the runner's options, without the batch axis;
            copied, so keeping it does not keep the batch alive. None if it failed, or if its loader
            found that the network need not see it.
        error: the reason for the failure, or None.
        has_overflowed: whether that is the network's fault: its outputs are not finite.
        stamp: of the file, from loaders that record one.
    """

    source: Item
    outputs: Mapping[str, NDArray[np.float32]] | None
    error: str | None
    has_overflowed: bool = False
    stamp: FileStamp | None = None


_Outputs = Mapping[str, NDArray[np.float32]]


class _Called(NamedTuple):
    """What a call of the runner returned, and when it began and ended."""

    outputs: _Outputs
    start: float
    stop: float


_Outcome = Callable[[], _Called]
"""Waits for a call; raises what the call raised."""


@dataclass(slots=True, kw_only=True)
class RunSummary:
    """Counts and times of a run, updated as it goes.

    Create it when the command starts: `wall_s` counts from then, model loading included.

    Attributes:
        num_done: photographs with a result.
        num_failed: photographs that failed.
        threads: decode threads.
        wall_s: seconds since the summary was created, as of the last batch.
        decode_s: seconds of finding, decoding and preprocessing, summed over threads.
        waiting_s: seconds that decoding was waited for.
        infer_s: seconds in the runner, those of two calls at once counted once.
        infer_waiting_s: seconds that its outputs were waited for; on a CPU the same.
        num_refused: JPEGs that the GPU was to decode, and Pillow did.
        left_out: photographs in the folders that are not among those counted; see `finding`.
    """

    num_done: int = 0
    num_failed: int = 0
    threads: int = 0
    wall_s: float = 0.0
    decode_s: float = 0.0
    waiting_s: float = 0.0
    infer_s: float = 0.0
    infer_waiting_s: float = 0.0
    num_refused: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)
    _start: float = field(default_factory=time.perf_counter, repr=False)

    @property
    def rest_s(self) -> float:
        """Seconds of waiting for neither: loading the model, consuming the results."""
        return max(0.0, self.wall_s - self.waiting_s - self.infer_waiting_s)

    def stop_clock(self) -> None:
        """Set `wall_s` to now; call it after the results have been written."""
        self.wall_s = time.perf_counter() - self._start

    def line(self) -> str:
        """Render the run in one line: counts, rate, and where the time went."""
        return f"{self.num_done:,} done, {self.num_failed:,} failed {self.times()}"

    def times(self) -> str:
        """Render what follows the counts: seconds, rate, and where the time went."""
        if not self.threads:  # nothing was read
            return f"in {self.wall_s:.1f} s"
        rate = (self.num_done + self.num_failed) / max(self.wall_s, 1e-9)
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        inference = f"inference {self.infer_s:.1f} s"
        if self.infer_waiting_s != self.infer_s:
            inference += f", of which {self.infer_waiting_s:.1f} s waited for"
        refused = f"; Pillow decoded {self.num_refused:,} JPEGs for the GPU"
        return (
            f"in {self.wall_s:.1f} s ({rate:,.0f} images/s): "
            f"decode {self.decode_s:.1f} s on {threads}, of which {self.waiting_s:.1f} s waited "
            f"for, {inference}, the rest {self.rest_s:.1f} s{refused if self.num_refused else ''}"
        )


def calls_at_once(runner: Runner) -> int:
    """Return how many calls of a runner a run has under way.

    On a GPU 2: while one computes, the other fills its pinned memory or empties it. Else 1.
    """
    return 2 if runner.options.device == "cuda" else 1


def run(
    runner: Runner,
    photographs: Iterable[_Source],
    *,
    decode: Decode = EXACT,
    threads: int | None = None,
    summary: RunSummary | None = None,
) -> Generator[PhotographResult[_Source], None, None]:
    """Yield one result per photograph, in input order, as the batches are computed.

    Args:
        runner: determines preprocessing and batch size.
        photographs: as `finding.find_photographs` or `sources.image_sources` yields them; none
            give no results.
        decode: how files become pixels.
        threads: decode threads; None for one per core.
        summary: counts are updated with each result, times with each batch.

    Raises:
        UsageError: threads is below 1.
    """
    load = crop_loader(runner.spec, decode)
    return _one_by_one(
        run_batches(runner, photographs, load=load, threads=threads, summary=summary)
    )


def run_batches(
    runner: Runner,
    photographs: Iterable[Item],
    *,
    load: Load[Item],
    needs_row: Callable[[Loaded], bool] = lambda _: True,
    threads: int | None = None,
    summary: RunSummary | None = None,
) -> Generator[tuple[PhotographResult[Item], ...], None, None]:
    """Yield the results batch by batch.

    What comes after a batch may have been taken, loaded and asked of `needs_row` before it is
    yielded. An error is raised in the place of the batch that it befell.

    Args:
        runner: as for `run`; on a GPU it is called in two threads at once.
        photographs: as for `run`.
        load: called by the threads for each photograph.
        needs_row: as for `pipeline.batches`.
        threads: as for `run`.
        summary: as for `run`, updated with each batch.

    Raises:
        UsageError: as for `run`.
    """
    summary = RunSummary() if summary is None else summary
    summary.threads = default_threads() if threads is None else threads
    stream = batches(
        photographs,
        load,
        input_size=runner.spec.input_size,
        batch_size=runner.options.batch_size,
        threads=summary.threads,
        needs_row=needs_row,
    )
    return _run(runner, stream, summary)


def _one_by_one(
    results: Generator[tuple[PhotographResult[Item], ...], None, None],
) -> Generator[PhotographResult[Item], None, None]:
    with closing(results):
        for batch in results:
            yield from batch


def _run(
    runner: Runner, stream: Generator[Batch[Item], None, None], summary: RunSummary
) -> Generator[tuple[PhotographResult[Item], ...], None, None]:
    """Implement `run_batches`; separate, so that a wrong argument fails at the call."""
    precision, calls = runner.options.precision, _Calls(runner, summary)
    with closing(stream), closing(calls):
        for batch, outputs in _computed(stream, calls, summary):
            summary.stop_clock()
            yield tuple(_result(slot, outputs, precision, summary) for slot in batch.slots)
    summary.stop_clock()


def _computed(
    stream: Generator[Batch[Item], None, None], calls: "_Calls", summary: RunSummary
) -> Generator[tuple[Batch[Item], _Outputs], None, None]:
    """Yield the batches in order with their outputs, and those before an error before it."""
    begun: deque[tuple[Batch[Item], _Outcome]] = deque()
    failure: Exception | None = None
    while True:
        try:
            batch = next(stream, None)
        except Exception as error:
            batch, failure = None, error
        if batch is not None:
            summary.decode_s += batch.decode_s
            summary.waiting_s += batch.waiting_s
            summary.num_refused += batch.num_refused
            begun.append((batch, calls.begin(batch.images)))
        while begun and (batch is None or len(begun) > calls.num_ahead):
            earlier, outcome = begun.popleft()
            yield earlier, calls.finish(outcome)
        if failure is not None:
            raise failure
        if batch is None:
            return


class _Calls:
    """Calls of a runner: begun, and finished in the same order, on a CPU before the next begins.

    Args:
        runner: which is called.
        summary: its times of inference are updated.

    Attributes:
        num_ahead: calls under way while the results of an earlier one are consumed.
    """

    def __init__(self, runner: Runner, summary: RunSummary) -> None:
        self._runner = runner
        self._summary = summary
        self._last_stop = 0.0
        num_calls = calls_at_once(runner)
        self.num_ahead = num_calls if num_calls > 1 else 0
        self._threads = ThreadPoolExecutor(num_calls, thread_name_prefix="inference")

    def begin(self, images: NDArray[np.uint8]) -> _Outcome:
        """Begin the call for a batch, which may be empty."""
        if self.num_ahead:
            return self._threads.submit(self._call, images).result
        called = self._call(images)
        return lambda: called

    def finish(self, outcome: _Outcome) -> _Outputs:
        """Return the outputs of a call once it has ended, and add up the time."""
        start = time.perf_counter()
        called = outcome()
        waited_s = time.perf_counter() - start
        # On a GPU a call may have begun before the one before it ended.
        infer_s = max(0.0, called.stop - max(called.start, self._last_stop))
        self._last_stop = max(called.stop, self._last_stop)
        self._summary.infer_s += infer_s
        self._summary.infer_waiting_s += waited_s if self.num_ahead else infer_s
        return called.outputs

    def close(self) -> None:
        """Wait for the calls under way, of which nobody wants the outputs any more."""
        self._threads.shutdown(cancel_futures=True)

    def _call(self, images: NDArray[np.uint8]) -> _Called:
        start = time.perf_counter()
        outputs = self._runner.run(images) if len(images) else {}
        return _Called(outputs, start, time.perf_counter())


def _result(
    slot: Slot[Item],
    outputs: _Outputs,
    precision: str,
    summary: RunSummary,
) -> PhotographResult[Item]:
    """Extract one photograph's result from a batch, and count it."""
    own, error, overflow = None, slot.error, None
    if slot.row is not None:
        # A copy, because a view would keep the outputs of the whole batch alive.
        own = {name: array[slot.row].copy() for name, array in outputs.items()}
        overflow = _overflow(own, precision)
    if overflow is not None:
        own, error = None, overflow
    summary.num_done += own is not None
    summary.num_failed += error is not None
    return PhotographResult(
        source=slot.item,
        outputs=own,
        error=error,
        has_overflowed=overflow is not None,
        stamp=slot.stamp,
    )


def _overflow(outputs: _Outputs, precision: str) -> str | None:
    """Return what to say of outputs that are not all finite, None if they are.

    In float32 no file that was read can overflow: see `model.ranges`. In float16 one can, and what
    is in an engine is not known.
    """
    for name, array in outputs.items():
        if not np.isfinite(array).all():
            what = name if name in ("logits", "probabilities") else f"{name} activations"
            return f"its {what} are not finite numbers: the network overflows in {precision}"
    return None
