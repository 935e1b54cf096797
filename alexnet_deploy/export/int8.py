"""int8 for photographs to come: calibrated on some of them, and held to float32 on others."""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from alexnet_deploy.errors import NoPhotographsError
from alexnet_deploy.export.calibration import calibrated_ranges, quantized
from alexnet_deploy.graph.build import build_model
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.model.calibrated import ActivationRanges
from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.photographs.pipeline import batches, crop_loader, default_threads
from alexnet_deploy.photographs.pixels import EXACT
from alexnet_deploy.runtimes.base import RunnerOptions
from alexnet_deploy.runtimes.factory import open_runner
from alexnet_deploy.verification.agreement import Agreement

_HELD_OUT = 6
"""Every sixth photograph is compared, the others calibrate."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Whether int8 is to be run.

    Attributes:
        ranges: to run it with; None if it is not.
        reason: a few words that follow "int8" or "not int8".
    """

    ranges: ActivationRanges | None = None
    reason: str


def judged(
    checkpoint: Checkpoint,
    photographs: Sequence[Path],
    options: RunnerOptions,
    notify: Callable[[str], None],
) -> Judged:
    """Calibrate a checkpoint on some of the photographs, and compare it on others.

    Args:
        checkpoint: the network.
        photographs: a sample of those to come.
        options: how to run it, in int8.
        notify: as for `calibrated_ranges`.

    Raises:
        IncompatibleFileError, DeviceError: as `calibrated_ranges`.
    """
    held = photographs[::_HELD_OUT]
    rest = [path for number, path in enumerate(photographs) if number % _HELD_OUT]
    outputs = ("fc7", "logits") if checkpoint.spec.has_head else ("fc7",)
    wide = build_model(checkpoint, outputs)
    try:
        ranges = calibrated_ranges(wide, rest, options, notify)
        found = _agreement(wide, quantized(wide, ranges), held, options)
    except NoPhotographsError:
        few = f"too few of {len(photographs)} photographs could be read"
        return Judged(reason=f"since {few} to calibrate and compare it")
    if not found.is_admitted:
        return Judged(reason=f"which is too far from fp32 on these photographs: {found}")
    count = ranges.calibration.photographs
    reason = f"calibrated on {count} of the photographs, on others {found}"
    return Judged(ranges=ranges, reason=reason)


def _agreement(
    wide: ModelFile, narrow: ModelFile, paths: Sequence[Path], options: RunnerOptions
) -> Agreement:
    """Compare int8 with float32.

    Raises:
        NoPhotographsError: none of the photographs could be read.
    """
    with ExitStack() as stack:
        loaded = batches(
            paths,
            crop_loader(wide.spec, EXACT),
            input_size=wide.spec.input_size,
            batch_size=options.batch_size,
            threads=options.threads or default_threads(),
        )
        crops = [batch.images for batch in stack.enter_context(closing(loaded))]
        crops = [images for images in crops if len(images)]
        if not crops:
            raise NoPhotographsError("none of those to compare int8 on could be read")
        results = []
        for file in (narrow, wide):
            own = dataclasses.replace(options, precision=file.precision, outputs=file.outputs())
            runner = stack.enter_context(open_runner(file, own))
            parts = [runner.run(images) for images in crops]
            results.append({name: np.concatenate([p[name] for p in parts]) for name in own.outputs})
    actual, expected = results
    return Agreement.of(actual, expected, "int8")
