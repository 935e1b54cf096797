import signal
import time
from collections.abc import Iterator

import pytest

from training.stopping import Stopped, stop_after_step

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


class Before(Exception):
    """What the handlers of before raise."""


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    def handle(number: int, frame: object) -> None:
        raise Before(number)

    old = {number: signal.signal(number, handle) for number in NUMBERS}
    yield
    for number, handler in old.items():
        signal.signal(number, handler)


def test_without_a_signal_nothing_stops() -> None:
    with stop_after_step() as stop:
        stop.check()
    assert not stop.has_come
    assert stop.signal_number is None


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_stops_at_the_next_place_and_not_before(number: signal.Signals) -> None:
    with stop_after_step() as stop:
        signal.raise_signal(number)
        assert stop.has_come
        assert stop.signal_number == number
        with pytest.raises(Stopped):
            stop.check()
    with pytest.raises(Before):
        signal.raise_signal(number)


def test_the_first_signal_says_what_will_happen(capfd: pytest.CaptureFixture[str]) -> None:
    with stop_after_step():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert capfd.readouterr().err.count("stopping after this step, with a checkpoint") == 1


def test_a_burst_of_signals_is_one_wish() -> None:
    """`timeout` sends its signal to the command, then to its group; a terminal does the like."""
    with stop_after_step() as stop:
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
            signal.raise_signal(number)
    assert stop.signal_number == signal.SIGHUP


def test_a_second_signal_acts_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr("training.stopping.time.monotonic", lambda: now)
    with stop_after_step() as stop:
        signal.raise_signal(signal.SIGINT)
        now += 0.9
        signal.raise_signal(signal.SIGINT)
        now += 0.2
        with pytest.raises(Before):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(Before):
            signal.raise_signal(signal.SIGTERM)
    assert stop.signal_number == signal.SIGINT


def test_a_signal_that_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    with stop_after_step() as stop:
        signal.raise_signal(signal.SIGHUP)
    assert not stop.has_come


def test_an_error_in_the_block_brings_the_handlers_back() -> None:
    with pytest.raises(ValueError, match="mine"), stop_after_step():
        raise ValueError("mine")
    with pytest.raises(Before):
        signal.raise_signal(signal.SIGTERM)
