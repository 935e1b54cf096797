"""Hand damaged and forged files to the package, and see that it reads or refuses them.

    python tools/fuzz.py --minutes 10 --seed 1 -o DIR
    python tools/fuzz.py --seed 1 -o DIR --attempt rows:1234

Photographs in all formats, files of other programs, checkpoints, .onnx files, engines, coders, and
indexes with another manifest, ledger (by bytes and by rows), journal, vectors or compressed
vectors. Each is read in a process of its own, with a limit of time and of memory, in a folder from
which nothing may be touched (`fuzzing.cage`). A result and an error of the package's are as it
should be. Anything else is a finding: its input is kept in DIR, with what came of it. An attempt is
made by the seed, its kind and its number alone, so `--attempt` repeats it.

Exit codes: 0 no finding, 1 findings, 2 wrong usage.
"""

import argparse
import itertools
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzzing.cage import FINE, Cage, Outcome, Verdict
from fuzzing.foreign import foreign_kinds
from fuzzing.images import image_kind
from fuzzing.indexes import index_kinds
from fuzzing.kinds import Kind
from fuzzing.models import model_kinds

SHARES = {
    "image": 8,
    "torch": 4,
    "caffe": 4,
    "onnx": 2,
    "directory": 4,
    ".safetensors": 2,
    ".pt": 2,
    ".onnx": 2,
    ".engine": 2,
    "rows": 2,
    "compressed": 2,
}
"""How many of a kind come in turn, if not one."""
MAX_KEPT = 100
"""Findings of one kind that are kept; the rest is counted."""


@dataclass(slots=True)
class Account:
    """What was tried.

    Attributes:
        verdicts: how often each kind had each outcome.
        slowest_s: of each kind.
        findings: how many were kept, by kind.
    """

    verdicts: Counter[tuple[str, Verdict]] = field(default_factory=Counter)
    slowest_s: dict[str, float] = field(default_factory=dict)
    findings: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, outcome: Outcome) -> None:
        """Count an attempt."""
        self.verdicts[kind, outcome.verdict] += 1
        self.slowest_s[kind] = max(self.slowest_s.get(kind, 0.0), outcome.seconds)

    def num_findings(self) -> int:
        """Count what is neither a result nor a refusal."""
        return sum(count for (_, verdict), count in self.verdicts.items() if verdict not in FINE)

    def table(self) -> str:
        """Return a row for each kind, and one for all."""
        verdicts: Sequence[Verdict] = get_args(Verdict)
        heads = ["kind", "attempts", *verdicts, "slowest s"]
        kinds = list(dict.fromkeys(kind for kind, _ in self.verdicts))
        rows = [[kind, *self._counts([kind])] for kind in sorted(kinds)]
        rows.append(["all", *self._counts(kinds)])
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in [heads, *rows]
        ]
        return "\n".join(lines)

    def _counts(self, kinds: Sequence[str]) -> list[str]:
        counts = [
            sum(self.verdicts[kind, verdict] for kind in kinds) for verdict in get_args(Verdict)
        ]
        slowest = max((self.slowest_s[kind] for kind in kinds), default=0.0)
        return [f"{count:,}" for count in (sum(counts), *counts)] + [f"{slowest:.1f}"]


def fuzz(
    kinds: Iterable[Kind],
    attempts: Iterable[tuple[str, int]],
    *,
    seed: int,
    place: Path,
    kept: Path,
    account: Account,
) -> None:
    """Make the attempts, and keep what is found.

    Args:
        kinds: of input.
        attempts: kind and number of each.
        seed: of all of them.
        place: an empty folder to work in.
        kept: a folder for findings, one sub-folder for each.
        account: counted up.
    """
    by_name = {kind.name: kind for kind in kinds}
    for name, number in attempts:
        cage = _new_cage(place / "cage")
        by_name[name].write(cage.inside, random.Random(f"{seed} {name} {number}"))
        saved = place / "input"
        shutil.rmtree(saved, ignore_errors=True)
        _copy(cage.inside, saved)
        outcome = cage.run(by_name[name].read)
        account.add(name, outcome)
        if outcome.verdict in FINE:
            continue
        account.findings[name] += 1
        print(f"{name}:{number}: {outcome.verdict}: {outcome.text[-300:]}", file=sys.stderr)
        if account.findings[name] <= MAX_KEPT:
            _keep(
                kept / f"{name.removeprefix('.')}-{number}",
                saved,
                outcome,
                f"{name}:{number}",
                seed,
            )


def _new_cage(place: Path) -> Cage:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    return Cage(place)


def _keep(folder: Path, saved: Path, outcome: Outcome, attempt: str, seed: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _copy(saved, folder)
    finding = {"seed": seed, "attempt": attempt, "verdict": outcome.verdict, "text": outcome.text}
    (folder / "finding.json").write_text(json.dumps(finding, indent=1) + "\n", "utf-8")


def _copy(source: Path, target: Path) -> None:
    """Copy a folder as it is: links and pipes as such, holes as holes, which `shutil` fills."""
    subprocess.run(["cp", "-a", source, target], check=True)


def in_turn(kinds: Sequence[Kind], is_over: Callable[[], bool]) -> Iterator[tuple[str, int]]:
    """Yield attempts, kind by kind, as often in turn as `SHARES` says."""
    for turn in itertools.count():
        for kind in kinds:
            share = SHARES.get(kind.name, 1)
            for number in range(share * turn, share * (turn + 1)):
                if is_over():
                    return
                yield kind.name, number


def main() -> int:
    """Fuzz, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--attempts", type=int, help="in all, in place of a time")
    parser.add_argument("--attempt", metavar="KIND:NUMBER", help="this one alone")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for findings")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    account = Account()
    with tempfile.TemporaryDirectory(prefix="alexnet-deploy-fuzz-") as name:
        place = Path(name).resolve()
        (place / "models").mkdir()
        (place / "indexes").mkdir()
        kinds = [image_kind(), *foreign_kinds(), *model_kinds(place / "models")]
        kinds += index_kinds(place / "indexes")
        attempts: Iterable[tuple[str, int]]
        if arguments.attempt is not None:
            kind, _, number = arguments.attempt.rpartition(":")
            if kind not in {each.name for each in kinds} or not number.isdecimal():
                parser.error(f"--attempt: of {', '.join(each.name for each in kinds)}")
            attempts = [(kind, int(number))]
        elif arguments.attempts is not None:
            attempts = itertools.islice(in_turn(kinds, lambda: False), arguments.attempts)
        else:
            end = time.monotonic() + 60 * arguments.minutes
            attempts = in_turn(kinds, lambda: time.monotonic() >= end)
        fuzz(
            kinds,
            attempts,
            seed=arguments.seed,
            place=place,
            kept=arguments.output,
            account=account,
        )
    print(account.table())
    return 1 if account.num_findings() else 0


if __name__ == "__main__":
    sys.exit(main())
