"""Run every check that needs an NVIDIA GPU, with the packages of this machine, and report.

    python tools/gpu_check.py [--wheels DIR] [--photographs DIR] [--json FILE]
                              [--limit-minutes 9]

torch, CuPy, onnxruntime-gpu, faiss-gpu, nvImageCodec, TensorRT and TensorRT-RTX are used if
available; checks that need a missing one are skipped, with the reason. Packages may also be wheels
in a folder: they are unpacked, never installed. If a package is installed as well, checks of torch
(training-*, towers-*, kernel-bandwidth, copies) use the installed one, all others the wheel. The
results, tools/results/gpu-check.json, hold versions, date, hardware, and name, status, seconds,
reason and figures of each check. They are written after each check, as gpu-check.partial.json until
every check has had its turn. Each check runs in its own process with a time limit, so a crash or
hang affects only that check. Nothing is downloaded.

Exit codes: 0 nothing failed, 1 a check failed or there is no GPU, 2 wrong usage, 3 nothing failed
but the time ran out before every check had its turn; stopped: 129 by SIGHUP, 130 by Ctrl-C, 143 by
SIGTERM.
"""

import argparse
import dataclasses
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from gpu_checks.check import ROOT, Check, Result, Settings
from gpu_checks.process import log_tail, run_check
from gpu_checks.report import Record
from gpu_checks.surroundings import environment, unpack_wheels, unpacked_in

RESULTS = ROOT / "tools" / "results" / "gpu-check.json"
LIMIT_MINUTES = 9.0
"""Start and clean-up are extra; everything must finish within ten."""
PRECISIONS = ("fp32", "tf32", "bf16")
# Fastest first, in case time runs out.
ENGINES = (
    *(("fp16", "plugin"), ("fp32", "plugin"), ("int8", "plugin"), ("bf16", "plugin")),
    *(("fp16", "native"), ("fp32", "native"), ("int8", "native"), ("bf16", "native")),
)


def _check(name: str, function: str, limit_s: float, **arguments: str) -> Check:
    path = f"gpu_checks.{function}"
    return Check(name=name, function=path, limit_s=limit_s, arguments=arguments, wheels_first=True)


def _of_torch(name: str, function: str, limit_s: float, **arguments: str) -> Check:
    return dataclasses.replace(_check(name, function, limit_s, **arguments), wheels_first=False)


ENVIRONMENT = _check("environment", "environment:look", 60)
# Cheap and essential checks first.
CHECKS = (
    _check("kernel-numbers", "kernel_numbers:numbers", 60),
    _of_torch("kernel-bandwidth", "kernel_bandwidth:bandwidth", 120),
    _of_torch("towers-numbers", "towers:numbers", 120),
    _check("reference", "reference:compute", 180),
    _check("onnxruntime-parity-fp32", "onnxruntime_gpu:parity", 120, precision="fp32"),
    _check("onnxruntime-parity-fp16", "onnxruntime_gpu:parity", 120, precision="fp16"),
    _check("decoding", "decoding:compare", 60),
    _check("tests", "own_tests:run", 180),
    *(
        _of_torch(f"training-rate-{precision}", "training_rates:rate", 90, precision=precision)
        for precision in PRECISIONS
    ),
    _check("commands", "commands:classify_embed_index", 180),
    _check("onnxruntime-rates-fp32", "onnxruntime_gpu:rates", 120, precision="fp32"),
    _check("onnxruntime-rates-fp16", "onnxruntime_gpu:rates", 120, precision="fp16"),
    _check("search-command", "commands:search", 120),
    _check("faiss", "faiss_gpu:search", 90),
    _of_torch("training-resume", "towers:resume", 90),
    _of_torch("training-command", "training_command:train", 120),
    _of_torch("copies", "training_rates:copies", 60),
    _check("kernel-by-cudnn", "kernel_by_cudnn:times", 90),
    *(
        _check(f"tensorrt-{precision}-{lrn}", "engines:tensorrt", 300, precision=precision, lrn=lrn)
        for precision, lrn in ENGINES
    ),
    _check("rtx-fp32", "engines:rtx", 120, precision="fp32"),
    _check("rtx-fp16", "engines:rtx", 120, precision="fp16"),
)


def run_all(
    checks: Sequence[Check],
    settings: Settings,
    environment_of: Callable[[Check], Mapping[str, str]],
    record: Record,
    deadline: float,
) -> None:
    """Run checks one after the other; print and write each result immediately.

    Args:
        checks: in order.
        settings: for all of them.
        environment_of: variables of a check's process.
        record: where results are added.
        deadline: time.monotonic() after which the remaining checks have no time.
    """
    for check in checks:
        left_s = deadline - time.monotonic()
        result = run_check(check, settings, environment_of(check), left_s)
        record.add(result)
        report(check, result, settings)
    record.finish()


def report(check: Check, result: Result, settings: Settings) -> None:
    """Print a result as one line and, for a failed check, the end of its log on stderr."""
    line = f"{result.status:8}{result.seconds:7.1f} s  {result.name:26}{result.reason}"
    print(line.rstrip(), flush=True)
    if result.status == "failed":
        for each in log_tail(check, settings, 20):
            print(f"    {each}", file=sys.stderr, flush=True)


def main() -> NoReturn:
    """Run the command line; exits with one of the exit codes above."""
    # By default Python would exit at once, leaving the check's process and files behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as set by nohup
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        _main()
    except KeyboardInterrupt:
        print("gpu-check: stopped by Ctrl-C", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _main() -> NoReturn:
    parser = _parser()
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.limit_minutes
    if options.photographs is not None and not options.photographs.is_dir():
        parser.error(f"--photographs {options.photographs}: is not a folder")
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as name:
        scratch = Path(name).resolve()
        wheels: tuple[str, ...] = ()
        try:
            if options.wheels is not None:
                wheels = unpack_wheels(options.wheels, unpacked_in(scratch))
        except (OSError, ValueError) as error:
            parser.error(f"--wheels: {error}")
        photographs = None if options.photographs is None else options.photographs.resolve()
        settings = Settings(scratch=scratch, photographs=photographs)
        surroundings = {
            is_first: environment(scratch, wheels_first=is_first) for is_first in (True, False)
        }
        first = run_check(ENVIRONMENT, settings, surroundings[True], ENVIRONMENT.limit_s)
        if first.status != "passed":
            sys.exit(f"gpu-check: {first.reason}")
        try:
            record = Record(options.json, first, wheels)
        except OSError as error:
            parser.error(f"--json: {error}")
        report(ENVIRONMENT, first, settings)
        run_all(CHECKS, settings, lambda each: surroundings[each.wheels_first], record, deadline)
    counts = record.counts()
    print(
        f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped, "
        f"{counts['no-time']} for lack of time\nresults: {record.path}"
    )
    sys.exit(1 if counts["failed"] else 3 if counts["no-time"] else 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="folder of .whl files")
    parser.add_argument(
        "--photographs", type=Path, metavar="DIR", help="to compare on, in place of the samples"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", default=RESULTS)
    parser.add_argument("--limit-minutes", type=float, default=LIMIT_MINUTES)
    return parser


if __name__ == "__main__":
    main()
