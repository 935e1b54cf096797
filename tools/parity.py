"""Accuracy and parity of every CPU runtime and precision on a folder of labelled photographs.

    python tools/parity.py TEST TRAIN [--model FILE] [--json FILE]

The first folder holds one sub-folder per class, named like the model's labels; the second provides
the photographs for int8 calibration. Each runtime classifies every photograph of the first through
the serving path, from a file of each precision that it runs; the NumPy reference computes the same
ones from its own plain crops. For each: top-1 and top-5 accuracy, mean accuracy over classes, top-1
agreement with the reference, the largest relative error of logits and FC7 of any photograph, the
mean and the lowest FC7 cosine, and the file size. Then they take turns with one batch each: the
network's own images per second, and its speed relative to the first, both medians over the rounds.
"""

import argparse
import dataclasses
import functools
import json
import statistics
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.benchmark.machine import Machine
from alexnet_deploy.choices import FilePrecision, Precision, Runtime
from alexnet_deploy.export.onnx import build_file
from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.reference import Reference, crop
from alexnet_deploy.photographs.decoding import load_photograph
from alexnet_deploy.photographs.finding import find_photographs
from alexnet_deploy.photographs.preprocessing import preprocess
from alexnet_deploy.runtimes.base import Runner, RunnerOptions
from alexnet_deploy.runtimes.factory import open_runner
from alexnet_deploy.timing import in_turns, median_ratio, seconds_of
from alexnet_deploy.verification.agreement import Agreement, Layers
from alexnet_deploy.weights.names import chosen_model, open_checkpoint


@dataclass(frozen=True, slots=True)
class Run:
    """One line of the table; `calibrated_on` photographs, or None without calibration."""

    runtime: Runtime
    file: FilePrecision
    precision: Precision = "auto"
    calibrated_on: int | None = None


RUNS = (
    Run("openvino", "fp32"),
    Run("openvino", "fp32", "bf16"),
    Run("openvino", "bf16"),
    Run("openvino", "fp16"),
    Run("openvino", "int8", calibrated_on=40),
    Run("openvino", "int8", calibrated_on=200),
    Run("openvino", "int8", calibrated_on=1000),
    Run("onnxruntime", "fp32"),
    Run("onnxruntime", "fp16"),
    Run("onnxruntime", "int8", calibrated_on=200),
)
LAYERS = ("logits", "fc7")
BATCH = 32
ROUNDS = 15


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("--model", type=chosen_model, default=chosen_model())
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    checkpoint = open_checkpoint(arguments.model)
    paths = list(find_photographs([arguments.folder]))
    truth = np.array([checkpoint.spec.labels.index(path.parent.name) for path in paths])
    others = list(find_photographs([arguments.calibration]))
    expected = reference_layers(checkpoint, paths)
    results: list[dict[str, Any]] = [
        {"runtime": "reference", "file": "", "runs": "fp32", **accuracy(expected, truth)}
    ]
    crops = np.stack([preprocess(load_photograph(path), checkpoint.spec) for path in paths])
    with ExitStack() as stack:
        runners: list[Runner] = []
        for run in RUNS:
            options = RunnerOptions(
                runtime=run.runtime, precision=run.precision, batch_size=BATCH, outputs=LAYERS
            )
            count = run.calibrated_on or 0
            evenly = [others[i * len(others) // count] for i in range(count)]
            file = build_file(checkpoint, LAYERS, run.file, evenly)
            runner = stack.enter_context(open_runner(file, options))
            print(runner.description, flush=True)
            runners.append(runner)
            actual = runner_layers(runner, crops)
            results.append(
                {
                    "runtime": run.runtime,
                    "file": run.file,
                    "runs": runner.options.precision,
                    **accuracy(actual, truth),
                    **parity(Agreement.of(actual, expected, runner.options.precision)),
                    "file_mb": sum(map(len, map(bytes, file.chunks()))) / 1e6,
                    "calibrated_on": run.calibrated_on,
                }
            )
        for result, figures in zip(results[1:], rates(runners, crops[:BATCH]), strict=True):
            result.update(figures)
    print_table(results)
    if arguments.json is not None:
        record = {
            "photographs": len(paths),
            "model": arguments.model.name,
            "identity": checkpoint.identity,
            "machine": dataclasses.asdict(Machine.here()),
            "date": datetime.now(UTC).date().isoformat(),
            "results": results,
        }
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


def reference_layers(checkpoint: Checkpoint, paths: list[Path]) -> Layers:
    """Return logits and fc7 of all photographs from the reference."""
    reference = Reference(checkpoint)
    rows = [
        reference.run(crop(load_photograph(path), checkpoint.spec)[np.newaxis]) for path in paths
    ]
    return {name: np.concatenate([row[name] for row in rows]) for name in LAYERS}


def runner_layers(runner: Runner, crops: NDArray[np.uint8]) -> Layers:
    """Return the same from a runner, for (N, H, W, 3) crops."""
    parts = [runner.run(crops[start : start + BATCH]) for start in range(0, len(crops), BATCH)]
    return {name: np.concatenate([part[name] for part in parts]) for name in LAYERS}


def rates(runners: list[Runner], batch: NDArray[np.uint8]) -> list[dict[str, float]]:
    """Run one batch through each runner in turn, round after round."""
    timers = {
        str(number): functools.partial(seconds_of, functools.partial(runner.run, batch))
        for number, runner in enumerate(runners)
    }
    taken = list(in_turns(timers, ROUNDS, pause_s=0.05).values())
    return [
        {
            "images_per_s": len(batch) / statistics.median(own),
            "speedup": median_ratio(taken[0], own),
        }
        for own in taken
    ]


def accuracy(layers: Layers, truth: NDArray[np.int64]) -> dict[str, float]:
    """Return top-1, top-5 and the mean per-class top-1 accuracy."""
    ranked = np.argsort(-layers["logits"], axis=1, kind="stable")[:, :5]
    first = ranked[:, 0] == truth
    return {
        "top1": float(first.mean()),
        "top5": float((ranked == truth[:, np.newaxis]).any(axis=1).mean()),
        "mean_class_top1": float(np.mean([first[truth == k].mean() for k in np.unique(truth)])),
    }


def parity(found: Agreement) -> dict[str, float | None]:
    """Return the figures of an agreement with the reference."""
    names = ("logits_error_max", "fc7_error_max", "cosine_mean", "cosine_min")
    return {"top1_agreement": found.same_class, **{name: getattr(found, name) for name in names}}


def print_table(results: list[dict[str, Any]]) -> None:
    """Print one line per runtime."""
    columns = list(results[-1])
    widths = [max(len(column), 12) for column in columns]
    print("  ".join(f"{name:>{width}}" for name, width in zip(columns, widths, strict=True)))
    for result in results:
        cells = [shown(result.get(column)) for column in columns]
        print("  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)))


def shown(value: object) -> str:
    """Return a figure with its significant digits."""
    if not isinstance(value, float):
        return "" if value is None else str(value)
    return f"{value:.1e}" if value < 0.01 else f"{value:.7f}" if value <= 1 else f"{value:.0f}"


if __name__ == "__main__":
    main()
