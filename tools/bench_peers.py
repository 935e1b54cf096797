"""Compare `embed` with what a user would run instead, on the same photographs, in turns.

    python tools/bench_peers.py FOLDER [--peer NAME ...] [--rounds 5] [--json FILE]

Whole processes, from files to FC7 in an `.npy`: this package's, and those of `peers.py`. Each also
embeds the first batch alone, so that start-up can be told from the rest: `images_per_s` has it,
`steady_images_per_s` has not. Every peer's vectors are compared with ours. The floor is a bound on
the time of any program, see `runs.py`. For the network alone, OpenVINO's own `benchmark_app` runs
the same exported file with batches of the same size, beside our runner. Peak memory is measured
with the folder, and with every photograph under 20 names.
"""

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peers import BATCH, PEERS
from runs import floor_rate, run

from alexnet_deploy import installed
from alexnet_deploy.benchmark.machine import Machine
from alexnet_deploy.export.onnx import build_file
from alexnet_deploy.graph.model_file import write_model
from alexnet_deploy.model.checkpoints import load_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.photographs.finding import find_photographs
from alexnet_deploy.runtimes.base import RunnerOptions
from alexnet_deploy.runtimes.factory import open_runner
from alexnet_deploy.timing import Spread, in_turns, seconds_of
from alexnet_deploy.verification.agreement import Agreement

OURS, FLOOR, NETWORK, BENCHMARK_APP = "alexnet-deploy", "floor", "our network", "benchmark_app"
# Without telemetry, which the console script would send.
_BENCHMARK_APP = (
    "import sys; sys.modules['openvino_telemetry'] = None; "
    "from openvino.tools.benchmark.main import main; main()"
)
COPIES = 20  # names of each photograph, to measure memory
_APP_S = 10
"""Seconds that `benchmark_app` runs in a round."""


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--peer", action="append", choices=list(PEERS), help="all by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    paths = list(find_photographs([arguments.folder]))
    if len(paths) <= BATCH:
        parser.error(f"{arguments.folder}: has {len(paths)} photographs, expected over {BATCH}")
    with tempfile.TemporaryDirectory() as scratch:
        figures = {
            "machine": dataclasses.asdict(Machine.here())
            | {"torch": installed.version_of("torch")},
            "photographs": len(paths),
            "rounds": arguments.rounds,
            # First, while this process is small.
            **peak_memory(arguments.folder, paths, Path(scratch)),
            "results": measured(
                arguments.folder, paths, arguments.peer or list(PEERS), arguments.rounds, scratch
            ),
        }
    print("\n".join(lines(figures)))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def measured(
    folder: Path, paths: list[Path], peers: list[str], rounds: int, scratch: str
) -> dict[str, Any]:
    """Return the figures of each program, by name."""
    place = Path(scratch)
    few, model = place / "few", place / "model.onnx"
    few.mkdir()
    for number, path in enumerate(paths[:BATCH]):
        os.symlink(path.absolute(), few / f"{number:02}{path.suffix}")
    file = build_file(load_checkpoint(bundled_checkpoint()), ("fc7",), "fp32")
    write_model(file, model)
    programs = [OURS, *peers]
    with open_runner(file, RunnerOptions(runtime="openvino", batch_size=BATCH)) as runner:
        size = runner.spec.input_size
        noise = np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3), np.uint8)
        timers: dict[str, Callable[[], float]] = {
            **{f"{name} few": partial(embed, name, few, place, model) for name in programs},
            **{name: partial(embed, name, folder, place, model) for name in programs},
            FLOOR: lambda: len(paths) / floor_rate(paths),
            NETWORK: lambda: seconds_of(lambda: runner.run(noise), at_least_s=_APP_S) / BATCH,
            BENCHMARK_APP: lambda: 1 / benchmark_app_rate(model, size),
        }
        for name in programs:  # to warm up, and to see that all compute the same
            timers[f"{name} few"]()
            timers[name]()
        agreements = {name: agreement(place, name) for name in peers}
        took = in_turns(timers, rounds, lambda number: print(f"round {number}", file=sys.stderr))
    found: dict[str, Any] = {}
    steady = {
        name: [a - b for a, b in zip(took[name], took[f"{name} few"], strict=True)]
        for name in programs
    }
    for name in programs:
        found[name] = {
            "images_per_s": spread(len(paths) / each for each in took[name]),
            "steady_images_per_s": spread((len(paths) - BATCH) / each for each in steady[name]),
            "times_slower": ratios(took[name], took[OURS]),
            "steady_times_slower": ratios(steady[name], steady[OURS]),
            "fc7_error_max": agreements[name].fc7_error_max if name in agreements else 0.0,
        }
    found[FLOOR] = {"images_per_s": spread(len(paths) / each for each in took[FLOOR])}
    for name in (NETWORK, BENCHMARK_APP):
        found[name] = {"images_per_s": spread(1 / each for each in took[name])}
    return found


def spread(values: Any) -> dict[str, float]:
    """Return the median and the quartiles."""
    return dataclasses.asdict(Spread.of(values))


def ratios(some: list[float], others: list[float]) -> dict[str, float]:
    """Return the spread of the ratio in a round."""
    return spread(a / b for a, b in zip(some, others, strict=True))


def output_of(place: Path, name: str) -> Path:
    """Return where a program's vectors are written."""
    return place / f"{name}.npy"


def embed(name: str, folder: Path, place: Path, model: Path) -> float:
    """Let a program embed a folder; return the seconds."""
    output = str(output_of(place, name))
    ours = ["-m", "alexnet_deploy", "embed", str(folder), "-o", output]
    peer = [str(Path(__file__).with_name("peers.py")), name, str(folder), output, str(model)]
    return run([sys.executable, *(ours if name == OURS else peer)])[0]


def agreement(place: Path, name: str) -> Agreement:
    """Compare a peer's vectors with ours."""
    theirs, ours = (np.load(output_of(place, one)) for one in (name, OURS))
    found = Agreement.of({"fc7": theirs}, {"fc7": ours}, "fp32")
    if not found.is_admitted:
        raise SystemExit(f"{name}: does not compute what we do: {found}")
    return found


def benchmark_app_rate(model: Path, size: int) -> float:
    """Return the images per second that OpenVINO's own benchmark reaches with a file."""
    shape = f"[{BATCH},{size},{size},3]"
    options = ["-m", str(model), "-d", "CPU", "-shape", shape, "-infer_precision", "f32"]
    command = [sys.executable, "-c", _BENCHMARK_APP, *options, "-t", str(_APP_S)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rate = re.search(r"Throughput:\s*([\d.]+) FPS", done.stdout)
    if done.returncode or rate is None:
        raise SystemExit(f"benchmark_app failed: {done.returncode}: {done.stdout}{done.stderr}")
    return float(rate[1])


def peak_memory(folder: Path, paths: list[Path], place: Path) -> dict[str, float]:
    """Return the peak memory of `embed` in MB with the folder, and with every file `COPIES` times.

    Neither is below that of this process.
    """
    many = place / "many"
    for copy in range(COPIES):
        (many / str(copy)).mkdir(parents=True)
        for number, path in enumerate(paths):
            os.symlink(path.absolute(), many / str(copy) / f"{number}{path.suffix}")
    command = [sys.executable, "-m", "alexnet_deploy", "embed", "-o", str(place / "peak.npy")]
    once, often = (run([*command, str(each)])[1].ru_maxrss / 1024 for each in (folder, many))
    return {"peak_mb": once, "peak_mb_of_copies": often}


def lines(figures: dict[str, Any]) -> list[str]:
    """Return the figures for people: images a second, medians with quartiles."""
    own = figures["results"]
    found = [f"{Machine.here()}, torch {figures['machine']['torch']}"]
    kinds = {
        "images_per_s": "images/s",
        "times_slower": "times slower",
        "steady_images_per_s": "without start",
        "steady_times_slower": "times slower",
    }
    found += [" " * 18 + "".join(f"{words:>20}" for words in kinds.values())]
    for name, each in own.items():
        cells = (shown(each[kind], 0 if "images" in kind else 2) for kind in kinds if kind in each)
        found.append(f"{name:<18}" + "".join(f"{cell:>20}" for cell in cells))
    memory = f"{{peak_mb:.0f}} MB, with each {COPIES} times {{peak_mb_of_copies:.0f}} MB"
    return [*found, f"peak memory {memory.format(**figures)}"]


def shown(value: dict[str, float], digits: int) -> str:
    """Return a spread in a few letters."""
    return "{0:.{n}f} ({1:.{n}f}-{2:.{n}f})".format(
        *(value[name] for name in ("median", "lower", "upper")), n=digits
    )


if __name__ == "__main__":
    main()
