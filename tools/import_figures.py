"""Measure `import` on files of every kind, as large as the public ones: time and memory.

    python tools/import_figures.py [--rounds 3] [--json FILE]

The files are those of `tests/support/golden_files.py` with random weights, as many as are
published. Each is imported in processes of its own, the start included, and then removed. An
`.onnx` file is also run, on four photographs. Needs `.[cpu,torch]`, 1 GB of disk, 2 GB of memory.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
from pathlib import Path
from typing import Any

from runs import run

from alexnet_deploy.photographs.pipeline import default_threads
from tests.support.golden_files import PUBLISHED, write_mean


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    results = []
    for name in PUBLISHED:
        results.append({"file": name} | measured(name, arguments.rounds))
        print("  ".join(f"{key} {value}" for key, value in results[-1].items()), flush=True)
    if arguments.json is not None:
        rows = ",\n".join(f"  {json.dumps(row)}" for row in results)
        head = f' "cores": {default_threads()},\n "rounds": {arguments.rounds},'
        arguments.json.write_text(f'{{\n{head}\n "results": [\n{rows}\n ]\n}}\n')


def measured(name: str, rounds: int) -> dict[str, Any]:
    """Return size, least time and peak memory of importing one file."""
    with tempfile.TemporaryDirectory() as scratch:
        source, output = Path(scratch, "source"), Path(scratch, "imported.safetensors")
        source.mkdir()
        # In another process: what this one once held would count as memory of those it starts.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            paths = pool.apply(write, (name, source))
        size = sum(path.stat().st_size for path in source.iterdir())
        command = [sys.executable, "-m", "alexnet_deploy", "import", *map(str, paths)]
        command += ["--preset", PUBLISHED[name].network, "-o", str(output)]
        runs = [run(command) for _ in range(rounds)]
    return {
        "size_mb": round(size / 1e6, 1),
        # The least, since whatever else the machine does can only add to it.
        "seconds": round(min(wall_s for wall_s, _ in runs), 2),
        "cpu_seconds": round(min(used.ru_utime + used.ru_stime for _, used in runs), 2),
        "peak_mb": round(max(used.ru_maxrss for _, used in runs) * 1024 / 1e6),
    }


def write(name: str, folder: Path) -> list[str | Path]:
    """Write one file; return it as the command names it, with the mean that comes with it."""
    path = PUBLISHED[name].write(folder, is_small=False)
    return [path, "--mean", write_mean(folder)] if PUBLISHED[name].has_mean else [path]


if __name__ == "__main__":
    main()
