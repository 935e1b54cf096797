"""Run every check that needs an NVIDIA GPU, with the packages of this machine, and report.

    python tools/gpu_check.py [--only NAMES] [--json FILE] [--logs DIR] [--limit-minutes 9]
                              [--wheels DIR] [--photographs DIR]

Checks are pytest's tests with the marker `gpu`, the most valuable first; they need pytest and
pytest-timeout. NAMES are those that are printed, or patterns of them, with commas:
"kernel-numbers,engines-*" repeats these alone. torch, CuPy, onnxruntime-gpu, faiss-gpu,
nvImageCodec, TensorRT and TensorRT-RTX are used if available; a check that lacks one is skipped,
with the reason. Packages, pytest's own among them, may also be wheels in a folder: they are
unpacked, never installed. If a package is installed as well, the files of checks that use torch
take the installed one, all others the wheel. Nothing is downloaded.

The checks of a file share a process until one fails, crashes or hangs. The results,
tools/results/gpu-check.json, hold versions, date, hardware, and name, status, seconds, reason and
figures of each check. They are written after each check, as gpu-check.partial.json until every
check has had its turn.

Exit codes: 0 nothing failed, 1 a check failed or there is no GPU, 2 wrong usage, 3 nothing failed
but the time ran out before every check had its turn; stopped: 129 by SIGHUP, 130 by Ctrl-C, 143 by
SIGTERM.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path
from typing import NoReturn

from gpu_checks.record import Record, Result
from gpu_checks.session import ROOT, Session
from gpu_checks.wheels import unpack_wheels

RESULTS = ROOT / "tools" / "results" / "gpu-check.json"
LIMIT_MINUTES = 9.0
"""Start and clean-up are extra; everything must finish within ten."""
# The most valuable first, in case time runs out. True where wheels come before everything
# installed; torch brings its own CUDA libraries, which others must not replace.
FILES = {
    "tools/gpu_checks/test_kernel.py": False,
    "tools/gpu_checks/test_onnxruntime.py": True,
    "tools/gpu_checks/test_training.py": False,
    "tests/training/test_towers.py": False,
    "tests/training/test_resume.py": False,
    "tests/training/test_exchange.py": False,
    "tests/runtimes/test_onnxruntime_cuda_runner.py": True,
    "tests/runtimes/test_cuda_memory.py": True,
    "tools/gpu_checks/test_commands.py": True,
    "tests/index/test_real_gpu.py": True,
    "tools/gpu_checks/test_decoding.py": True,
    "tools/gpu_checks/test_engines.py": True,
}


def chosen(checks: Mapping[str, str], only: str) -> dict[str, str]:
    """Return the checks that names or patterns with commas choose.

    Raises:
        ValueError: one chooses none.
    """
    found: set[str] = set()
    for pattern in only.split(","):
        names = {name for name in checks if fnmatch(name, pattern.strip())}
        if not names:
            raise ValueError(f"{pattern} is none of the checks: {', '.join(checks)}")
        found |= names
    return {name: node for name, node in checks.items() if name in found}


def report(result: Result) -> None:
    """Print a result as one line."""
    line = f"{result.status:8}{result.seconds:7.1f} s  {result.name:34} {result.reason}"
    print(line.rstrip(), flush=True)


def main() -> NoReturn:
    """Run the command line; exits with one of the exit codes above."""
    # By default Python would exit at once, leaving the checks' processes and files behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as set by nohup
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    parser = _parser()
    options = parser.parse_args()
    if options.photographs is not None and not options.photographs.is_dir():
        parser.error(f"--photographs {options.photographs}: is not a folder")
    try:
        with tempfile.TemporaryDirectory(prefix="gpu-check-") as name:
            sys.exit(_run(parser, options, Path(name).resolve()))
    except KeyboardInterrupt:
        print("gpu-check: stopped by Ctrl-C", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace, scratch: Path) -> int:
    sys.path.insert(1, str(ROOT))  # where the package is not installed
    from gpu_checks import machine

    from alexnet_deploy.errors import DeviceError

    deadline = time.monotonic() + 60 * options.limit_minutes
    logs: Path = (options.logs or scratch / "logs").resolve()
    given = () if options.photographs is None else ("--photographs", options.photographs.resolve())
    try:
        head: dict[str, object] = machine.describe()
        if options.wheels is not None:
            head["wheels"] = unpack_wheels(options.wheels, scratch / "wheels")
        record = Record(options.json, head)
        logs.mkdir(parents=True, exist_ok=True)
    except DeviceError as error:
        sys.exit(f"gpu-check: {error}; what needs no GPU is tested by: make test")
    except (OSError, ValueError) as error:
        parser.error(f"{error}")
    session = Session(
        root=ROOT,
        files=FILES,
        scratch=scratch,
        logs=logs,
        options=tuple(map(str, given)),
        deadline=deadline,
    )
    found, no_checks = session.checks()
    if not found:
        sys.exit("gpu-check: pytest finds no checks; it needs: pip install pytest pytest-timeout")
    try:
        checks = chosen(found, options.only)
    except ValueError as error:
        parser.error(f"--only: {error}")
    with closing(session.results(checks)) as results:
        for result in chain(no_checks, results):
            record.add(result)
            report(result)
    counts = record.counts
    if checks == found and not counts["no-time"]:
        record.finish()
    print(
        f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped, "
        f"{counts['no-time']} for lack of time\nresults: {record.path}"
    )
    return 1 if counts["failed"] else 3 if counts["no-time"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="NAMES", default="*", help="the checks to run")
    parser.add_argument("--json", type=Path, metavar="FILE", default=RESULTS)
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep what the checks print")
    parser.add_argument("--limit-minutes", type=float, default=LIMIT_MINUTES)
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="folder of .whl files")
    parser.add_argument(
        "--photographs", type=Path, metavar="DIR", help="to compare on, in place of the samples"
    )
    return parser


if __name__ == "__main__":
    main()
