"""Measure how searching grows with an index: exactly, through compressed vectors, with an effort.

    python tools/index_sizes.py VECTORS.parquet QUERIES.parquet PHOTOGRAPH --place FOLDER
        [--sizes 10000 100000 1000000] [--codes 256] [--scan N] [--json FILE] [--plot FILE]

Both files are of `alexnet-deploy embed --layer fc7`, by the model that the photograph is searched
with. An index of each size holds the vectors of the first, and beyond those made ones: of two real
neighbours a mixture of random shares, with isotropic noise of 5 % of its length. The queries are
the vectors of the second, held out. FOLDER needs 8.3 GB for a million.

For each size: the time to compress, and to add the last 1 % where the index is new here; the
largest anonymous memory meanwhile and while searching; and for one query at a time, with the
vectors in the page cache: a search that compares all, one that is proved, and those with efforts,
by the compressed vectors and by binary codes, with their recall of the true 10 nearest; and
`alexnet-deploy search PHOTOGRAPH` in a new process. Times are medians in seconds; where two threads
are named, both cores worked. With `--scan`, the time to rank so many
compressed vectors, and as many binary codes, both made: what a search takes before it reads any.
"""

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alexnet_deploy.index.compressed_files import remove_compressed
from alexnet_deploy.index.compressed_record import EFFORTS, NUM_NEAREST
from alexnet_deploy.index.model import ModelRequest
from alexnet_deploy.index.ranking import Ranker, Ranking
from alexnet_deploy.index.storage import open_storage
from tests.support.made_index import add, run_on

NUM_NEIGHBOURS = 10
NOISE = 0.05
BLOCK = 4096
NUM_QUERIES = 100
NUM_EXACT = 5
NUM_COLD = 5
NUM_AXES = 127


def main() -> None:
    """Measure each size, and write what was found after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("vectors", type=Path)
    parser.add_argument("queries", type=Path)
    parser.add_argument("photograph", type=Path)
    parser.add_argument("--place", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**4, 10**5, 10**6])
    parser.add_argument("--codes", type=int, default=256)
    parser.add_argument("--scan", type=int)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    queries = vectors_of(arguments.queries)
    chosen = np.linspace(0, len(queries) - 1, NUM_QUERIES).astype(np.intp)
    rows = []
    for size in arguments.sizes:
        directory = arguments.place / f"index-{size}"
        adding: dict[str, float] = {}
        if not directory.exists():
            make(directory, arguments.vectors, size - size // 100)
            in_a_process(compress, directory, 0)
            make(directory, arguments.vectors, size)
            adding = {"adding_1_percent_s": round(in_a_process(compress, directory, None)[0], 2)}
        figures = measured(directory, queries[chosen], arguments.photograph, arguments.codes)
        rows.append(figures | adding)
        print(json.dumps(rows[-1], indent=1), flush=True)
        if arguments.json is not None:
            arguments.json.write_text(f"{json.dumps(rows, indent=1)}\n")
    if arguments.plot is not None:
        draw(rows, arguments.plot)
    if arguments.scan is not None:
        print(json.dumps(in_a_process(scan, arguments.scan, arguments.codes)[0], indent=1))


def vectors_of(file: Path) -> NDArray[np.float16]:
    """Return the FC7 vectors of a file, (N, 4096)."""
    column = pyarrow.parquet.read_table(file, columns=["fc7"])["fc7"].combine_chunks()
    values = column.drop_null().flatten().to_numpy(zero_copy_only=False)
    rows: NDArray[np.float16] = values.reshape(-1, 4096).astype(np.float16)
    return rows


def make(directory: Path, file: Path, size: int) -> None:
    """Make an index of `size` vectors, or let one grow: those of the file and mixtures of them."""
    from alexnet_deploy.index.imported import import_files

    if not directory.exists():
        import_files(directory, [file], ModelRequest(), ann="exact")
    real = vectors_of(file).astype(np.float32)
    unit = real / np.linalg.norm(real, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -1)
    neighbours = np.argpartition(-cosines, NUM_NEIGHBOURS, axis=1)[:, :NUM_NEIGHBOURS]
    generator = np.random.default_rng(size)
    with run_on(directory) as index:
        while (left := size - index.next_position()) > 0:
            num_made = min(BLOCK, left)
            first = generator.integers(0, len(real), num_made)
            second = neighbours[first, generator.integers(0, NUM_NEIGHBOURS, num_made)]
            share = generator.random((num_made, 1), np.float32)
            mixed = share * real[first] + (1 - share) * real[second]
            noise = generator.standard_normal(mixed.shape, np.float32)
            noise *= NOISE * np.linalg.norm(mixed, axis=1, keepdims=True) / np.sqrt(mixed.shape[1])
            add(index, (mixed + noise).astype(np.float16))


def measured(
    directory: Path, queries: NDArray[np.float16], photograph: Path, bits: int
) -> dict[str, Any]:
    """Return the figures of one index."""
    seconds, memory = in_a_process(compress, directory, 0)
    found, memory_to_search = in_a_process(search, directory, queries)
    cold = [cold_search(directory, photograph) for _ in range(NUM_COLD)]
    codes_s, _ = in_a_process(compress, directory, bits)
    by_codes, _ = in_a_process(search, directory, queries)
    return {
        **found,
        "compressing_s": round(seconds, 1),
        "compressing_peak_mb": memory,
        "searching_peak_mb": memory_to_search,
        "cold_search_s": round(statistics.median(cold), 3),
        f"compressing_with_{bits}_bits_s": round(codes_s, 1),
        f"efforts_by_{bits}_bits": by_codes["efforts"],
    }


def compress(directory: Path, bits: int | None) -> float:
    """Compress the vectors anew, or with None only later ones; return the time."""
    from alexnet_deploy.index.compressing import compress

    with run_on(directory) as index:
        if bits is not None:
            remove_compressed(directory)
        start = time.perf_counter()
        compress(index, codes=bits, threads=2, notify=lambda line: print(line, file=sys.stderr))
        return time.perf_counter() - start


def search(directory: Path, queries: NDArray[np.float16]) -> dict[str, Any]:
    """Return times, shares and recalls of searching."""
    from alexnet_deploy.index.compressed_search import CompressedRanker
    from alexnet_deploy.index.exact_search import ExactRanker, live_positions

    with open_storage(directory) as index, index.ledger.snapshot():
        num_vectors = len(live_positions(index))
        exact = ExactRanker(index)
        ranker = CompressedRanker(index, exact, print)
        whole = {
            threads: [timed(exact, queries[one : one + 1], threads)[0] for one in range(NUM_EXACT)]
            for threads in (2, 1)  # after the first pass the vectors are in the page cache
        }
        timed(ranker, queries[:1], 1)
        proved = {
            threads: [timed(ranker, query[None], threads) for query in queries]
            for threads in (1, 2)
        }
        efforts = {
            effort: [timed(ranker, query[None], 1, effort) for query in queries]
            for effort in EFFORTS
        }
    num_read = [ranking.num_compared for _, ranking in proved[1]]
    exact_s = {threads: statistics.median(times) for threads, times in whole.items()}
    proved_s = {threads: median_s(runs) for threads, runs in proved.items()}
    return {
        "vectors": num_vectors,
        "exact_s": {f"{threads} threads": round(s, 4) for threads, s in exact_s.items()},
        "proved_s": {f"{threads} threads": round(s, 5) for threads, s in proved_s.items()},
        "proved_of_exact": round(proved_s[1] / exact_s[1], 4),
        "read_median": statistics.median(num_read),
        "read_90th_percentile": float(np.percentile(num_read, 90)),
        "share_read": round(statistics.median(num_read) / num_vectors, 6),
        "efforts": {
            str(effort): {
                "s": round(median_s(runs), 5),
                "of_exact": round(median_s(runs) / exact_s[1], 4),
                "recall": round(recall(runs, proved[1]), 4),
            }
            for effort, runs in efforts.items()
        },
    }


def scan(num_rows: int, bits: int) -> dict[str, Any]:
    """Return what ranking made codes takes, by the number of threads."""
    from alexnet_deploy.index.binary_codes import BinaryCoder
    from alexnet_deploy.index.compressed_files import Compressed
    from alexnet_deploy.index.compressed_scan import CompressedScan
    from alexnet_deploy.index.compression import Compression

    generator, numbers = np.random.default_rng(0), np.ones(NUM_AXES + 1, np.float32)
    axes = np.eye(NUM_AXES, 4096)
    made = Compressed(
        record=None,  # type: ignore[arg-type]
        compression=Compression(
            mean=axes[0], axes=axes, lows=-numbers, steps=np.float32(2**-7) * numbers, error=0
        ),
        positions=np.arange(num_rows),
        lengths=np.ones(num_rows, np.float32),
        codes=generator.integers(0, 256, (num_rows, NUM_AXES + 1), np.uint8),
        coder=BinaryCoder(
            weights=(np.eye(bits, 4096, dtype=np.float32),), biases=(np.zeros(bits, np.float32),)
        ),
        bits=generator.integers(0, 256, (num_rows, bits // 8), np.uint8),
    )
    scanner, query = CompressedScan(made), generator.random((1, 4096)).astype(np.float16)
    point = made.compression.points(query).coordinates.astype(np.float32)
    scanner.nearest(point, 1024, 2)
    works: dict[str, Callable[[int], object]] = {
        f"{NUM_AXES + 1} bytes": lambda threads: scanner.nearest(point, 1024, threads),
        f"{bits} bits": lambda threads: scanner.first(query, 100, threads),
    }
    return {"vectors": num_rows} | {
        f"{name}, {threads} threads, s": round(least_s(work, threads), 4)
        for name, work in works.items()
        for threads in (1, 2)
    }


def least_s(work: Callable[[int], object], threads: int) -> float:
    """Return the least of several times."""
    times = []
    for _ in range(NUM_COLD):
        start = time.perf_counter()
        work(threads)
        times.append(time.perf_counter() - start)
    return min(times)


def timed(
    ranker: Ranker, query: NDArray[np.float16], threads: int, effort: int | None = None
) -> tuple[float, Ranking]:
    """Search once; return the time and what was found."""
    start = time.perf_counter()
    (ranking,) = ranker.rank(query, NUM_NEAREST, metric="cosine", threads=threads, effort=effort)
    return time.perf_counter() - start, ranking


def median_s(runs: Sequence[tuple[float, Ranking]]) -> float:
    """Return the median time."""
    return statistics.median(seconds for seconds, _ in runs)


def recall(runs: Sequence[tuple[float, Ranking]], true: Sequence[tuple[float, Ranking]]) -> float:
    """Return which share of the true nearest was found."""
    pairs = zip(runs, true, strict=True)
    hits = [np.isin(b.positions[:NUM_NEAREST], a.positions).mean() for (_, a), (_, b) in pairs]
    return float(np.mean(hits))


def cold_search(directory: Path, photograph: Path) -> float:
    """Search by the command, in a new process; return the time."""
    names = "search", str(photograph), "--index", str(directory)
    command = [sys.executable, "-m", "alexnet_deploy", *names]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def in_a_process(function: Callable[..., Any], *arguments: Any) -> tuple[Any, int]:
    """Return what a function returns in a new process, and the largest anonymous memory, in MB."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=answer, args=(sender, function, arguments))
    process.start()
    sender.close()
    peak = 0
    while not receiver.poll(0.02):
        peak = max(peak, anonymous_mb(process.pid or 0))
    result = receiver.recv()
    process.join()
    return result, peak


def answer(sender: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Call a function, and send what it returns."""
    sender.send(function(*arguments))


def anonymous_mb(process: int) -> int:
    """Return a process's anonymous memory, which no file backs, in MB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024 // 10**6
    return 0


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw times and vectors read against the size of the index."""
    from matplotlib import pyplot

    sizes = [row["vectors"] for row in rows]
    figure, (times, read) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    lines = {
        "all compared": [row["exact_s"]["1 threads"] for row in rows],
        "proved": [row["proved_s"]["1 threads"] for row in rows],
        "effort 100": [row["efforts"]["100"]["s"] for row in rows],
    }
    for name, seconds in lines.items():
        times.loglog(sizes, seconds, "o-", label=name)
    times.set(xlabel="vectors", ylabel="seconds a query, one thread")
    read.loglog(sizes, [row["read_median"] for row in rows], "o-", label="median")
    read.loglog(sizes, [row["read_90th_percentile"] for row in rows], "o-", label="90th percentile")
    read.set(xlabel="vectors", ylabel="read to prove the nearest 10")
    for axes in (times, read):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
