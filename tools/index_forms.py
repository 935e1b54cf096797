"""Compare the forms that vectors can be ranked in first, before the nearest are compared exactly.

    python tools/index_forms.py INDEXED.parquet HELD_OUT.parquet [--coder HEAD.onnx ...]
                                [--json FILE]

The files are of `alexnet-deploy embed`, of photographs in a folder for each class. Each form is
fitted to the vectors of the first file. Printed, as Markdown, and written:

    R=10 ...  recall: which share of the ten nearest of the first file, by cosine, is among the R
              first, for each vector of the second
    mAP       among the vectors of the second, each a query against all the others, by the form
              alone, by class
    a million ms of one query on one thread, the least of several, that ranks a million rows (those
              of the first file, repeated) for the first 100

The forms of an index are ranked by the index's own scan, the others by FAISS alone.

N vectors of D numbers, Q queries.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import AlexNetDeployError
from alexnet_deploy.index import compression
from alexnet_deploy.index.binary_codes import BinaryCoder
from alexnet_deploy.index.coder import open_coder
from alexnet_deploy.index.compressed_files import Compressed
from alexnet_deploy.index.compressed_scan import CompressedScan
from alexnet_deploy.index.faiss_library import faiss, threads_of_faiss
from alexnet_deploy.index.itq import fit_itq
from alexnet_deploy.inference.retrieval_figures import FIGURES, figures_of
from alexnet_deploy.inference.retrieval_forms import unit_rows
from training.experiments.vectors import read_vectors

FIRST = (10, 50, 100, 200)
NUM_NEAREST, NUM_ROWS, NUM_TIMES = 10, 10**6, 7
BITS = (64, 128, 256, 512)

Rows: TypeAlias = NDArray[np.float16]
Order: TypeAlias = NDArray[np.int64]


class Ranking(Protocol):
    """Vectors in one form."""

    def first(self, queries: Rows, count: int) -> Order:
        """Return the numbers of the first of them for (Q, D) queries, (Q, count)."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form, fitted.

    Attributes:
        name: for people.
        num_bytes: of one vector.
        of: keeps (N, D) vectors in it, as often as the number says, one copy after the other.
    """

    name: str
    num_bytes: int
    of: Callable[[Rows, int], Ranking]


@dataclass(frozen=True)
class ByFaiss:
    """Vectors in one of FAISS's indexes, by their coordinates."""

    index: Any
    coordinates: Callable[[Rows], NDArray[np.float32]]

    def first(self, queries: Rows, count: int) -> Order:
        """See `Ranking`."""
        with threads_of_faiss(1):
            found: Order = self.index.search(self.coordinates(queries), count)[1]
        return found


@dataclass(frozen=True)
class ByIndex:
    """Vectors as an index keeps them."""

    scan: CompressedScan

    def first(self, queries: Rows, count: int) -> Order:
        """See `Ranking`."""
        return np.stack(self.scan.first(queries, count, 1))


def main() -> None:
    """Print the table, a line for each form as it is measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("indexed", type=Path)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("--coder", type=Path, action="append", default=[])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    try:
        indexed, held_out = (
            read_vectors([path]) for path in (arguments.indexed, arguments.held_out)
        )
        coders = [open_coder(path, indexed.space) for path in arguments.coder]
    except AlexNetDeployError as error:
        sys.exit(f"index_forms: {error}")
    # What ties is in the order of the rows, which must say nothing about the classes.
    order = np.random.default_rng(0).permutation(len(held_out.rows))
    _, numbers = np.unique(held_out.classes, return_inverse=True)
    queries, labels = held_out.rows[order], numbers[order].astype(np.int32)
    nearest = nearest_of(indexed.rows, queries)
    print(f"| form | bytes | {' | '.join(f'R={first}' for first in FIRST)} | mAP | a million |")
    print("|" + "---|" * (4 + len(FIRST)))
    rows = []
    for form in forms(indexed.rows, coders):
        figures = measured(form, indexed.rows, queries, nearest, labels)
        rows.append({"form": form.name, "bytes": form.num_bytes} | figures)
        recalls = " | ".join(f"{figures[f'recall_{first}']:.3f}" for first in FIRST)
        last = f"{figures['mAP']:.3f} | {figures['ms']:.1f} ms"
        print(f"| {form.name} | {form.num_bytes} | {recalls} | {last} |", flush=True)
    if arguments.json is not None:
        result = {
            "model": indexed.space.identity,
            "layer": indexed.space.layer,
            "indexed": len(indexed.rows),
            "queries": len(queries),
            "exact_mAP": round(mean_average_precision(by_cosine(queries, queries), labels), 4),
            "forms": rows,
        }
        arguments.json.write_text(f"{json.dumps(result)}\n")


def forms(sample: Rows, coders: Sequence[BinaryCoder]) -> Iterator[Form]:
    """Fit each form to (N, D) vectors."""
    unit = compression.unit_vectors(sample)
    mean, axes = compression.principal_axes(unit, 256)
    for count in (64, 128):
        yield of_faiss(f"PCA {count}, float32", 4 * count, "Flat", mean, axes[:count], sample)
    kept = {
        count: compression.fit(
            compression.points_of(sample, mean, axes[:count]), mean, axes[:count]
        )
        for count in (63, 127, 255)
    }
    for count, one in kept.items():
        yield of_index(f"PCA {count} and the rest, 8 bits", count + 1, one, None)
    yield of_faiss("PCA 64, PQ 32 x 8", 32, "PQ32x8", mean, axes[:64], sample)
    yield of_faiss("PCA 256, rotated, RaBitQ", 40, "RR256,RaBitQ", mean, axes[:256], sample)
    for bits in BITS:
        yield of_index(f"ITQ {bits} bits", bits // 8, kept[63], fit_itq(sample, bits))
    for coder in coders:
        bits = coder.widths[-1]
        yield of_index(f"trained coder, {bits} bits", bits // 8, kept[63], coder)


def of_faiss(
    name: str,
    num_bytes: int,
    factory: str,
    mean: NDArray[np.float64],
    axes: NDArray[np.float64],
    sample: Rows,
) -> Form:
    """Return what FAISS keeps of coordinates, fitted to those of a sample."""

    def coordinates(vectors: Rows) -> NDArray[np.float32]:
        return compression.points_of(vectors, mean, axes).coordinates[:, :-1].astype(np.float32)

    empty = faiss.index_factory(len(axes), factory)
    if isinstance(empty, faiss.IndexPQ):
        empty.pq.cp.min_points_per_centroid = 1  # it would print what is too few for its taste
    empty.train(coordinates(sample))

    def of(vectors: Rows, copies: int) -> Ranking:
        index, rows = faiss.clone_index(empty), coordinates(vectors)
        for _ in range(copies):
            index.add(rows)
        return ByFaiss(index, coordinates)

    return Form(name=name, num_bytes=num_bytes, of=of)


def of_index(
    name: str, num_bytes: int, kept: compression.Compression, coder: BinaryCoder | None
) -> Form:
    """Return what an index keeps: codes of coordinates, or a coder's."""

    def of(vectors: Rows, copies: int) -> Ranking:
        points = kept.points(vectors)
        bits = np.empty((len(vectors), 0), np.uint8) if coder is None else coder.codes(vectors)
        made = Compressed(
            record=None,  # type: ignore[arg-type]  # which only files need
            compression=kept,
            positions=np.arange(copies * len(vectors)),
            lengths=np.tile(points.lengths.astype(np.float32), copies),
            codes=np.tile(kept.codes(points.coordinates), (copies, 1)),
            coder=coder,
            bits=np.tile(bits, (copies, 1)),
        )
        return ByIndex(CompressedScan(made))

    return Form(name=name, num_bytes=num_bytes, of=of)


def measured(
    form: Form, indexed: Rows, queries: Rows, nearest: Order, labels: NDArray[np.int32]
) -> dict[str, float]:
    """Return the figures of a form; see the top."""
    first = form.of(indexed, 1).first(queries, max(FIRST))
    is_near = (first[:, :, None] == nearest[:, None]).any(axis=2)
    recalls = {
        f"recall_{count}": round(float(is_near[:, :count].sum(axis=1).mean() / NUM_NEAREST), 4)
        for count in FIRST
    }
    alone = form.of(queries, 1).first(queries, len(queries))
    million = form.of(indexed, NUM_ROWS // len(indexed))
    times = []
    for _ in range(NUM_TIMES):
        start = time.perf_counter()
        million.first(queries[:1], 100)
        times.append(time.perf_counter() - start)
    return recalls | {
        "mAP": round(mean_average_precision(alone, labels), 4),
        "ms": round(1000 * min(times), 2),
    }


def nearest_of(indexed: Rows, queries: Rows) -> Order:
    """Return the numbers of the ten nearest of each query by cosine, (Q, 10)."""
    return by_cosine(indexed, queries)[:, :NUM_NEAREST]


def by_cosine(vectors: Rows, queries: Rows) -> Order:
    """Return the order of vectors for each query, (Q, N)."""
    return np.argsort(-(unit_rows(queries) @ unit_rows(vectors).T), axis=1)


def mean_average_precision(order: Order, labels: NDArray[np.int32]) -> float:
    """Return the mean over the queries of a ranking of them all, (N, N), themselves left out."""
    ranks = np.empty(order.shape, np.float32)
    np.put_along_axis(ranks, order, np.arange(len(order), dtype=np.float32)[None], axis=1)
    figures = figures_of(lambda queries: ranks[queries], labels)
    return float(np.nanmean(figures[:, FIGURES.index("map")]))


if __name__ == "__main__":
    main()
