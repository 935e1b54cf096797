"""tools/gpu_check.py without a GPU: what becomes of checks, with checks that are made up."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import gpu_check
import numpy as np
import pytest
import torch
from gpu_checks.record import Record, to_plain
from gpu_checks.session import ROOT

from tests.support.made_checks import OUTCOMES, SLOW, run, start
from tests.support.waiting import PATIENCE_S, wait_until

RESULTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "made-passes": ("passed", "", {"photographs": "pictures", "place": "model.engine"}),
    "made-fails": ("failed", "too slow", {"rate": 3.0}),
    "made-raises": ("failed", "ValueError: of its own", {}),
    "made-crashes": ("failed", "crashed: killed by SIGSEGV", {}),
    "made-skips-fp32": ("skipped", "not for this GPU", {"built": True}),
    "made-lacks": ("skipped", "needs nowhere, which is not installed here", {}),
    "made-ends": ("failed", "crashed: exit code 3 (test_made.py::test_ends the last word)", {}),
    "made-hangs": ("failed", "hung: not done after 2 s", {}),
    "made-is-another-process": ("passed", "", {}),
    "made-exit": ("failed", "crashed: killed by SIGKILL", {}),
}


def is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_what_becomes_of_each_check_is_recorded(tmp_path: Path) -> None:
    """And a file that lacks a package has no checks, which is no failure."""
    files = {"made": OUTCOMES, "other": "import nowhere_to_be_found"}
    pictures, logs = tmp_path / "pictures", tmp_path / "logs"
    pictures.mkdir()
    json_file = tmp_path / "new" / "results.json"
    options = ("--json", json_file, "--photographs", pictures, "--logs", logs)
    code, printed, said = run(tmp_path, files, *options, TMPDIR=str(tmp_path))
    assert code == 1
    written = json.loads(json_file.read_text("utf-8"))
    other, *checks = written["checks"]
    assert (other["name"], other["status"]) == ("other", "skipped")
    assert other["reason"] == "needs nowhere_to_be_found, which is not installed here"
    found = {
        check["name"]: (check["status"], check["reason"], check["figures"]) for check in checks
    }
    assert found == RESULTS
    assert list(found) == list(RESULTS)
    assert all(0 <= check["seconds"] < PATIENCE_S for check in checks)
    assert written["hardware"] == {"gpu": "NVIDIA Pretence"}
    assert written["complete"] is True
    assert written["summary"] == {"passed": 2, "failed": 6, "skipped": 3, "no-time": 0}
    lines = printed.splitlines()
    assert [line.split()[3] for line in lines[:-2]] == ["other", *RESULTS]
    assert lines[-2:] == [
        "2 passed, 6 failed, 3 skipped, 0 for lack of time",
        f"results: {json_file}",
    ]
    assert "said before" in said, "the log of what failed is shown"
    log = (logs / "made.log").read_text("utf-8")
    assert "Segmentation fault" in log
    assert "in test_hangs" in log, "where it hangs"


def test_what_was_found_stays_where_only_some_are_repeated(tmp_path: Path) -> None:
    files = {"made": OUTCOMES}
    json_file = tmp_path / "results.json"
    json_file.write_text("of an earlier run", "utf-8")
    code, printed, _ = run(tmp_path, files, "--json", json_file, "--only", "made-passes,*-fp32")
    assert code == 0
    assert [line.split()[3] for line in printed.splitlines()[:-2]] == [
        *("made-passes", "made-skips-fp32")
    ]
    assert json_file.read_text("utf-8") == "of an earlier run"
    assert f"results: {tmp_path / 'results.partial.json'}" in printed
    code, _, said = run(tmp_path, files, "--json", json_file, "--only", "made-passes,nothing")
    assert code == 2
    assert "--only: nothing is none of the checks: made-passes, made-fails" in said


STOPS = {signal.SIGTERM: 143, signal.SIGINT: 130}


@pytest.mark.parametrize("number", [*STOPS, signal.SIGKILL])
def test_stopped_it_leaves_what_was_done_and_no_process(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Killed, it cannot end what it has started; the results are there all the same."""
    files = {"made": SLOW}
    json_file, note, temporary = tmp_path / "results.json", tmp_path / "note", tmp_path / "tmp"
    json_file.write_text("of an earlier run", "utf-8")
    temporary.mkdir()
    stopped = start(tmp_path, files, "--json", json_file, NOTE=str(note), TMPDIR=str(temporary))
    try:
        wait_until(lambda: note.exists() and note.read_text("utf-8"))
        stopped.send_signal(number)
        _, said = stopped.communicate(timeout=PATIENCE_S)
    finally:
        stopped.kill()
        stopped.wait()
    grandchild = int(note.read_text("utf-8"))
    if number == signal.SIGKILL:
        os.killpg(os.getpgid(grandchild), signal.SIGKILL)
    else:
        assert stopped.returncode == STOPS[number]
        assert said == ("gpu-check: stopped by Ctrl-C\n" if number == signal.SIGINT else "")
        assert list(temporary.iterdir()) == []
    wait_until(lambda: not is_alive(grandchild))
    assert json_file.read_text("utf-8") == "of an earlier run"
    written = json.loads((tmp_path / "results.partial.json").read_text("utf-8"))
    assert [(each["name"], each["figures"]) for each in written["checks"]] == [
        ("made-passes", {"rate": 7.0})
    ]
    assert written["complete"] is False


def test_what_the_time_does_not_suffice_for_is_told(tmp_path: Path) -> None:
    """It is given time to begin; how long that takes depends on the machine."""
    files = {"made": SLOW}
    json_file, note = tmp_path / "results.json", tmp_path / "note"
    minutes = 0.05
    while not note.exists():
        minutes *= 2
        options = ("--json", json_file, "--limit-minutes", minutes)
        code, printed, _ = run(tmp_path, files, *options, NOTE=str(note))
    assert code == 3
    partial = tmp_path / "results.partial.json"
    checks = json.loads(partial.read_text("utf-8"))["checks"]
    assert [(each["status"], each["reason"]) for each in checks] == [
        ("passed", ""),
        ("no-time", "ended: the time was up"),
        ("no-time", "not begun: the time was up"),
    ]
    assert not json_file.exists()
    assert printed.splitlines()[-1] == f"results: {partial}"
    wait_until(lambda: not is_alive(int(note.read_text("utf-8"))))


def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path: Path) -> None:
    json_file = tmp_path / "results.json"
    finished = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "gpu_check.py"), "--json", str(json_file)],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 1
    assert "gpu-check: no NVIDIA GPU" in finished.stderr
    assert "make test" in finished.stderr
    assert not json_file.exists()


def test_a_record_that_cannot_be_written_is_told_before_anything_runs(tmp_path: Path) -> None:
    files = {"made": SLOW}
    (tmp_path / "file").touch()
    wrong = tmp_path / "file" / "results.json"  # in the place of a folder a file
    with pytest.raises(OSError, match="file"):
        Record(wrong, {})
    with pytest.raises(OSError, match="is a folder"):
        Record(tmp_path, {})
    note = tmp_path / "note"
    code, _, said = run(tmp_path, files, "--json", wrong, NOTE=str(note))
    assert (code, note.exists()) == (2, False)
    assert str(tmp_path / "file") in said
    assert run(tmp_path, files, "--photographs", tmp_path / "nowhere")[0] == 2


def test_each_test_that_needs_a_gpu_is_run_where_there_is_one() -> None:
    needed = {
        str(path.relative_to(ROOT))
        for folder in ("tests", "tools")
        for path in (ROOT / folder).rglob("test_*.py")
        if re.search(
            r"^ *(@|marks=|pytestmark = \[?)pytest\.mark\.gpu", path.read_text("utf-8"), re.M
        )
    }
    assert needed == set(gpu_check.FILES)


def test_figures_become_json_without_the_folders_of_this_machine(tmp_path: Path) -> None:
    value = {
        "rate": np.float32(1 / 3),
        "nan": float("nan"),
        "counts": (np.int64(3), torch.tensor(2.0), True, None),
        "reason": f"cannot open {tmp_path}/lib/libcudart.so.13; see https://example.org/a/b",
        "path": tmp_path / "model.engine",
        "share": "1/2 of a batch, images/s",
    }
    assert to_plain(value) == {
        "rate": 0.333333,
        "nan": "nan",
        "counts": [3, 2.0, True, None],
        "reason": "cannot open libcudart.so.13; see https://example.org/a/b",
        "path": "model.engine",
        "share": "1/2 of a batch, images/s",
    }


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
