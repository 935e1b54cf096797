"""Measure how well nearest neighbours share the query's class: layers compared with raw pixels.

    python tools/retrieval.py TEST [--model FILE] [--decode exact|scaled] [--json FILE]

A photograph's class is its folder's name. Each photograph is the query once, against all the
others: average precision over the whole ranking, nearest first, ties in path order. For each space
and measure: the mean over queries (mAP), the mean of the classes' means, and the precision at 1 and
at 10 (which a class of fewer than 11 cannot bring to 1). The `--json` file also has the mAP of each
class.

`pixels` is what Krizhevsky et al. 2012, section 6.1, compare FC7 with: L2 on the photograph as
their section 2 prepares it, shorter side 256 px and the central 256 x 256, RGB, 0..255. Layers are
rounded to float16, as an index stores them. Plain NumPy, independent of the package's own search,
so that each checks the other. Memory: 200 kB per photograph and 50 bytes per pair.

N photographs, D dimensions, K classes.
"""

import argparse
import dataclasses
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.choices import SCALES
from alexnet_deploy.export.opening import open_runner_of
from alexnet_deploy.inference.run import run
from alexnet_deploy.model.spec import preset_spec
from alexnet_deploy.photographs.decoding import load_photograph
from alexnet_deploy.photographs.finding import find_photographs
from alexnet_deploy.photographs.pipeline import default_threads
from alexnet_deploy.photographs.pixels import Decode
from alexnet_deploy.photographs.preprocessing import preprocess
from alexnet_deploy.runtimes.base import Runner, RunnerOptions
from alexnet_deploy.weights.names import chosen_model

LAYERS = ("pool5", "fc6", "fc7", "logits")
MEASURES = ("l2", "cosine")
PIXELS_SIZE = 256  # px
BLOCK = 4096  # dimensions held in float64 at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Figures of one vector space under one measure.

    Attributes:
        name: a layer, or "pixels".
        measure: "l2" or "cosine".
        dimensions: D.
        average_precision: (N,) float64 in 0..1, per query.
        precision_at_1, precision_at_10: means over the queries.
    """

    name: str
    measure: str
    dimensions: int
    average_precision: NDArray[np.float64]
    precision_at_1: float
    precision_at_10: float


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=chosen_model, default=chosen_model())
    parser.add_argument("--decode", choices=SCALES, default="exact", help="size of decoding")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    decode = Decode.of(arguments.decode)
    paths = list(find_photographs([arguments.folder]))
    classes = np.array([path.parent.name for path in paths])
    check_classes(classes)
    with open_runner_of(arguments.model, RunnerOptions(outputs=LAYERS)) as runner:
        print(runner.description, flush=True)
        layers = activations(runner, paths, decode)
        vectors: dict[str, NDArray[Any]] = {"pixels": pixels(paths, decode), **layers}
        spaces = [space for name in vectors for space in measured(name, vectors[name], classes)]
        results = [summary(space, classes) for space in spaces]
        print_table(results)
        if arguments.json is not None:
            record = {
                "photographs": len(paths),
                "model": arguments.model.name,
                "identity": runner.identity,
                "runner": runner.description,
                "decode": str(decode),
                "results": results,
                "map_by_class": by_class(spaces, classes),
            }
            arguments.json.write_text(to_lines(record))


def check_classes(classes: NDArray[np.str_]) -> None:
    """Exit if a query could find nothing of its class."""
    names, counts = np.unique(classes, return_counts=True)
    if len(names) < 2 or counts.min() < 2:
        found = ", ".join(f"{name}: {count}" for name, count in zip(names, counts, strict=True))
        raise SystemExit(
            "retrieval needs two folders or more, each with two photographs or more; "
            f"found {found or 'no photograph'}"
        )


def pixels(paths: list[Path], decode: Decode) -> NDArray[np.uint8]:
    """Return the photographs as section 2 of the paper prepares them: (N, 256 * 256 * 3)."""
    spec = dataclasses.replace(preset_spec("paper"), input_size=PIXELS_SIZE)
    rows = np.empty((len(paths), PIXELS_SIZE * PIXELS_SIZE * 3), np.uint8)

    def fill(row: int) -> None:
        rows[row] = preprocess(
            load_photograph(paths[row], decode, spec.preprocessing), spec
        ).ravel()

    with ThreadPoolExecutor(default_threads()) as threads:
        list(threads.map(fill, range(len(paths))))
    return rows


def activations(
    runner: Runner, paths: list[Path], decode: Decode
) -> dict[str, NDArray[np.float16]]:
    """Return (N, D) for each layer, through the serving path."""
    rows: dict[str, list[NDArray[np.float16]]] = {layer: [] for layer in LAYERS}
    for result in run(runner, paths, decode=decode):
        if result.outputs is None:
            raise SystemExit(f"{result.source}: {result.error}")
        for layer in LAYERS:
            rows[layer].append(result.outputs[layer].ravel().astype(np.float16))
    return {layer: np.stack(rows[layer]) for layer in LAYERS}


def measured(name: str, vectors: NDArray[Any], classes: NDArray[np.str_]) -> Iterator[Space]:
    """Rank by each measure."""
    products = inner_products(vectors)
    squares = products.diagonal()
    for measure in MEASURES:
        if measure == "l2":
            distances = squares[:, np.newaxis] + squares - 2 * products  # squared: same ranking
        else:
            lengths = np.maximum(np.sqrt(squares), np.finfo(np.float64).tiny)
            distances = 1 - products / lengths / lengths[:, np.newaxis]
        relevant = relevance(distances, classes)
        yield Space(
            name=name,
            measure=measure,
            dimensions=vectors.shape[1],
            average_precision=average_precision(relevant),
            precision_at_1=float(relevant[:, :1].mean()),
            precision_at_10=float(relevant[:, :10].mean()),
        )


def inner_products(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Return (N, N), summed in float64: exact for pixels."""
    num_vectors, width = vectors.shape
    products = np.zeros((num_vectors, num_vectors))
    for start in range(0, width, BLOCK):
        block = vectors[:, start : start + BLOCK].astype(np.float64)
        products += block @ block.T
    return products


def relevance(distances: NDArray[np.float64], classes: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Return which of the others share the query's class, nearest first: (N, N - 1)."""
    others = distances.copy()
    np.fill_diagonal(others, np.inf)  # the query comes last and is dropped
    order = np.argsort(others, axis=1, kind="stable")[:, :-1]
    numbers = np.unique(classes, return_inverse=True)[1]
    return np.asarray(numbers[order] == numbers[:, np.newaxis])


def average_precision(relevant: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the mean precision at the ranks of each query's relevant results: (N,), 0..1."""
    ranks = np.arange(1, relevant.shape[1] + 1)
    precision = relevant.cumsum(axis=1) / ranks
    return np.asarray((precision * relevant).sum(axis=1) / relevant.sum(axis=1))


def summary(space: Space, classes: NDArray[np.str_]) -> dict[str, Any]:
    """Return the figures of one space."""
    return {
        "space": space.name,
        "measure": space.measure,
        "dimensions": space.dimensions,
        "map": round(float(space.average_precision.mean()), 4),
        "map_over_classes": round(float(np.mean(list(class_means(space, classes).values()))), 4),
        "precision_at_1": round(space.precision_at_1, 4),
        "precision_at_10": round(space.precision_at_10, 4),
    }


def class_means(space: Space, classes: NDArray[np.str_]) -> dict[str, float]:
    """Return the mAP of the queries of each class."""
    return {
        str(name): float(space.average_precision[classes == name].mean())
        for name in np.unique(classes)
    }


def by_class(spaces: list[Space], classes: NDArray[np.str_]) -> list[dict[str, Any]]:
    """Return for each class its size and its mAP in every space."""
    means = {f"{space.name}_{space.measure}": class_means(space, classes) for space in spaces}
    return [
        {
            "class": str(name),
            "photographs": int(count),
            **{space: round(of[str(name)], 3) for space, of in means.items()},
        }
        for name, count in zip(*np.unique(classes, return_counts=True), strict=True)
    ]


def print_table(results: list[dict[str, Any]]) -> None:
    """Print one line per space."""
    columns = list(results[0])
    widths = [max(len(column), 8) for column in columns]
    print("  ".join(f"{name:>{width}}" for name, width in zip(columns, widths, strict=True)))
    for result in results:
        cells = [f"{cell:.4f}" if isinstance(cell, float) else cell for cell in result.values()]
        print("  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)))


def to_lines(record: dict[str, Any]) -> str:
    """Return JSON with one line per value, and per row of a list."""
    values = []
    for name, value in record.items():
        text = json.dumps(value)
        if isinstance(value, list):
            text = "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in value) + "\n ]"
        values.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(values) + "\n}\n"


if __name__ == "__main__":
    main()
