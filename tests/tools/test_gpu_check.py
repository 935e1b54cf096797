"""tools/gpu_check.py without a GPU: what runs the checks, with checks that are made up."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from gpu_checks import process
from gpu_checks.check import ROOT, Result
from gpu_checks.report import Record
from gpu_checks.surroundings import environment

from tests.support.pretended_checks import fake, pretend, run, run_main
from tests.support.waiting import PATIENCE_S, wait_until


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return pretend(tmp_path, monkeypatch)


OUTCOMES: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "passes": ("passed", "", {"has_scratch": True, "photographs": None}),
    "fails": ("failed", "too slow", {"rate": 3.0}),
    "raises": ("failed", "ValueError: of its own", {}),
    "skips": ("skipped", "not for this GPU", {"built": True}),
    "lacks": ("failed", "No module named 'cupy_that_is_not_there'", {}),
    "lacks_an_optional_package": ("skipped", "needs cupy, which is not installed here", {}),
    "lacks_what_an_extra_brings": ("skipped", "pip install 'alexnet-deploy[tensorrt]'", {}),
    "is_broken": ("failed", "building an engine needs the package tensorrt", {}),
    "crashes": ("failed", "crashed: killed by SIGSEGV", {}),
    "ends": ("failed", "crashed: exit code 3 (the last word)", {}),
    "crashes_at_its_end": ("failed", "crashed: killed by SIGKILL", {"rate": 7.0}),
}


@pytest.mark.parametrize("function", OUTCOMES)
def test_what_becomes_of_a_check_is_told(fakes: Path, function: str) -> None:
    result = run(fake(function), fakes)
    status, reason, figures = OUTCOMES[function]
    assert (result.name, result.status, result.figures) == (function, status, figures)
    assert reason in result.reason
    assert 0 < result.seconds < 60


def test_a_check_is_given_its_arguments_and_the_photographs(fakes: Path) -> None:
    result = run(fake("passes", precision="fp16"), fakes, photographs=Path("photos"))
    assert result.figures == {"has_scratch": True, "photographs": "photos", "precision": "fp16"}


def is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_a_check_that_hangs_is_ended_with_the_processes_that_it_started(fakes: Path) -> None:
    """It is given the time to get that far; how long that takes depends on the machine."""
    limit_s = 1.0
    note = fakes / "scratch" / "grandchild"
    while not note.exists():
        shutil.rmtree(fakes / "scratch", ignore_errors=True)
        limit_s *= 2
        result = run(fake("hangs", limit_s=limit_s), fakes)
    assert (result.status, result.reason) == ("failed", f"hung: not done after {limit_s:.0f} s")
    assert limit_s <= result.seconds < limit_s + PATIENCE_S
    grandchild = int(note.read_text("utf-8"))
    wait_until(lambda: not is_alive(grandchild))


def logged(fakes: Path, sleep_s: float) -> str:
    """Run a check that sleeps for longer than its process waits with its traceback."""
    task = {
        "function": "fakes:sleeps",
        "arguments": {"seconds": 2 * sleep_s},
        "settings": {"scratch": str(fakes), "photographs": None},
        "limit_s": sleep_s + 2,
        "answer": str(fakes / "answer.json"),
    }
    finished = subprocess.run(
        [sys.executable, "-m", "gpu_checks.child", json.dumps(task)],
        env=environment(fakes, wheels_first=True),
        capture_output=True,
        text=True,
        check=True,
    )
    return finished.stderr


def test_where_a_check_hangs_is_in_its_log_before_it_is_ended(fakes: Path) -> None:
    # On a busy machine it may take a while to get there.
    assert any("in sleeps" in logged(fakes, sleep_s) for sleep_s in (0.5, 2, 8, 32))


def test_what_the_time_does_not_suffice_for_is_told(
    fakes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = run(fake("passes"), fakes, left_s=1)
    assert (late.status, late.reason) == ("no-time", "not begun: the time was up")
    monkeypatch.setattr(process, "_ENOUGH_S", 0.5)
    ended = run(fake("hangs"), fakes, left_s=1)
    assert (ended.status, ended.reason) == ("no-time", "ended: the time was up")


def test_the_file_of_results_is_written_after_each_check(
    fakes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fakes / "new" / "results.json"
    partial = path.with_name("results.partial.json")
    checks = [fake("raises"), fake("skips"), fake("reads", path=str(partial)), fake("crashes")]
    assert run_main(monkeypatch, checks, "--json", path) == 1
    written = json.loads(path.read_text("utf-8"))
    names = ["look", "raises", "skips", "reads", "crashes"]
    assert [each["name"] for each in written["checks"]] == names
    assert written["hardware"] == {"gpu": "NVIDIA Pretence"}
    assert written["versions"] == {"python": "3"}
    assert written["complete"] is True
    assert written["summary"] == {"passed": 2, "failed": 2, "skipped": 1, "no-time": 0}
    assert not partial.exists()
    assert written["checks"][3]["figures"] == {"seen": names[:3], "complete": False}
    assert set(written["checks"][1]) == {"name", "status", "seconds", "reason", "figures"}
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line.split()[0] for line in lines[:-2]] == [
        *("passed", "failed", "skipped", "passed", "failed")
    ]
    assert lines[-2:] == [
        "2 passed, 2 failed, 1 skipped, 0 for lack of time",
        f"results: {path}",
    ]
    assert "not for this GPU" in printed.out
    assert "said before" in printed.err, "the log of what failed is shown"


def test_nothing_failed_is_success_though_something_was_skipped(
    fakes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fakes / "results.json"
    assert run_main(monkeypatch, [fake("passes"), fake("skips")], "--json", path) == 0


def test_time_that_ran_out_is_no_success_and_earlier_results_stay(
    fakes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fakes / "results.json"
    path.write_text("of an earlier run", "utf-8")
    checks = [fake("passes"), fake("skips")]
    assert run_main(monkeypatch, checks, "--json", path, "--limit-minutes", 0.01) == 3
    assert path.read_text("utf-8") == "of an earlier run"
    partial = path.with_name("results.partial.json")
    written = json.loads(partial.read_text("utf-8"))
    assert written["complete"] is False
    assert written["summary"] == {"passed": 1, "failed": 0, "skipped": 0, "no-time": 2}
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "1 passed, 0 failed, 0 skipped, 2 for lack of time",
        f"results: {partial}",
    ]


STOPS = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}


@pytest.mark.parametrize("number", STOPS)
def test_stopped_it_leaves_what_was_done_and_no_process(
    fakes: Path, number: signal.Signals
) -> None:
    path = fakes / "results.json"
    path.write_text("of an earlier run", "utf-8")
    program = (
        "import gpu_check\n"
        "from gpu_checks.check import Check\n"
        "make = lambda name: Check(name=name, function=f'fakes:{name}', limit_s=60)\n"
        "gpu_check.ENVIRONMENT, gpu_check.CHECKS = make('look'), (make('passes'), make('hangs'))\n"
        "gpu_check.main()\n"
    )
    temporary = fakes / "temporary"
    temporary.mkdir()
    killed = subprocess.Popen(
        [sys.executable, "-c", program, "--json", str(path)],
        env=environment(fakes, wheels_first=True) | {"TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: list(temporary.glob("*/grandchild")))
        (note,) = temporary.glob("*/grandchild")
        wait_until(note.read_text)
        grandchild = int(note.read_text("utf-8"))
        killed.send_signal(number)
        _, said = killed.communicate(timeout=PATIENCE_S)
        assert killed.returncode == STOPS[number]
    finally:
        killed.kill()
        killed.wait()
    assert said == ("gpu-check: stopped by Ctrl-C\n" if number == signal.SIGINT else "")
    assert path.read_text("utf-8") == "of an earlier run"
    written = json.loads(path.with_name("results.partial.json").read_text("utf-8"))
    assert [each["name"] for each in written["checks"]] == ["look", "passes"]
    assert written["complete"] is False
    wait_until(lambda: not is_alive(grandchild))
    assert list(temporary.iterdir()) == []


def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    finished = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "gpu_check.py"), "--json", str(path)],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 1
    assert "gpu-check: no NVIDIA GPU" in finished.stderr
    assert "make test" in finished.stderr
    assert not path.exists()


def test_a_folder_that_is_not_there_is_wrong_usage(
    fakes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_main(monkeypatch, [], "--photographs", fakes / "nowhere") == 2


def test_a_record_that_cannot_be_written_is_told_before_anything_runs(
    fakes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fakes / "file").touch()
    path = fakes / "file" / "results.json"
    for wrong in (path, fakes):  # in the place of a folder a file, and of a file a folder
        with pytest.raises(OSError, match=r"file|is a folder"):
            Record(wrong, Result(name="look", status="passed"), ())
        assert run_main(monkeypatch, [fake("hangs")], "--json", wrong) == 2


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_says_of_an_old_python_what_is_needed_and_needs_no_more_of_a_new_one(
    tmp_path: Path,
) -> None:
    """A Python without venv, which makes no environments, can still look at the GPU."""
    python = tmp_path / "python"
    for script, expected in (
        ("exit 1", "Python 3.11 or later is needed"),
        ('case "$*" in *ensurepip*) exit 1;; esac; echo "ran $*"', "ran tools/gpu_check.py"),
    ):
        python.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        python.chmod(0o755)
        made = subprocess.run(
            ["make", "-C", str(ROOT), "gpu-check", f"PYTHON={python}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert expected in made.stdout + made.stderr
