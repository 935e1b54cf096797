"""What the trainer's tests share: a few small photographs, and a network of some kilobytes."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.training_sets import save_classes, small_network


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with small_network(monkeypatch):
        yield


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty photographs of three classes, to be left as they are."""
    return save_classes(tmp_path_factory.mktemp("classes") / "photographs")


@pytest.fixture
def own(photographs: Path, tmp_path: Path) -> Path:
    """A copy that may be spoiled."""
    return shutil.copytree(photographs, tmp_path / "photographs")
