"""Kill runs of `embed` at any operation of theirs, and run them again.

    python -m tests.support.killed_embed PLACE SUFFIX NUM_TRIALS SEED

Each trial forks a run that kills itself before one of its operations on files, or halfway through a
write. Then photographs change, vanish and come, and a run that is left alone must give the files
that it gives elsewhere, where no run was killed, and compute nothing again that it need not. A line
of JSON on standard output for each trial: the operation, the rows that the killed run had told,
those that were used again, and a problem or null.
"""

import json
import os
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.files import output_files
from alexnet_deploy.files.output_files import _File
from alexnet_deploy.inference import partial_rows
from alexnet_deploy.inference.embeddings import EmbedOptions, embed, files_of
from alexnet_deploy.inference.run import PhotographResult
from alexnet_deploy.runtimes.base import RunnerOptions
from tests.support.fake_runner import FakeRunner, save_photograph

OPTIONS = EmbedOptions(layers=("fc7", "conv5"), pool="max")
_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}
_NUM_PHOTOGRAPHS = 12


class Killer:
    """Counts operations, and kills the process at one of them.

    Args:
        place: below which operations count.
        number: of the operation at which to kill; -1 for none.
    """

    def __init__(self, place: Path, number: int) -> None:
        self._place = str(place)
        self._number = number
        self.count = 0
        pwrite, write = os.pwrite, _File.write

        def half_written(file: int, data: memoryview, offset: int) -> int:
            if self.count == self._number:
                pwrite(file, data[: len(data) // 2], offset)
            self.step()
            return pwrite(file, data, offset)

        def watched_write(file: _File, data: Any, /) -> int:
            self.step()
            return write(file, data)

        vars(os)["pwrite"] = half_written
        setattr(_File, "write", watched_write)  # noqa: B010
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _EVENTS:
            path = arguments[0]
            if isinstance(path, int) or os.fspath(path).startswith(self._place):
                self.step()

    def step(self) -> None:
        """Count one operation."""
        if self.count == self._number:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1


class CountingRunner(FakeRunner):
    """Every number depends on all three colours."""

    num_images = 0

    def run(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        """Return the outputs of one batch."""
        self.num_images += len(images)
        sums = images[:, 0, 0].astype(np.float32) @ np.array([1, 1 / 256, 256], np.float32)
        return {
            name: array + sums.reshape(-1, *(1,) * (array.ndim - 1))
            for name, array in super().run(images).items()
        }


def photograph(path: Path, number: int, *, is_broken: bool = False) -> None:
    """Save a photograph that was there yesterday."""
    if is_broken:
        path.write_bytes(b"")
    else:
        save_photograph(path, (number, 2 * number, 255 - number))
    os.utime(path, ns=(0, (10**9 + number) * 10**9))


def run(folder: Path, output: Path, told: int = -1) -> tuple[int, int]:
    """Embed what is in a folder; return how many rows were used again and computed.

    Args:
        folder: of the photographs.
        output: of the vectors.
        told: descriptor to which a byte is written for each row.
    """
    runner = CountingRunner(RunnerOptions(outputs=OPTIONS.layers, batch_size=2))
    num_kept = 0

    def on_result(result: PhotographResult[Path]) -> None:
        nonlocal num_kept
        num_kept += result.outputs is None and result.error is None
        if told >= 0 and result.error is None:
            os.write(told, b".")

    embed(runner, sorted(folder.iterdir()), output, OPTIONS, threads=1, on_result=on_result)
    return num_kept, runner.num_images


def killed_run(folder: Path, output: Path, number: int) -> tuple[int, int]:
    """Run in a process that is killed; return how many rows it had told, and its operations."""
    reading, writing = os.pipe()
    counting, counted = os.pipe()
    process = os.fork()
    if not process:
        killer = Killer(output.parent, number)
        run(folder, output, writing)
        os.write(counted, str(killer.count).encode())
        os._exit(0)
    os.close(writing)
    os.close(counted)
    with open(reading, "rb") as file, open(counting, "rb") as numbers:
        told, count = len(file.read()), int(numbers.read() or -1)
    os.waitpid(process, 0)
    return told, count


def change(folder: Path, rng: random.Random) -> int:
    """Let photographs change, vanish and come; return how many are no longer what they were."""
    kind = rng.choice(("nothing", "changed", "gone", "first", "last"))
    if kind == "changed":
        photograph(folder / "03.png", 99)
    elif kind == "gone":
        (folder / "00.png").unlink()
    elif kind in ("first", "last"):
        photograph(folder / f"{'00a' if kind == 'first' else '99'}.png", 77)
    return kind in ("changed", "gone")


def content(output: Path) -> dict[str, bytes]:
    """Return the files of an output but its record, whose date and command are its own."""
    files = files_of(output, OPTIONS.layers)
    return {path.name: path.read_bytes() for path in files if path.suffix != ".json"}


def columns(output: Path) -> Any:
    """Return all that is in a Parquet file but its record."""
    from pyarrow import parquet

    return parquet.read_table(output).replace_schema_metadata()


def trial(place: Path, suffix: str, number: int, rng: random.Random) -> dict[str, Any]:
    """Kill one run, and compare the next one's files with those of a run elsewhere."""
    folder, output = place / "photos", place / "out" / f"v{suffix}"
    shutil.rmtree(place, ignore_errors=True)
    folder.mkdir(parents=True)
    output.parent.mkdir()
    for each in range(_NUM_PHOTOGRAPHS):
        photograph(folder / f"{each:02}.png", each, is_broken=each == 5)
    told, count = killed_run(folder, output, number)
    if rng.random() < 0.5:
        told = max(told, killed_run(folder, output, rng.randrange(10, 60))[0])
    is_done = files_of(output, OPTIONS.layers)[0].exists()
    num_changed = change(folder, rng)
    output_files._cleared.clear()  # as in a process of its own
    num_kept, num_computed = run(folder, output)
    assert is_done or num_kept >= told - num_changed, "less is used again than was told"
    num_readable = len(list(folder.iterdir())) - 1
    assert num_kept + num_computed == num_readable, "some are computed again"
    elsewhere = place / "elsewhere" / output.name
    elsewhere.parent.mkdir()
    run(folder, elsewhere)
    read = columns if suffix == ".parquet" else content
    assert read(output) == read(elsewhere), "the files are others"
    assert set(os.listdir(output.parent)) == set(os.listdir(elsewhere.parent)), "litter"
    return {"operations": count, "told": told, "kept": num_kept}


def main() -> None:
    """Try as often as was asked."""
    place, suffix, num_trials, seed = sys.argv[1:]
    partial_rows.GROUP_BYTES = 50_000  # three rows
    rng = random.Random(int(seed))
    num_operations = trial(Path(place), suffix, -1, rng)["operations"]
    for number in sorted(rng.sample(range(num_operations), min(num_operations, int(num_trials)))):
        line: dict[str, Any] = {"number": number, "problem": None}
        try:
            line |= trial(Path(place), suffix, number, rng)
        except Exception:
            line["problem"] = traceback.format_exc()
        sys.stdout.write(f"{json.dumps(line)}\n")


if __name__ == "__main__":
    main()
