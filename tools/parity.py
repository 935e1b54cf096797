"""Accuracy and parity of every CPU runtime and precision on a folder of labelled photographs.

    python tools/parity.py ../shared/data/caltech101/test [--model FILE] [--json FILE]

The folder holds one sub-folder a class, named as the model's labels. Each runtime classifies
every photograph through the serving path; the NumPy reference computes the same ones through its
own plain crop. For each runtime: top-1 and top-5 accuracy, mean accuracy over classes, agreement
with the reference's top-1, the largest relative error of logits and FC7 of any photograph, the
mean and the lowest FC7 cosine, and the network's own images per second (batches in turn).
"""

import argparse
import json
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.checkpoints import Checkpoint, load_checkpoint
from alexnet_deploy.engines.base import Engine, EngineOptions, Precision, Runtime
from alexnet_deploy.engines.factory import open_engine
from alexnet_deploy.images import find_photographs, load_photograph
from alexnet_deploy.models import default_model
from alexnet_deploy.onnx_graph import build_model
from alexnet_deploy.preprocessing import preprocess
from alexnet_deploy.reference import Reference, crop
from alexnet_deploy.verification import cosine_similarity, relative_error

RUNS: tuple[tuple[Runtime, Precision], ...] = (
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("onnxruntime", "fp32"),
)
LAYERS = ("logits", "fc7")
BATCH = 32

Rows = list[dict[str, NDArray[np.float32]]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, default=default_model())
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    checkpoint = load_checkpoint(arguments.model)
    paths = list(find_photographs([arguments.folder]))
    truth = np.array([checkpoint.spec.labels.index(path.parent.name) for path in paths])
    expected = list(reference_rows(checkpoint, paths))
    results = [{"runtime": "reference", "precision": "fp32", **accuracy(expected, truth)}]
    for runtime, precision in RUNS:
        options = EngineOptions(
            runtime=runtime, precision=precision, batch_size=BATCH, outputs=LAYERS
        )
        with open_engine(build_model(checkpoint, LAYERS), options) as engine:
            print(engine.description, flush=True)
            actual, rate = engine_rows(engine, paths)
        results.append(
            {
                "runtime": runtime,
                "precision": precision,
                **accuracy(actual, truth),
                **parity(actual, expected),
                "images_per_s": rate,
            }
        )
    print_table(results)
    if arguments.json is not None:
        record = {
            "photographs": len(paths),
            "model": arguments.model.name,
            "fingerprint": checkpoint.fingerprint,
            "machine": f"{platform.system()} {platform.machine()}, {cpu_name()}",
            "results": results,
        }
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


def reference_rows(checkpoint: Checkpoint, paths: list[Path]) -> Iterator[dict[str, Any]]:
    """Compute logits and fc7 of each photograph by the reference."""
    reference = Reference(checkpoint)
    for path in paths:
        layers = reference.run(crop(load_photograph(path), checkpoint.spec)[np.newaxis])
        yield {name: layers[name][0] for name in LAYERS}


def engine_rows(engine: Engine, paths: list[Path]) -> tuple[Rows, float]:
    """Compute the same through a runtime; the rate is of the network alone."""
    size = engine.spec.input_size
    rows: Rows = []
    seconds = 0.0
    for start in range(0, len(paths), BATCH):
        batch = np.zeros((BATCH, size, size, 3), np.uint8)
        some = paths[start : start + BATCH]
        for row, path in enumerate(some):
            batch[row] = preprocess(load_photograph(path), engine.spec)
        began = time.perf_counter()
        outputs = engine.run(batch)
        seconds += time.perf_counter() - began
        rows += [{name: outputs[name][row] for name in LAYERS} for row in range(len(some))]
    return rows, len(paths) / seconds


def accuracy(rows: Rows, truth: NDArray[np.int64]) -> dict[str, float]:
    """Return top-1, top-5 and the mean over classes of top-1."""
    ranked = np.array([np.argsort(-row["logits"], kind="stable")[:5] for row in rows])
    first = ranked[:, 0] == truth
    return {
        "top1": float(first.mean()),
        "top5": float((ranked == truth[:, np.newaxis]).any(axis=1).mean()),
        "mean_class_top1": float(np.mean([first[truth == k].mean() for k in np.unique(truth)])),
    }


def parity(actual: Rows, expected: Rows) -> dict[str, float]:
    """Compare photograph by photograph with the reference."""
    pairs = list(zip(actual, expected, strict=True))
    agree = [a["logits"].argmax() == e["logits"].argmax() for a, e in pairs]
    cosines = [cosine_similarity(a["fc7"], e["fc7"]) for a, e in pairs]
    return {
        "top1_agreement": float(np.mean(agree)),
        "logits_error_max": max(relative_error(a["logits"], e["logits"]) for a, e in pairs),
        "fc7_error_max": max(relative_error(a["fc7"], e["fc7"]) for a, e in pairs),
        "cosine_mean": float(np.mean(cosines)),
        "cosine_min": min(cosines),
    }


def print_table(results: list[dict[str, Any]]) -> None:
    """Print one line a runtime."""
    columns = list(results[-1])
    widths = [max(len(column), 12) for column in columns]
    print("  ".join(f"{name:>{width}}" for name, width in zip(columns, widths, strict=True)))
    for result in results:
        cells = [shown(result.get(column)) for column in columns]
        print("  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)))


def shown(value: object) -> str:
    """Return a figure with the digits that say something."""
    if not isinstance(value, float):
        return "" if value is None else str(value)
    return f"{value:.1e}" if value < 0.01 else f"{value:.7f}" if value <= 1 else f"{value:.0f}"


def cpu_name() -> str:
    """Return the processor's name where Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


if __name__ == "__main__":
    main()
