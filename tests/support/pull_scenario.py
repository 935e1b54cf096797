"""A public network that is fetched from a local server; see fault_scenarios.py."""

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from alexnet_deploy.importing.known import known_networks
from alexnet_deploy.weights.pull import pull
from alexnet_deploy.weights.store import load_stored, stored_path
from tests.support.file_server import serving
from tests.support.known_tables import NAME, published, use_table


class PullScenario:
    """The server runs until the process ends."""

    def __init__(self) -> None:
        self._server = ExitStack()

    def prepare(self, place: Path) -> None:
        server = self._server.enter_context(serving(published()))
        use_table(pytest.MonkeyPatch(), place.parent, server.url)

    def run(self, place: Path) -> None:
        os.environ["XDG_DATA_HOME"] = str(place / "data")
        pull(known_networks()[NAME])

    def check(self, place: Path) -> None:
        path = stored_path(NAME)
        if path is not None:
            load_stored(NAME, path)

    def check_done(self, place: Path) -> None:
        self.check(place)
        assert os.listdir(place / "data" / "alexnet-deploy") == [f"{NAME}.safetensors"]
