"""The command line as a process, with a fake runner: pipes, full disks, signals, terminals."""

import contextlib
import errno
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from alexnet_deploy.photographs.pixels import EXACT
from tests.support.fake_runner import save_photographs
from tests.support.waiting import PATIENCE_S

RUNS = f"fake runner; decoded by {EXACT}\n".encode()
"""What `classify` says first."""


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three photographs, the last under a difficult name, in `p/`, seen from the folder above."""
    monkeypatch.chdir(tmp_path)
    return save_photographs(Path("p"))


WITH_FAKE_RUNNER = f"""
import sys
sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
import alexnet_deploy.export.opening
from tests.support import fake_runner
alexnet_deploy.export.opening.open_runner_of = fake_runner.open_fake_runner
from alexnet_deploy.cli import main
main()
"""


def command_line(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", WITH_FAKE_RUNNER, *map(str, arguments)]


@pytest.mark.parametrize(
    "arguments", [["classify", "p"], ["classify", "p", "--csv", "-"], ["classify", "--help"], []]
)
def test_a_reader_that_goes_away_ends_the_command_quietly(
    photographs: Path, arguments: list[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    finished = subprocess.run(
        command_line(*(arguments or ["--help"])), stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert finished.returncode == 128 + signal.SIGPIPE
    assert finished.stderr in (b"", RUNS)


def test_csv_can_go_to_dev_stdout(photographs: Path) -> None:
    if not Path("/dev/stdout").exists():
        pytest.skip("this system has no /dev/stdout")
    command = command_line("classify", "p", "--csv", "/dev/stdout")
    with Path("log").open("wb") as log:
        subprocess.run(command, stdout=log, stderr=subprocess.PIPE, check=True)
    command[-1] = "-"
    to_stdout = subprocess.run(command, capture_output=True, check=True).stdout
    assert Path("log").read_bytes() == to_stdout
    assert sorted(os.listdir()) == ["log", "p"]


def test_a_stderr_that_nobody_reads_is_not_blamed_on_the_file(photographs: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = command_line("classify", "p", "--csv", "t.csv")
    finished = subprocess.run(command, stdout=subprocess.PIPE, stderr=writer, check=False)
    os.close(writer)
    assert finished.returncode == 128 + signal.SIGPIPE
    assert os.listdir() == ["p"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    "arguments", [["classify", "p"], ["classify", "p", "--json", "--csv", "t.csv"], ["--help"]]
)
def test_a_full_disk_behind_stdout_is_one_message(photographs: Path, arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        finished = subprocess.run(
            command_line(*arguments), stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert finished.returncode == 1
    message = finished.stderr.splitlines()[-1].decode()
    assert message.startswith("Error: ")
    assert os.strerror(errno.ENOSPC) in message
    assert b"Traceback" not in finished.stderr
    assert os.listdir() == ["p"]


def test_results_are_not_lost_silently_where_stdout_is_closed(photographs: Path) -> None:
    words = shlex.join(map(str, command_line("classify", "p")))
    finished = subprocess.run(f"{words} >&-", shell=True, stderr=subprocess.PIPE, check=False)
    assert finished.returncode == 1
    assert b"Error: standard output: is closed" in finished.stderr


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_a_disk_that_fills_up_leaves_nothing(photographs: Path, suffix: str) -> None:
    resource = pytest.importorskip("resource", reason="file size limits are POSIX")
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="needs the extra [parquet]")
    layers = ["--layer", "conv1"]  # a megabyte a photograph
    finished = subprocess.run(
        command_line("embed", "p", "-o", f"v{suffix}", *layers),
        capture_output=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )
    assert finished.returncode == 1
    message = finished.stderr.splitlines()[-1].decode()
    assert message.startswith("Error: v.")
    assert ": cannot be written (File too large); raise the limit of file sizes" in message
    assert b"Traceback" not in finished.stderr
    assert b"Exception ignored" not in finished.stderr
    assert os.listdir() == ["p"]


@pytest.mark.parametrize(
    ("number", "exit_code", "word"),
    [
        (signal.SIGINT, 130, b"interrupted\n"),
        (signal.SIGTERM, 143, b"terminated\n"),
        (signal.SIGHUP, 129, b"terminated\n"),
    ],
)
def test_a_signal_ends_the_run_and_leaves_nothing(
    photographs: Path, number: signal.Signals, exit_code: int, word: bytes
) -> None:
    # In short sleeps: a signal that comes right before a long one would wait until its end.
    slow = (
        "import sys, time\n"
        "def run(*_):\n"
        "    print('runs', file=sys.stderr, flush=True)\n"
        "    while True: time.sleep(0.1)\n"
        "fake_runner.FakeRunner.run = run\n"
    )
    setup, end = WITH_FAKE_RUNNER.rsplit("main()", 1)
    running = subprocess.Popen(
        [sys.executable, "-c", f"{setup}{slow}main(){end}", "classify", "p", "--csv", "t.csv"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert running.stderr is not None
    assert running.stderr.readline() == RUNS
    assert running.stderr.readline() == b"runs\n"
    running.send_signal(number)
    _, rest = running.communicate(timeout=PATIENCE_S)
    assert (running.returncode, rest) == (exit_code, word)
    assert os.listdir() == ["p"]


def test_a_damaged_tiff_is_one_line_on_stderr(photographs: Path) -> None:
    path = photographs / "t.tif"
    Image.effect_noise((64, 64), 90).save(path, compression="tiff_lzw")
    content = bytearray(path.read_bytes())
    content[1000:1100] = bytes(100)  # of which libtiff writes a line by itself
    path.write_bytes(content)
    command = command_line("classify", "p", "--max-failures", "1")
    finished = subprocess.run(command, capture_output=True, check=True)
    first, second, last = finished.stderr.decode().splitlines()
    assert first == RUNS.decode().rstrip()
    assert second.startswith("failed: p/t.tif: damaged or cut short (")
    assert last.startswith("3 done, 1 failed")


SLOW_IMPORT = "import time; print('imports', flush=True)\nwhile True: time.sleep(0.1)"


def importing(
    folder: Path, module: str, *, ignored: tuple[int, ...] = ()
) -> "subprocess.Popen[bytes]":
    """Start a program that has come as far as importing click, with some signals ignored."""
    (folder / "click.py").write_text(SLOW_IMPORT)
    root = Path(__file__).resolve().parents[2]
    running = subprocess.Popen(
        [sys.executable, "-m", module, "--help"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(root)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        preexec_fn=lambda: [signal.signal(number, signal.SIG_IGN) for number in ignored],
    )
    assert running.stdout is not None
    assert running.stdout.readline() == b"imports\n"
    return running


@pytest.mark.parametrize("module", ["alexnet_deploy", "training"])
@pytest.mark.parametrize(
    ("number", "exit_code", "word"),
    [(signal.SIGINT, 130, b"interrupted\n"), (signal.SIGTERM, 143, b"terminated\n")],
)
def test_a_signal_while_the_program_is_still_importing_is_no_traceback(
    tmp_path: Path, module: str, number: signal.Signals, exit_code: int, word: bytes
) -> None:
    running = importing(tmp_path, module)
    running.send_signal(number)
    _, rest = running.communicate(timeout=PATIENCE_S)
    assert (running.returncode, rest) == (exit_code, word)


def test_a_signal_that_nohup_or_a_shell_ignores_stays_ignored(tmp_path: Path) -> None:
    running = importing(tmp_path, "alexnet_deploy", ignored=(signal.SIGHUP, signal.SIGINT))
    running.send_signal(signal.SIGHUP)
    running.send_signal(signal.SIGINT)
    running.send_signal(signal.SIGTERM)
    _, rest = running.communicate(timeout=PATIENCE_S)
    assert (running.returncode, rest) == (143, b"terminated\n")


def on_a_terminal(*arguments: str) -> tuple[int, bytes]:
    """Run a command on a terminal of its own; return its exit code and what came there."""
    pty = pytest.importorskip("pty", reason="pseudo-terminals are POSIX")
    terminal, end = pty.openpty()
    running = subprocess.Popen(command_line(*arguments), stdout=end, stderr=end)
    os.close(end)
    screen = b""
    # Reading the terminal of a process that has ended is an error on Linux, not an end.
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 65536):
            screen += part
    os.close(terminal)
    return running.wait(), screen


def test_csv_on_a_terminal_cannot_command_it(photographs: Path) -> None:
    (photographs / "a.png").rename(photographs / "x\x1b]0;title\x07.png")
    exit_code, screen = on_a_terminal("classify", "p", "--csv", "-")
    assert exit_code == 0
    assert b"\x1b]0;" not in screen
    assert rb"p/x\x1b]0;title\x07.png,1," in screen


def test_a_progress_bar_leaves_the_lines_on_its_terminal_whole(photographs: Path) -> None:
    (photographs / "c.png").write_bytes(b"")
    exit_code, screen = on_a_terminal("classify", "p")
    assert exit_code == 3
    plain = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", screen).decode()
    lines = [line.strip() for line in re.split(r"[\r\n]+", plain)]
    for expected in ("50.0%  red        p/a.png", "75.0%  blue       p/b.png"):
        assert any(line.endswith(expected) for line in lines)
    assert any("failed: p/c.png: is empty" in line for line in lines)
    assert any(re.search(r"\d of 4  \d+/s", line) for line in lines)
    assert any(line.startswith("3 done, 1 failed in ") for line in lines)
