"""An index of a public network holds its name, and never a path in the store."""

from pathlib import Path

import pytest

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.importing.known import known_networks
from alexnet_deploy.index.ledger import Ledger
from alexnet_deploy.index.model import ModelRequest
from tests.support.index_runner import LAYER, Runners, save, search, update

CAFFE = known_networks()["caffe"]


def recorded(index: Path) -> object:
    with Ledger.open(index) as ledger:
        return ledger.one("SELECT model FROM settings")[0]


def test_an_index_remembers_the_name_of_its_network(tmp_path: Path, runners: Runners) -> None:
    index, photograph = tmp_path / "index", save(tmp_path / "photos" / "a.bmp", (1, 2, 3))
    update(index, photograph.parent, request=ModelRequest(layer=LAYER, model=CAFFE))
    assert recorded(index) == b"caffe"
    runners.models.clear()
    list(search(index, [save(tmp_path / "query.bmp", (3, 2, 1))]))
    assert runners.models == [CAFFE]


def test_a_name_that_is_none_is_damage(tmp_path: Path, runners: Runners) -> None:
    index, photograph = tmp_path / "index", save(tmp_path / "photos" / "a.bmp", (1, 2, 3))
    update(index, photograph.parent)
    with Ledger.open(index) as ledger, ledger.transaction():
        ledger.execute("UPDATE settings SET model = ?", (b"cafe",))
    with pytest.raises(IncompatibleFileError, match="no absolute path and no public network"):
        list(search(index, [save(tmp_path / "query.bmp", (3, 2, 1))]))
