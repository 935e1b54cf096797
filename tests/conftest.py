"""What every test may count on: nothing of the user's, no telemetry, the test photographs."""

import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.gpu_marks import why_skipped

if TYPE_CHECKING:
    from tests.support.index_runner import Runners

# As the package does it, for tests that import a runtime before the package: no report of its use.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

# Of several workers none takes all cores: threads that wait for a core spin, and tests take twice
# the time. NumPy's and torch's libraries read this when they are loaded.
if "PYTEST_XDIST_WORKER" in os.environ:
    _num_cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    _share = max(1, _num_cores // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(_variable, str(_share))

_CALTECH_TEST = Path(__file__).resolve().parents[2] / "shared" / "data" / "caltech101" / "test"
_VARIABLES = (
    *("ALEXNET_MODEL", "ALEXNET_INDEX", "ALEXNET_MIRROR"),
    *("TORCH_HOME", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE"),
)

if importlib.util.find_spec("hypothesis"):  # the tests that a GPU's machine runs need it not
    from hypothesis import settings

    # A busy machine is no fault of what is tested.
    settings.register_profile("tests", deadline=None)
    settings.load_profile("tests")


_RUNTIMES = {"faiss", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx"}
_LOADED = pytest.StashKey[list[str]]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note what collecting has loaded."""
    session.config.stash[_LOADED] = sorted(_RUNTIMES & sys.modules.keys())


@pytest.fixture(scope="session")
def loaded_by_collecting(pytestconfig: pytest.Config) -> list[str]:
    """Runtimes that were loaded by collecting the tests."""
    return pytestconfig.stash[_LOADED]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose GPUs are not here."""
    mark = item.get_closest_marker("gpu")
    if mark is not None and (reason := why_skipped(*mark.args)):
        pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's files and choices out of the tests, and the tests out of the user's files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        for variable in _VARIABLES:
            patch.delenv(variable, raising=False)
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
def runners(monkeypatch: pytest.MonkeyPatch) -> "Runners":
    """Let indexes be made and searched with runners that see colours only, and count them."""
    from tests.support.index_runner import Runners

    runners = Runners()
    monkeypatch.setattr("alexnet_deploy.index.model.open_runner_of", runners.open)
    return runners
