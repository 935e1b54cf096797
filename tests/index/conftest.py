"""What tests of indexes share: a small folder, and the index of whatever folder a test has."""

from pathlib import Path

import pytest

from tests.support.index_runner import Runners, save, update


@pytest.fixture
def photos(tmp_path: Path, runners: Runners) -> Path:
    """Return a folder with `red.bmp` and `sub/green.bmp`, of which `tmp_path / "index"` is."""
    save(tmp_path / "photos" / "red.bmp", (200, 0, 0))
    save(tmp_path / "photos" / "sub" / "green.bmp", (0, 200, 0))
    update(tmp_path / "index", tmp_path / "photos")
    runners.num_opened = 0
    return tmp_path / "photos"


@pytest.fixture
def index(photos: Path) -> Path:
    return photos.with_name("index")
