"""Verify that an engine computes what its checkpoint does, on a GPU that it was built for.

An engine is opaque: its weights cannot be read, nor its layers scaled. So it is compared with the
checkpoint itself, by identity and on photographs. Whether LRN stops at the edge of a tower, which
photographs cannot show, `verification.onnx` checks on an amplified copy; here that copy is a
second, small engine, built the same way. Other batch sizes may use other kernels, so two
photographs are run in each size of the profile.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.graph.report import Check, Report, error_check
from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.reference import Reference, crop
from alexnet_deploy.model.spec import NORMALIZED_CONVS, LrnSpec
from alexnet_deploy.photographs.decoding import load_photograph
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.runtimes.base import RunnerOptions
from alexnet_deploy.runtimes.batch_profile import BatchProfile
from alexnet_deploy.runtimes.engine_file import EngineFile
from alexnet_deploy.runtimes.factory import open_engine_file
from alexnet_deploy.verification.comparison import (
    TOLERANCES,
    Comparison,
    compare,
    largest_difference,
    relative_error,
)
from alexnet_deploy.verification.onnx import (
    amplified,
    identity_checks,
    map_checks,
    same_architecture,
)

_NUM_AMPLIFIED = 2  # crops; this tests the function, not the data


def verify_engine(
    file: EngineFile,
    checkpoint: Checkpoint,
    photographs: Iterable[Path],
    options: RunnerOptions,
    on_photograph: Callable[[Path, str | None], None] = lambda path, error: None,
) -> Report:
    """Run an engine and the reference on `photographs` and compare.

    Args:
        file: the engine.
        checkpoint: what it should compute.
        photographs: paths; unreadable ones are skipped and named in the report.
        options: how to run it; `outputs` is replaced by all of its outputs.
        on_photograph: as for `verification.onnx.verify`.

    Raises:
        NoPhotographsError: no photograph could be read.
        DeviceError, IncompatibleFileError, UsageError: it cannot run here.
    """
    record = file.record
    checks = identity_checks(record.spec, record.checkpoint, checkpoint)
    if not same_architecture(record.spec, checkpoint.spec):
        return Report(
            checks=tuple(checks), runs="not run", against=checkpoint.identity, num_photographs=0
        )
    options = dataclasses.replace(options, outputs=record.outputs)
    with open_engine_file(file, options) as engine:
        comparison = Comparison(Reference(checkpoint), record.outputs, record.precision)
        skipped = compare(engine, photographs, comparison, on_photograph)
        runs, ran = engine.description, engine.options.batch_size
    checks += comparison.checks()
    crops = np.stack(comparison.kept)
    expected = comparison.reference.run(crops)
    for size in sorted({record.profile.min, record.profile.opt, record.profile.max} - {ran}):
        checks.append(
            _batch_check(file, dataclasses.replace(options, batch_size=size), crops, expected)
        )
    return Report(
        checks=tuple(checks),
        runs=runs,
        against=checkpoint.identity,
        num_photographs=comparison.num_photographs,
        skipped=skipped,
    )


def _batch_check(
    file: EngineFile,
    options: RunnerOptions,
    crops: NDArray[np.uint8],
    expected: Mapping[str, NDArray[Any]],
) -> Check:
    """Run a batch of `options.batch_size` images, the crops repeated; compare each."""
    rows = np.arange(options.batch_size) % len(crops)
    with open_engine_file(file, options) as engine:
        actual = engine.run(crops[rows])
    errors = [
        (largest_difference if name == "probabilities" else relative_error)(
            image, expected[name][row]
        )
        for name, values in actual.items()
        for image, row in zip(values, rows, strict=True)
    ]
    name = f"batches of {options.batch_size}, largest error of a layer"
    return error_check(name, float(np.max(errors)), TOLERANCES[file.record.precision].relative)


def amplified_checks(
    file: ModelFile, build: Callable[[ModelFile, BatchProfile], EngineFile]
) -> list[Check]:
    """Compare normalized maps of a second engine with large activations; see `verification.onnx`.

    The maps are those after pooling, so that the plugin that fuses pooling is tested too.

    Args:
        file: the graph that the engine was built from, fp32, fp16 or bf16, without plugin nodes.
        build: how the engine was built from it.

    Returns:
        The checks; none for a network without normalization.

    Raises:
        DeviceError, IncompatibleFileError: the second engine cannot be built or run.
    """
    lrn = file.spec.lrn
    if lrn is None:
        return []
    maps = _normalized_maps(lrn)
    layers = list(file.spec.layer_shapes())
    # An output between convolution and pooling prevents their fusion, in the copy as well.
    others = [name for name in layers[: layers.index(maps[-1])] if name in file.outputs()]
    paths = varied_samples()[:_NUM_AMPLIFIED]
    crops = np.stack([crop(load_photograph(path), file.spec) for path in paths])
    copy = amplified(file.with_outputs(tuple(dict.fromkeys((*maps, *others)))), crops)
    expected = Reference(copy.weights()).run(crops, maps[-1])
    size = len(crops)
    engine_file = build(copy, BatchProfile(min=size, opt=size, max=size))
    with open_engine_file(engine_file, RunnerOptions(batch_size=size, outputs=maps)) as engine:
        return map_checks(copy, engine.run(crops), expected)


def _normalized_maps(lrn: LrnSpec) -> tuple[str, ...]:
    """Return the names of the maps after both normalization and pooling, in either order."""
    kind = "pool" if lrn.position == "before_pool" else "norm"
    return tuple(f"{kind}{number}" for number in NORMALIZED_CONVS)
