"""The ranges of activations that an int8 graph needs, from photographs."""

import dataclasses
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import numpy as np

from alexnet_deploy.errors import Argument, IncompatibleFileError, Message, NoPhotographsError
from alexnet_deploy.files.path_text import printable
from alexnet_deploy.graph.build import NETWORK_INPUT
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.graph.quantization import (
    Histogram,
    input_threshold,
    quantize_model,
    quantized_tensors,
)
from alexnet_deploy.model.calibrated import ActivationRanges, Calibration, LayerRange
from alexnet_deploy.photographs.pipeline import batches, crop_loader, default_threads
from alexnet_deploy.photographs.pixels import EXACT
from alexnet_deploy.photographs.samples import sample_paths, varied_samples
from alexnet_deploy.runtimes.base import Runner, RunnerOptions
from alexnet_deploy.runtimes.factory import open_runner

MAX_PHOTOGRAPHS = 1000
"""Of more, these many at equal distances: what a folder lists first may be all of one class."""
_FEW = 100
"""Photographs: with fewer to calibrate on, those to come are clipped more often."""


def calibrated_ranges(
    file: ModelFile,
    photographs: Iterable[Path] | None,
    options: RunnerOptions,
    notify: Callable[[str], None] = lambda line: None,
) -> ActivationRanges:
    """Return the ranges that the activations of an fp32 file have on photographs.

    Args:
        file: of `graph.build.build_model`.
        photographs: a few hundred like those to come; at most `MAX_PHOTOGRAPHS` are looked at.
            None for the varied samples.
        options: how to run the float32 file; precision and outputs are replaced.
        notify: called with lines for people: where the ranges come from, what could not be read.

    Raises:
        NoPhotographsError: there are none, or half of them or more could not be read.
        IncompatibleFileError: the network's activations are not finite.
        DeviceError: the runtime cannot be had here.
    """
    if photographs is None:
        photographs = varied_samples()
        notify(
            Message(
                "int8: the ranges come from 40 of the package's sample photographs; a few "
                "hundred like those to come are better: export with ",
                Argument("calibrate_on"),
            )
        )
    paths = list(photographs)
    if not paths:
        raise NoPhotographsError(
            "calibration: no photographs; name a few hundred with ",
            Argument("calibrate_on"),
        )
    count = min(len(paths), MAX_PHOTOGRAPHS)
    chosen = [paths[i * len(paths) // count] for i in range(count)]
    tensors = quantized_tensors(file)
    layers = tuple(dict.fromkeys(layer for layer in tensors.values() if layer != NETWORK_INPUT))
    own = dataclasses.replace(options, precision="fp32", outputs=layers, ranges=None)
    with open_runner(file.with_outputs(layers), own) as runner:
        histograms, num_skipped = _histograms(runner, chosen, notify)
    num_read = count - num_skipped
    if num_read <= num_skipped:
        raise NoPhotographsError(
            f"calibration: {num_skipped:,} of {count:,} photographs could not be read, and what "
            "is left may be another kind; name a few hundred photographs with ",
            Argument("calibrate_on"),
        )
    are_samples = set(chosen) <= {*sample_paths()}
    if not are_samples and num_read < _FEW:
        notify(f"int8: calibrated on few photographs ({num_read}); a few hundred are better")
    largest = {NETWORK_INPUT: input_threshold(file)}
    largest |= {layer: histogram.threshold() for layer, histogram in histograms.items()}
    return ActivationRanges(
        checkpoint=file.identity,
        calibration=Calibration(photographs=num_read, are_samples=are_samples),
        layers=tuple(LayerRange(layer=name, largest=most) for name, most in largest.items()),
    )


def quantized(file: ModelFile, ranges: ActivationRanges) -> ModelFile:
    """Return an fp32 file in int8; the same ranges give the same identity, wherever it is done.

    Args:
        file: of `graph.build.build_model`.
        ranges: of the same checkpoint.

    Raises:
        IncompatibleFileError: they are of another checkpoint, or not of the layers that it has.
    """
    if file.identity != ranges.checkpoint:
        raise IncompatibleFileError(
            f"{file.source}: has the identity {file.identity[:16]}..., and the int8 ranges were "
            f"measured with {ranges.checkpoint[:16]}...; give the model that they are of as ",
            Argument("model"),
        )
    tensors, largest = quantized_tensors(file), ranges.thresholds()
    needed = set(tensors.values())
    if needed != largest.keys():
        wrong = ", ".join(sorted(needed ^ largest.keys()))
        raise IncompatibleFileError(
            f"int8 ranges: damaged, they are not of the network's layers ({wrong:.200}); restore "
            "the file that holds them from a copy, or calibrate again into another"
        )
    narrow = quantize_model(file, {x: largest[layer] for x, layer in tensors.items()})
    return dataclasses.replace(narrow, calibration=ranges.calibration)


def _histograms(
    runner: Runner, paths: list[Path], notify: Callable[[str], None]
) -> tuple[dict[str, Histogram], int]:
    """Count the activations of each layer; also return how many photographs could not be read."""
    histograms = {layer: Histogram() for layer in runner.options.outputs}
    num_skipped = 0
    loaded = batches(
        paths,
        crop_loader(runner.spec, EXACT),
        input_size=runner.spec.input_size,
        batch_size=runner.options.batch_size,
        threads=runner.options.threads or default_threads(),
    )
    with closing(loaded):
        for batch in loaded:
            for slot in batch.slots:
                if slot.error is not None:
                    num_skipped += 1
                    notify(f"not calibrated on {printable(slot.item)}: {slot.error}")
            if not len(batch.images):
                continue
            for layer, values in runner.run(batch.images).items():
                if not np.isfinite(values).all():
                    first = next(slot.item for slot in batch.slots if slot.row is not None)
                    raise IncompatibleFileError(
                        f"layer {layer}: not finite on one of the photographs from "
                        f"{printable(first)} on, so it has no range; check the checkpoint"
                    )
                histograms[layer].add(values)
    return histograms, num_skipped
