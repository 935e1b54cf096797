"""Measure `index` and `search` on folders: rate, memory, a second run, a cold search.

    python tools/index_rate.py TEST TRAIN [--rounds 3] [--json FILE]

Whole processes, start included. The first folder is indexed `--rounds` times into a new index,
alternating with the floor of `runs.py`: decoding, and the network's multiplications at the
rate of the BLAS library's best matrix product. Then the second folder's first photographs are
queries, one process each: none is indexed, so each goes through the network. Last, 10,000 files are
indexed, the photographs of both folders and copies of some; indexing them again has nothing to do.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from itertools import islice
from pathlib import Path

from runs import floor_rate, run

from alexnet_deploy.photographs.finding import find_photographs
from alexnet_deploy.photographs.pipeline import default_threads

NUM_SEARCHES = 9
NUM_FILES = 10_000
# Files this old count as settled, like photographs on a disk.
SETTLED_S = 1_600_000_000


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="photographs to index")
    parser.add_argument("others", type=Path, help="photographs to search for")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    paths = list(find_photographs([arguments.folder]))
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        index(place / "warm", samples(place, paths))  # fills the cache of exported checkpoints
        rates, floors, peaks = [], [], []
        for number in range(arguments.rounds):
            wall_s, peak_kb = index(place / str(number), arguments.folder)
            rates.append(len(paths) / wall_s)
            peaks.append(peak_kb / 1024)
            floors.append(floor_rate(paths))
        queries = islice(find_photographs([arguments.others]), NUM_SEARCHES)
        searches = [search(place / "0", query) for query in queries]
        again = [index(place / "0", arguments.folder)[0] for _ in range(3)]
        many = ten_thousand(place, paths, arguments.others)
        first = index(place / "many", many)
        second = [index(place / "many", many)[0] for _ in range(3)]
    figures: dict[str, float | int] = {
        "photographs": len(paths),
        "cores": default_threads(),
        "images_per_s": statistics.median(rates),
        "floor_images_per_s": statistics.median(floors),
        "ratio_to_floor": statistics.median(a / b for a, b in zip(rates, floors, strict=True)),
        "peak_mb": max(peaks),
        "second_run_s": statistics.median(again),
        "search_cold_s": statistics.median(searches),
        "search_cold_slowest_s": max(searches),
        "files_of_large_index": NUM_FILES,
        "large_first_run_s": first[0],
        "large_peak_mb": first[1] / 1024,
        "large_second_run_s": statistics.median(second),
    }
    for name, value in figures.items():
        print(f"{name:<24} {value:.2f}" if isinstance(value, float) else f"{name:<24} {value}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def index(directory: Path, folder: Path) -> tuple[float, int]:
    """Run `index`; return its wall seconds and its peak memory in kB."""
    command = [sys.executable, "-m", "alexnet_deploy", "index", str(folder)]
    wall_s, usage = run([*command, "--index", str(directory)])
    return wall_s, usage.ru_maxrss


def search(directory: Path, query: Path) -> float:
    """Run `search` in a new process; return its wall seconds."""
    command = [sys.executable, "-m", "alexnet_deploy", "search", str(query)]
    return run([*command, "--index", str(directory)])[0]


def samples(place: Path, paths: list[Path]) -> Path:
    """Create a folder with one photograph."""
    folder = place / "one"
    folder.mkdir()
    shutil.copy(paths[0], folder)
    return folder


def ten_thousand(place: Path, paths: list[Path], others: Path) -> Path:
    """Create a folder of `NUM_FILES` copies, some with the same content."""
    folder = place / "photographs"
    folder.mkdir()
    originals = [*paths, *find_photographs([others])]
    for number in range(NUM_FILES):
        copy = folder / f"{number // 1000}" / f"{number:05d}.jpg"
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(originals[number % len(originals)], copy)
        os.utime(copy, (SETTLED_S, SETTLED_S))
    return folder


if __name__ == "__main__":
    main()
