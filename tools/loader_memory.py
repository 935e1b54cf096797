"""Show that memory does not grow while photographs are read from files.

    python tools/loader_memory.py [--photographs 100000] [--workers 2] [--json FILE]

Creates small JPEGs in a temporary folder (hard links to 500 different ones, 1,000 per class), reads
them in random order for two epochs as in training, and prints each process's memory: RSS, all
resident pages; PSS, where a page shared by k processes counts 1/k; and the peak RSS. Reads /proc,
so it needs Linux.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alexnet_deploy.photographs.class_folders import find_class_folders
from training.photographs import batches, open_source
from training.pictures import PictureForm

NUM_DIFFERENT, PER_CLASS = 500, 1000
BATCH_SIZE = 128
IMAGENET = 1_281_167
MOMENTS = (0.1, 0.5, 1.0)  # shares of an epoch


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photographs", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--size", type=int, default=72, help="side of a picture in px")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_photographs(Path(folder), arguments.photographs, arguments.size)
        figures = measure(Path(folder), arguments.size, arguments.workers)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def make_photographs(folder: Path, count: int, size: int) -> None:
    """Create the photographs, `size` x `size` px."""
    random = np.random.default_rng(0)
    (folder / ".originals").mkdir()  # hidden, so not a class
    for number in range(NUM_DIFFERENT):
        spots = random.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        picture = Image.fromarray(spots).resize((size, size), Image.Resampling.BICUBIC)
        picture.save(folder / ".originals" / f"{number}.jpg")
    for number in range(count):
        name = f"n{number // PER_CLASS:08}"
        if number % PER_CLASS == 0:
            (folder / name).mkdir()
        original = folder / ".originals" / f"{number % NUM_DIFFERENT}.jpg"
        os.link(original, folder / name / f"{name}_{number}.JPEG")


def measure(root: Path, size: int, num_workers: int) -> dict[str, Any]:
    """Read two epochs, sampling the processes at `MOMENTS` of each."""
    folders = find_class_folders(root)
    source = open_source(folders, form=PictureForm(size=size), memory_limit_bytes=0)
    bytes_each = (len(folders.names) + folders.spans.nbytes + folders.labels.nbytes) / len(folders)
    print(
        f"{len(folders):,} photographs, {bytes_each:.0f} bytes each in a process "
        f"(ImageNet: {bytes_each * IMAGENET / 1e6:.0f} MB)"
    )
    print(f"{'':>18} {'process':<8} {'RSS MB':>7} {'PSS MB':>7} {'largest RSS MB':>15}")
    rows: list[dict[str, Any]] = []
    start = time.perf_counter()
    for epoch in (1, 2):
        order = np.random.default_rng(epoch).permutation(len(source))
        moments = [int(share * len(order)) for share in MOMENTS]
        num_read = 0
        for batch in batches(source, order, batch_size=BATCH_SIZE, num_workers=num_workers):
            num_read += len(batch.labels)
            while moments and num_read >= moments[0]:
                rows += look(epoch, moments.pop(0) / len(order))
        if num_read != len(order):
            raise SystemExit(f"read {num_read} photographs, expected {len(order)}")
    rate = 2 * len(source) / (time.perf_counter() - start)
    growth = largest_growth(rows)
    print(f"largest growth of a process within an epoch: {growth:.1f} MB; {rate:,.0f} images/s")
    return {
        "photographs": len(source),
        "size": size,
        "batch_size": BATCH_SIZE,
        "workers": num_workers,
        "bytes_a_photograph": round(bytes_each, 1),
        "images_per_s": round(rate),
        "largest_growth_mb": growth,
        "processes": rows,
    }


def largest_growth(rows: list[dict[str, Any]]) -> float:
    """Return the largest growth of RSS since the first sample of a process, in MB."""
    histories: dict[tuple[int, str], list[float]] = {}
    for row in rows:
        histories.setdefault((row["epoch"], row["process"]), []).append(row["rss_mb"])
    return round(max(max(history) - history[0] for history in histories.values()), 1)


def look(epoch: int, share: float) -> list[dict[str, Any]]:
    """Print and return the memory of this process and its workers."""
    workers = sorted(worker.pid for worker in multiprocessing.active_children() if worker.pid)
    names = {os.getpid(): "parent"}
    names |= {pid: f"worker {number}" for number, pid in enumerate(workers)}
    rows: list[dict[str, Any]] = []
    for pid, name in names.items():
        rss, pss = kilobytes(pid, "smaps_rollup", "Rss"), kilobytes(pid, "smaps_rollup", "Pss")
        largest = kilobytes(pid, "status", "VmHWM")
        print(
            f"epoch {epoch}, {share:>6.0%}   {name:<8} {rss / 1e3:7.1f} {pss / 1e3:7.1f} "
            f"{largest / 1e3:15.1f}"
        )
        megabytes = {"rss_mb": rss, "pss_mb": pss, "largest_rss_mb": largest}
        rows.append(
            {"epoch": epoch, "share": round(share, 3), "process": name}
            | {field: round(value / 1e3, 1) for field, value in megabytes.items()}
        )
    return rows


def kilobytes(pid: int, file: str, field: str) -> float:
    """Return a field of a file in /proc/PID, in thousands of bytes."""
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1.024
    raise SystemExit(f"/proc/{pid}/{file} has no {field}")


if __name__ == "__main__":
    main()
