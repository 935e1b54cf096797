"""Measure how long commands take to start: whole processes, in turns, beside another checkout.

    python tools/start_up.py [CHECKOUT] [--rounds 20] [--json FILE]

Each command is given one photograph, or none. What it keeps (bytecode, exported networks, an index
of the samples) is made first by the checkout that is measured, in a folder for the time being.
CHECKOUT is the root of another working tree of this repository; ratios are this one's times by
that one's, of the same round. Processor time is that of all threads: on a busy machine it is what
to go by. The last table has the time in the imports of `classify`, by package, the least of ten
runs. Needs 2 GB of disk.
"""

import argparse
import dataclasses
import json
import multiprocessing
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from runs import run

from alexnet_deploy.benchmark.machine import Machine
from alexnet_deploy.model.checkpoints import Checkpoint, save_checkpoint
from alexnet_deploy.model.spec import preset_spec
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.timing import Spread, in_turns, median_ratio

ROOT = Path(__file__).resolve().parents[1]
WHOLE = "classify, 244 MB of weights"
NUM_IMPORT_RUNS = 10
_IMPORT = re.compile(r"import time: +(\d+) \| +\d+ \| +([\w.]+)$", re.MULTILINE)


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("checkout", type=Path, nargs="?", help="to compare with")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    checkouts = {"this": ROOT}
    if arguments.checkout is not None:
        checkouts["other"] = arguments.checkout.resolve()
        if not (checkouts["other"] / "alexnet_deploy" / "cli.py").is_file():
            parser.error(f"{arguments.checkout}: is not the root of a checkout")
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        commands = prepared(checkouts, place)
        figures = {
            "machine": dataclasses.asdict(Machine.here()),
            "rounds": arguments.rounds,
            "commands": measured(commands, arguments.rounds),
            "import_ms": import_ms(commands["classify"]["this"]),
        }
    print("\n".join(lines(figures)))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def prepared(checkouts: dict[str, Path], place: Path) -> dict[str, dict[str, list[str]]]:
    """Return the command lines by name and checkout, all of which have run twice."""
    indexed = varied_samples()[0]
    new, weights = place / f"new{indexed.suffix}", place / "whole.safetensors"
    shutil.copy(indexed, new)
    with new.open("ab") as file:
        file.write(b"\0")  # after the picture: other bytes, the same pixels
    # In another process: what this one once held would count as memory of those it starts.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(write_weights, (weights,))
    commands: dict[str, dict[str, list[str]]] = {}
    for label, root in checkouts.items():
        index = place / f"{label}-index"
        start = [*environment(root, place / label), sys.executable, "-m", "alexnet_deploy"]
        run([*start, "index", str(indexed.parent), "--index", str(index)])
        for name, own in {
            "--help": ["--help"],
            "search, not indexed": ["search", str(new), "--index", str(index)],
            "search, indexed": ["search", str(indexed), "--index", str(index)],
            "classify": ["classify", str(new)],
            "classify --json": ["classify", str(new), "--json"],
            WHOLE: ["classify", str(new), "--model", str(weights)],
        }.items():
            commands.setdefault(name, {})[label] = [*start, *own]
            run(commands[name][label])
            run(commands[name][label])
    return commands


def environment(root: Path, home: Path) -> list[str]:
    """Return the beginning of a command line that runs a checkout with folders of its own."""
    own = {"PYTHONPATH": root, "PYTHONPYCACHEPREFIX": home / "bytecode", "XDG_CACHE_HOME": home}
    # Users have bytecode, where a developer may have said to write none.
    unset = [f"--unset={name}" for name in ("PYTHONDONTWRITEBYTECODE", "ALEXNET_MODEL")]
    return ["env", f"--chdir={root}", *unset, *(f"{name}={value}" for name, value in own.items())]


def write_weights(path: Path) -> None:
    """Write a checkpoint with random weights, none of its layers factored."""
    spec, rng = preset_spec("paper", num_classes=1000), np.random.default_rng(0)
    arrays = {
        name: np.float32(0.01) * rng.standard_normal(shape, np.float32)
        for name, shape in spec.array_shapes().items()
    }
    save_checkpoint(Checkpoint(spec=spec, arrays=arrays), path)


def measured(commands: dict[str, dict[str, list[str]]], rounds: int) -> dict[str, Any]:
    """Return for each command the spread of its times and its memory, by checkout, and ratios."""
    used: dict[str, list[tuple[float, float]]] = {}

    def timer(key: str, command: list[str]) -> Callable[[], float]:
        def timed() -> float:
            wall_s, usage = run(command)
            took = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
            used.setdefault(key, []).append(took)
            return wall_s

        return timed

    timers = {
        f"{name}\n{label}": timer(f"{name}\n{label}", command)
        for name, by_label in commands.items()
        for label, command in by_label.items()
    }
    wall = in_turns(timers, rounds, lambda number: print(f"round {number}", file=sys.stderr))
    found: dict[str, Any] = {}
    for name, by_label in commands.items():
        keys = {label: f"{name}\n{label}" for label in by_label}
        cpu = {label: [seconds for seconds, _ in used[key]] for label, key in keys.items()}
        found[name] = {
            label: {
                "wall_s": dataclasses.asdict(Spread.of(wall[key])),
                "cpu_s": dataclasses.asdict(Spread.of(cpu[label])),
                "peak_mb": max(memory for _, memory in used[key]),
            }
            for label, key in keys.items()
        }
        if "other" in keys:
            found[name]["ratio"] = {
                "wall": median_ratio(wall[keys["this"]], wall[keys["other"]]),
                "cpu": median_ratio(cpu["this"], cpu["other"]),
            }
    return found


def import_ms(command: list[str]) -> dict[str, float]:
    """Return the milliseconds in the modules of each package, the longest first."""
    python = command.index(sys.executable)
    timing = [*command[: python + 1], "-X", "importtime", *command[python + 1 :]]
    runs = []
    for _ in range(NUM_IMPORT_RUNS):
        done = subprocess.run(timing, capture_output=True, text=True, check=True)
        total: Counter[str] = Counter()
        for microseconds, module in _IMPORT.findall(done.stderr):
            package = module.split(".")[0]
            is_standard = package in sys.stdlib_module_names
            total["standard library" if is_standard else package] += int(microseconds)
        runs.append(total)
    least = Counter({name: min(total[name] for total in runs) for name in runs[0]})
    return {name: microseconds / 1000 for name, microseconds in least.most_common()}


def lines(figures: dict[str, Any]) -> list[str]:
    """Return the figures for people: medians with quartiles, in milliseconds."""
    found = [str(Machine.here())]
    found += [f"{'':36}{'wall ms':>20}{'processor ms':>20}{'peak MB':>10}"]
    for name, each in figures["commands"].items():
        for label in ("this", "other"):
            if label in each:
                cells = (milliseconds(each[label][kind]) for kind in ("wall_s", "cpu_s"))
                row = "".join(f"{cell:>20}" for cell in cells)
                found.append(f"{name:<28}{label:<8}{row}{each[label]['peak_mb']:>10.0f}")
        if "ratio" in each:
            found.append("{:<36}{wall:>20.2f}{cpu:>20.2f}".format("", **each["ratio"]))
    found += [f"{'imports of classify':<36}{'ms':>20}"]
    return [
        *found,
        *(f"{name:<36}{ms:>20.0f}" for name, ms in figures["import_ms"].items() if ms >= 1),
    ]


def milliseconds(spread: dict[str, float]) -> str:
    """Return a spread of seconds in a few letters."""
    own = (1000 * spread[name] for name in ("median", "lower", "upper"))
    return "{:.0f} ({:.0f}-{:.0f})".format(*own)


if __name__ == "__main__":
    main()
