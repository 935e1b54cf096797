"""Run a checkpoint in the quickest precision of this machine that agrees with float32.

A rule by what the machine has chooses it, no timing, so that the same command makes the same
choice.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from alexnet_deploy.choices import Precision, Runtime
from alexnet_deploy.errors import (
    Argument,
    IncompatibleFileError,
    UsageError,
    VerificationError,
)
from alexnet_deploy.model.calibrated import ActivationRanges
from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.runtimes.base import Runner, RunnerOptions
from alexnet_deploy.runtimes.factory import resolve
from alexnet_deploy.runtimes.processor import multiplies_int8_faster

BREAK_EVEN: Mapping[Precision, int] = {"fp32": 2_000, "bf16": 20_000}
"""Photographs from which int8 pays, by what would be taken in its place, with a margin. To
calibrate, compare, build and verify it takes as long as the network takes for 570 photographs in
fp32, measured with the bundled checkpoint. Of that time it then takes 1/2.2 to 1/1.5, and bf16
1/1.87: a photograph saves a third of one or more, or some .035."""
NUM_SAMPLED = 240
"""Photographs that int8 is judged by, of which 200 calibrate it: with so many the lowest FC7 cosine
is .997, with 40 .988, with 1,000 .998."""
_INT8_RUNTIME: Runtime = "openvino"
"""ONNX Runtime is slower in int8 than in float32."""
SCALED = "large JPEGs are decoded at a fraction of their size"

_WHY: Mapping[Precision, str] = {
    "fp16": "on a GPU",
    "int8": "in which this processor takes less time",
    "bf16": "for which this processor has instructions",
    "fp32": "where this processor or the runtime is no quicker in others",
}


def check_left_open(argument: Argument, precision: Precision, decode: str | None) -> None:
    """Reject what is to be chosen, if it is given as well.

    Args:
        argument: that asks for the choice.
        precision: "auto" if it was not given.
        decode: None if it was not given.

    Raises:
        UsageError: naming the two.
    """
    given = {"precision": precision, "decode": decode}
    for name, value in given.items():
        if value not in (None, "auto"):
            raise UsageError(argument, ": chooses that; leave it out, or ", Argument(name, value))


def open_quickest(
    checkpoint: Callable[[], Checkpoint],
    photographs: Iterable[Path],
    options: RunnerOptions,
    open_with: Callable[[RunnerOptions], Runner],
    *,
    ranges: ActivationRanges | None = None,
    notify: Callable[[str], None],
) -> Runner:
    """Open a checkpoint in the quickest precision that is admitted; say in a line which and why.

    int8 is held to float32 on photographs that it was not calibrated on, with the tolerances of
    `verify`, and every precision on samples when it is exported. One that is not admitted gives
    way to the next quickest.

    Args:
        checkpoint: reads it; called if int8 comes into question.
        photographs: files of those to come.
        options: how to run it, but for the precision.
        open_with: opens the checkpoint as it is told, verified.
        ranges: of a run that has stopped; taken if they are the checkpoint's.
        notify: called with the line, and one for each photograph that could not be calibrated on.

    Raises:
        IncompatibleFileError: the checkpoint is damaged.
        VerificationError: not even float32 agrees with the reference.
        AlexNetDeployError: as `open_with`.
    """
    able = _precisions(options)
    not_taken: list[str] = []
    for number, precision in enumerate(able):
        own = dataclasses.replace(options, precision=precision)
        said = [str(precision) if not_taken else f"{precision}, {_WHY[precision]}"]
        try:
            if precision == "int8":
                least = BREAK_EVEN[able[number + 1]]
                found, why = _ranges(checkpoint, photographs, own, ranges, least, notify)
                if found is None:
                    not_taken.append(f"not int8, {why}")
                    continue
                own = dataclasses.replace(own, ranges=found)
                said.append(why)
            runner = open_with(own)
        except (IncompatibleFileError, VerificationError) as error:
            # Incompatible: a weight beyond float16, say; of a damaged file float32 says so, too.
            if precision == able[-1]:
                raise
            not_taken.append(f"not {precision}, which fails here: {str(error)[:300]}")
            continue
        notify(f"fast: {'; '.join([*said, *not_taken, SCALED])}")
        return runner
    raise AssertionError("float32 is the last, and is opened or raises")


def _ranges(
    checkpoint: Callable[[], Checkpoint],
    photographs: Iterable[Path],
    options: RunnerOptions,
    ranges: ActivationRanges | None,
    least: int,
    notify: Callable[[str], None],
) -> tuple[ActivationRanges | None, str]:
    """Return ranges for int8, or None, and the reason."""
    if ranges is not None and ranges.checkpoint == checkpoint().identity:
        return ranges, "with the ranges of the run that has stopped"
    count, some = _sampled(photographs)
    if count < least:
        return None, f"which pays from {least:,} photographs on (here {count:,})"
    # Here, because whatever is not calibrated needs no `onnx`.
    from alexnet_deploy.export.int8 import judged

    found = judged(checkpoint(), some, options, notify)
    return found.ranges, found.reason


def _precisions(options: RunnerOptions) -> list[Precision]:
    """Return what is quicker than float32 here, the quickest first, and float32."""
    if resolve(dataclasses.replace(options, precision="fp16")).device == "cuda":
        return ["fp16", "fp32"]
    runtime = resolve(dataclasses.replace(options, precision="fp32")).runtime
    found: list[Precision] = []
    if runtime == _INT8_RUNTIME and multiplies_int8_faster():
        found.append("int8")
    if runtime == "openvino":
        from alexnet_deploy.runtimes.openvino_runner import native_bf16

        if native_bf16():
            found.append("bf16")
    return [*found, "fp32"]


def _sampled(photographs: Iterable[Path]) -> tuple[int, list[Path]]:
    """Count photographs, and return `NUM_SAMPLED` of them at about equal distances, or all.

    Memory does not grow with their number.
    """
    kept: list[Path] = []
    count, stride = 0, 1
    for path in photographs:
        if count % stride == 0:
            kept.append(path)
        count += 1
        if len(kept) == 4 * NUM_SAMPLED:
            kept, stride = kept[::2], 2 * stride
    num = min(len(kept), NUM_SAMPLED)
    return count, [kept[i * len(kept) // num] for i in range(num)]
