"""Run the network on photographs: one result each, failures included, and a run summary.

A photograph for which the network computes anything but finite numbers has failed, too.
"""

import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Generic, TypeVar

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
        waiting_s: seconds that the runner waited for decoding.
        infer_s: seconds in the runner.
        left_out: photographs in the folders that are not among those counted; see `finding`.
    """

    num_done: int = 0
    num_failed: int = 0
    threads: int = 0
    wall_s: float = 0.0
    decode_s: float = 0.0
    waiting_s: float = 0.0
    infer_s: float = 0.0
    left_out: LeftOut = field(default_factory=LeftOut)
    _start: float = field(default_factory=time.perf_counter, repr=False)

    @property
    def rest_s(self) -> float:
        """Seconds neither waiting nor in the runner: loading the model, consuming the results."""
        return max(0.0, self.wall_s - self.waiting_s - self.infer_s)

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
        return (
            f"in {self.wall_s:.1f} s ({rate:,.0f} images/s): "
            f"decode {self.decode_s:.1f} s on {threads}, of which {self.waiting_s:.1f} s waited "
            f"for, inference {self.infer_s:.1f} s, the rest {self.rest_s:.1f} s"
        )


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

    Args:
        runner: as for `run`.
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
    with closing(stream):
        for batch in stream:
            summary.decode_s += batch.decode_s
            summary.waiting_s += batch.waiting_s
            outputs = _infer(runner, batch, summary)
            summary.stop_clock()
            precision = runner.options.precision
            yield tuple(_result(slot, outputs, precision, summary) for slot in batch.slots)
    summary.stop_clock()


def _result(
    slot: Slot[Item],
    outputs: Mapping[str, NDArray[np.float32]],
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


def _overflow(outputs: Mapping[str, NDArray[np.float32]], precision: str) -> str | None:
    """Return what to say of outputs that are not all finite, None if they are.

    In float32 no file that was read can overflow: see `model.ranges`. In float16 one can, and what
    is in an engine is not known.
    """
    for name, array in outputs.items():
        if not np.isfinite(array).all():
            what = name if name in ("logits", "probabilities") else f"{name} activations"
            return f"its {what} are not finite numbers: the network overflows in {precision}"
    return None


def _infer(
    runner: Runner, batch: Batch[Item], summary: RunSummary
) -> Mapping[str, NDArray[np.float32]]:
    """Run the runner on a batch, unless it is empty, and add up the time."""
    if not len(batch.images):
        return {}
    start = time.perf_counter()
    outputs = runner.run(batch.images)
    summary.infer_s += time.perf_counter() - start
    return outputs
