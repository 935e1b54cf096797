import os
import signal
from collections.abc import Iterator

import pytest

from training.stopping import Stopped, stop_after_step

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def received() -> Iterator[list[int]]:
    """Stand handlers in for those of before; return what they get."""
    numbers: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, lambda number, frame: numbers.append(number))
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


def _later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what comes next come more than a second after the first signal."""
    monkeypatch.setattr("training.stopping._ONE_WISH_S", -1.0)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
def test_the_first_signal_is_a_request_and_a_later_one_acts_as_before(
    number: signal.Signals,
    second: signal.Signals,
    received: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with stop_after_step() as stop:
        assert not stop.has_come
        stop.check()
        os.kill(os.getpid(), number)
        assert stop.has_come
        assert stop.signal_number == number
        with pytest.raises(Stopped):
            stop.check()
        assert received == []
        _later(monkeypatch)
        os.kill(os.getpid(), second)
        assert received == [second]
        for third in SIGNALS:
            os.kill(os.getpid(), third)
        assert received == [second, *SIGNALS]
    assert stop.signal_number == number


def test_signals_within_a_second_are_one_wish(received: list[int]) -> None:
    """`timeout` and a terminal that closes send several."""
    with stop_after_step() as stop:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            os.kill(os.getpid(), number)
        assert stop.signal_number == signal.SIGTERM
    assert received == []


def test_a_later_ctrl_c_interrupts(received: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with stop_after_step() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal_number == signal.SIGINT
        _later(monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("number", SIGNALS)
def test_handlers_are_back_when_the_block_ends(number: signal.Signals, received: list[int]) -> None:
    handler = signal.getsignal(number)
    with stop_after_step():
        assert signal.getsignal(number) != handler
    assert signal.getsignal(number) == handler
    with pytest.raises(ValueError, match="in the block"), stop_after_step():
        raise ValueError("in the block")
    assert signal.getsignal(number) == handler
    os.kill(os.getpid(), number)
    assert received == [number]


@pytest.mark.parametrize("number", SIGNALS)
def test_an_ignored_signal_stays_ignored(number: signal.Signals, received: list[int]) -> None:
    """A shell starts a job in the background deaf to the Ctrl-C of what runs in front."""
    signal.signal(number, signal.SIG_IGN)
    other = signal.SIGTERM if number == signal.SIGINT else signal.SIGINT
    with stop_after_step() as stop:
        os.kill(os.getpid(), number)
        assert stop.signal_number is None
        os.kill(os.getpid(), other)
        assert stop.signal_number == other
        assert signal.getsignal(number) == signal.SIG_IGN
    assert signal.getsignal(number) == signal.SIG_IGN
