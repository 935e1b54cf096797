"""A run of `embed` that was stopped is continued, and nobody else's rows are."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from alexnet_deploy.errors import IncompatibleFileError, NoPhotographsError, OutputError
from alexnet_deploy.inference.embeddings import EmbedOptions, embed
from alexnet_deploy.inference.partial_rows import open_partial_rows, stamp_of
from alexnet_deploy.inference.provenance import provenance_of
from alexnet_deploy.inference.run import PhotographResult, RunSummary
from alexnet_deploy.runtimes.base import RunnerOptions
from tests.support.fake_runner import FakeRunner
from tests.support.killed_embed import photograph

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_a_run_killed_at_any_operation_is_continued_to_the_same_files(
    tmp_path: Path, suffix: str
) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="needs the extra [parquet]")
    command = ["-m", "tests.support.killed_embed", str(tmp_path / "place"), suffix, "25", "0"]
    finished = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    trials = [json.loads(line) for line in finished.stdout.splitlines()]
    assert [trial for trial in trials if trial["problem"]] == []
    assert sum(trial["kept"] for trial in trials) > 40, "the kills came late enough"


class Stopped(Exception):
    """Raised by a caller."""


class Folder:
    """Six photographs, and runs over them that are stopped or not."""

    def __init__(self, place: Path) -> None:
        self.output = place / "v.npy"
        self.partial = place / ".v.npy.partial"
        self.photographs = [place / f"{number}.png" for number in range(6)]
        for number, path in enumerate(self.photographs):
            photograph(path, number)
        self.said: list[str] = []

    def run(self, stop_after: int = 99, *, precision: str = "fp32", dtype: str = "float32") -> int:
        """Return how many rows of an earlier run were used."""
        results: list[PhotographResult[Path]] = []

        def on_result(result: PhotographResult[Path]) -> None:
            results.append(result)
            if len(results) == stop_after:
                raise Stopped

        runner = FakeRunner(
            RunnerOptions(precision=precision, batch_size=1)  # type: ignore[arg-type]
        )
        options = EmbedOptions(dtype=dtype)  # type: ignore[arg-type]
        summary = RunSummary()
        self.said.clear()
        embed(
            runner,
            self.photographs,
            self.output,
            options,
            threads=1,
            summary=summary,
            on_result=on_result,
            notify=self.said.append,
        )
        assert (summary.num_done, len(results)) == (6, 6)
        assert np.load(self.output)[:, 0].tolist() == list(range(6))
        return sum(result.outputs is None for result in results)

    def stop(self) -> None:
        """Stop a run after four photographs."""
        with pytest.raises(Stopped):
            self.run(4)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_a_stopped_run_is_continued_and_told_of(folder: Folder) -> None:
    folder.stop()
    assert folder.run() == 4
    assert folder.said == [f"{folder.output}: continues where a run has stopped, 4 rows are there"]
    assert not folder.partial.exists()
    assert folder.run() == 0, "what is finished is not continued"


def test_rows_of_another_kind_are_told_of_and_removed(folder: Folder) -> None:
    folder.stop()
    assert folder.run(precision="fp16", dtype="float16") == 0
    assert folder.said == [
        f"{folder.output}: begins anew, since a run that has stopped had another dtype and "
        "precision; its rows are removed"
    ]


@pytest.mark.parametrize("name", ["0.rows", "journal.jsonl", "key.json"])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_damaged_rows_are_computed_again(folder: Folder, name: str, damage: str) -> None:
    folder.stop()
    path = folder.partial / name
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        middle = len(content) // 2
        path.write_bytes(
            content[:middle] + (b"" if damage == "cut" else b"?" + content[middle + 1 :])
        )
    assert folder.run() < 4


@pytest.mark.parametrize("slot", ["1e999", "1e9", "9" * 30, "-2", "[" * 10_000])
def test_a_damaged_line_costs_what_comes_after_it(folder: Folder, slot: str) -> None:
    folder.stop()
    journal = folder.partial / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"slot": 2', f'"slot": {slot}'))
    assert folder.run() == 2


def test_photographs_of_another_time_or_one_that_proves_nothing_are_computed_again(
    folder: Folder,
) -> None:
    folder.stop()
    os.utime(folder.photographs[1])
    os.utime(folder.photographs[2], (5, 5))
    assert folder.run() == 2
    assert stamp_of(folder.photographs[1]) is None
    assert stamp_of(b"a photograph in memory") is None


def test_paths_may_be_given_from_elsewhere(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.stop()
    monkeypatch.chdir(folder.output.parent)
    folder.photographs = [Path(path.name) for path in folder.photographs]
    assert folder.run() == 4
    lines = folder.output.with_suffix(".paths.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == [f"{n}.png" for n in range(6)]


def test_two_runs_for_one_output_are_one_too_many(folder: Folder) -> None:
    made = provenance_of(FakeRunner(RunnerOptions()), ("fc7",))
    with (
        open_partial_rows(folder.output, made),
        pytest.raises(OutputError, match=r"v\.npy: another process is writing it; wait"),
    ):
        folder.run()
    assert folder.run() == 0


def test_a_run_may_begin_while_another_removes_its_folder(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [folder.partial]
    mkdir = os.mkdir

    def removed_at_once(path: Path, mode: int) -> None:
        mkdir(path, mode)
        if made:
            os.rmdir(made.pop())

    monkeypatch.setattr(os, "mkdir", removed_at_once)
    assert folder.run() == 0
    assert not made


def test_a_mistake_does_not_cost_what_is_there(folder: Folder) -> None:
    folder.stop()
    with pytest.raises(NoPhotographsError):
        embed(FakeRunner(RunnerOptions()), [], folder.output)
    assert folder.run() == 4


@contextmanager
def somebody_elses(path: Path, kind: str) -> Iterator[None]:
    """Put something in the way that a stranger may have left."""
    victim = path.parent.parent / "victim"
    victim.write_bytes(b"precious")
    path.unlink()
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "hard link":
        os.link(victim, path)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    yield
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder"])
@pytest.mark.parametrize("name", ["0.rows", "journal.jsonl", "key.json", "lock"])
def test_what_is_none_of_ours_is_neither_read_nor_written(
    folder: Folder, name: str, kind: str
) -> None:
    folder.stop()
    with somebody_elses(folder.partial / name, kind):
        if name == "key.json" and kind == "hard link":  # it is only read, and is no key
            assert folder.run() == 0
        else:
            with pytest.raises(IncompatibleFileError):
                folder.run()


def test_a_folder_of_somebody_else_is_refused(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.partial.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(IncompatibleFileError, match="is not a folder of yours; remove it"):
        folder.run()
    folder.partial.rmdir()
    folder.partial.symlink_to(folder.output.parent)
    monkeypatch.undo()
    with pytest.raises(IncompatibleFileError, match="is not a folder of yours; remove it"):
        folder.run()
