"""Pytest's tests as checks of a GPU: what they share, and what tools/gpu_check.py hears of them.

    python -m pytest -p gpu_checks.plugin tools/gpu_checks/test_kernel.py

A check fills the dictionary of the fixture `figures`, which `record_property` keeps.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alexnet_deploy.photographs.samples import sample_paths
from gpu_checks.record import Figures, to_plain
from tests.support.gpu_marks import why_skipped

OWN = ("alexnet_deploy", "gpu_checks", "tests", "training")
"""Packages that come with the checkout: without one, the checkout is at fault."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that tools/gpu_check.py sets."""
    group = parser.getgroup("gpu-check")
    group.addoption("--photographs", type=Path, help="folder to compare on; default: the samples")
    group.addoption("--events", type=int, help="file descriptor for what happens, as lines of JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Tell what happens, if someone listens."""
    if config.getoption("events") is not None:
        config.pluginmanager.register(Events(config.getoption("events")))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a check that lacks its library or its GPUs."""
    mark = item.get_closest_marker("gpu")
    if mark is not None and (reason := why_skipped(*mark.args)):
        pytest.skip(reason)


@pytest.fixture
def figures(record_property: Any) -> Iterator[Figures]:
    """Return a dictionary for what a check measures, kept as far as it got."""
    found: Figures = {}
    yield found
    for name, value in found.items():
        record_property(name, value)


@pytest.fixture
def _in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def photographs(pytestconfig: pytest.Config) -> Path:
    """Return the folder to compare on."""
    given: Path | None = pytestconfig.getoption("photographs")
    return given or sample_paths()[0].parents[1]


def name_of(nodeid: str) -> str:
    """Return a check's name: kernel-numbers, onnxruntime-parity-fp32."""
    file, _, test = nodeid.partition("::")
    words = f"{Path(file).stem.removeprefix('test_')} {test.removeprefix('test_')}"
    return "-".join(re.findall(r"[a-z0-9]+", words.lower()))


class Events:
    """Writes a line of JSON for each check that is found, begins, or ends."""

    def __init__(self, descriptor: int) -> None:
        self._file = open(descriptor, "w", encoding="utf-8")  # noqa: SIM115, as long as the process
        self._result: dict[str, Any] = {}

    def _tell(self, **event: Any) -> None:
        print(json.dumps(event), file=self._file, flush=True)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Tell why a file has no checks, as the result of one of its name."""
        if not report.passed:
            status, reason = str(report.outcome), _reason(report)
            lacks = re.search(r"No module named '(\w+)", reason)
            if lacks is not None and lacks[1] not in OWN:
                status, reason = "skipped", f"needs {lacks[1]}, which is not installed here"
            self._tell(ends={"name": name_of(report.nodeid), "status": status, "reason": reason})

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Tell names and node ids."""
        found = {name_of(item.nodeid): item.nodeid for item in session.items}
        assert len(found) == len(session.items), "two checks have one name"
        self._tell(found=found)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Tell which begins."""
        self._result = {"status": "passed", "seconds": 0.0, "reason": ""}
        self._tell(begins=name_of(nodeid))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Tell the result once all parts are over: set-up, check, tear-down."""
        self._result["seconds"] += report.duration
        if not report.passed and self._result["status"] == "passed":
            self._result |= {"status": report.outcome, "reason": _reason(report)}
        if report.when == "teardown":
            figures = to_plain(dict(report.user_properties))
            self._tell(ends={"name": name_of(report.nodeid), **self._result, "figures": figures})

    def pytest_unconfigure(self) -> None:
        """Tell that nothing follows."""
        self._file.close()


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return why a test is skipped, else what it raised, of several lines the first."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is None:
        return str(to_plain(str(report.longrepr).splitlines()[-1].removeprefix("E ").strip()))
    return str(to_plain(crash.message.splitlines()[0].removeprefix("AssertionError: ")))
