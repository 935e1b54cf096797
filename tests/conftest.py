"""What every test may count on: no cache and no variable of the user, and the test photographs."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before any test imports a runtime itself: these switch off what it would report of its use.
import alexnet_deploy.runtimes.onnxruntime_runner
import alexnet_deploy.runtimes.openvino_runner  # noqa: F401
from tests.support.index_runner import Runners

_CALTECH_TEST = Path(__file__).resolve().parents[2] / "shared" / "data" / "caltech101" / "test"


@pytest.fixture(scope="session", autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's cache and default model out of the tests, and the tests out of the cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("ALEXNET_MODEL", raising=False)
        patch.delenv("ALEXNET_INDEX", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _usual_signals() -> None:
    """Take in signals again that a run in the background ignores, and what it starts would, too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def caltech_test() -> Path:
    """Folder of the 1,695 Caltech-101 test photographs, in one folder per class."""
    if not _CALTECH_TEST.is_dir():
        pytest.skip("the Caltech-101 photographs are not beside the checkout")
    return _CALTECH_TEST


@pytest.fixture
def runners(monkeypatch: pytest.MonkeyPatch) -> Runners:
    """Let indexes be made and searched with runners that see colours only, and count them."""
    runners = Runners()
    monkeypatch.setattr("alexnet_deploy.index.model.open_runner_of", runners.open)
    return runners
