"""What people read while the trainer works."""

import os
import pty
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from training.epoch_log import EpochRecord
from training.reporting import TerminalReporter, counting, epoch_line
from training.trainer import DivergedError

RECORD = EpochRecord(
    epoch=3,
    step=1200,
    learning_rate=0.0123456,
    train_loss=2.34567,
    train_top1=0.4,
    val_loss=2.1,
    val_top1=0.512,
    val_top5=0.789,
    val_mean_class_top1=0.5,
    images_per_second=1234.5,
    wall_s=100.0,
    num_skipped=1002,
    best=True,
)


def with_fields(**fields: object) -> EpochRecord:
    values = {name: getattr(RECORD, name) for name in EpochRecord.__annotations__}
    return EpochRecord(**values | fields)


def test_an_epoch_is_one_line() -> None:
    assert epoch_line(RECORD, 40) == (
        "epoch 3 of 40: loss 2.346, rate 0.012; validation loss 2.100, top-1 51.2%, top-5 78.9% "
        "(best); 1,234 images/s; 1,002 skipped; 1 h 02 min left"
    )


def test_what_there_is_not_is_left_out() -> None:
    record = with_fields(
        num_skipped=0,
        best=False,
        **dict.fromkeys(["val_loss", "val_top1", "val_top5", "val_mean_class_top1"]),
    )
    assert epoch_line(record, 3) == "epoch 3 of 3: loss 2.346, rate 0.012; 1,234 images/s"


@pytest.mark.parametrize(
    ("wall_s", "left"),
    [(0.2, "1 s left"), (2.9, "20 s left"), (60, "7 min left"), (3600, "7 h 00 min left")],
)
def test_the_time_left_is_rounded_as_people_do(wall_s: float, left: str) -> None:
    assert epoch_line(with_fields(wall_s=wall_s), 10).endswith(f"; {left}")


def test_a_photograph_is_told_of_once(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = TerminalReporter()
    for _ in range(2):
        with counting(reporter, "epoch", 2):
            reporter.failed(Path("a\x1b.jpg"), "cut short")
            reporter.failed(Path("b.jpg"), "empty")
            reporter.advance(2)
    reporter.say("done")
    lines = ["skipped: a\\x1b.jpg: cut short", "skipped: b.jpg: empty", "done"]
    assert capsys.readouterr().err.splitlines() == lines


@contextmanager
def terminal() -> Iterator[int]:
    """Put a terminal behind stderr; give the end that people look at."""
    shown, written = pty.openpty()
    stream = os.fdopen(written, "w", closefd=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", "100")
        yield shown
    for descriptor in (shown, written):
        with suppress(OSError):  # a test may have closed it
            os.close(descriptor)


def read_all(screen: int) -> str:
    sys.stderr.flush()
    os.set_blocking(screen, False)
    text = b""
    with suppress(BlockingIOError):
        while True:
            text += os.read(screen, 4096)
    return text.decode()


def test_a_terminal_shows_a_bar_and_gets_its_cursor_back() -> None:
    with terminal() as screen:
        reporter = TerminalReporter()
        with suppress(DivergedError), counting(reporter, "epoch 2 of 9", 8, done=4):
            reporter.advance(2)
            reporter.failed(Path("x.jpg"), "empty")
            reporter.advance(1)
            raise DivergedError
        reporter.say("after")
        shown = read_all(screen)
    assert "epoch 2 of 9" in shown
    assert "3 of 4 " in shown  # those of before the interruption are not counted
    assert "skipped: x.jpg: empty" in shown
    assert "1 failed" in shown
    assert shown.endswith("after\r\n")
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the bar's
def test_a_terminal_that_is_closed_ends_nothing() -> None:
    with terminal() as screen:
        reporter = TerminalReporter()
        reporter.say("before")
        with counting(reporter, "epoch 1 of 9", 8):
            os.close(screen)
            reporter.failed(Path("x.jpg"), "empty")
            reporter.advance(1)
        reporter.say("after")
        with pytest.raises(OSError, match="Input/output"):
            os.write(sys.stderr.fileno(), b"it is gone")
