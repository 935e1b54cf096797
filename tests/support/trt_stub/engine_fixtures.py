"""Fixtures that open an engine of each library over dolls of its classes and a `FakeCuda`."""

import dataclasses
from typing import Any

import pytest

from alexnet_deploy.runtimes.base import RunnerOptions
from alexnet_deploy.runtimes.factory import open_engine_file
from alexnet_deploy.runtimes.tensorrt_library import Library, load_library
from tests.support.trt_stub.dolls import maker
from tests.support.trt_stub.fake_runtime import FILE, OPTIONS, PORTABLE, FakeRuntime, Open


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def library(request: pytest.FixtureRequest) -> Library:
    if request.param == "tensorrt":
        request.getfixturevalue("trt")
    else:
        pytest.importorskip("tensorrt_rtx", reason="pip install 'alexnet-deploy[rtx]'")
    return load_library(request.param)


@pytest.fixture
def fake(library: Library, cuda: Any, monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    fake = FakeRuntime(library, cuda)
    monkeypatch.setattr(library.module, "Runtime", maker(library.module.Runtime, fake.runtime))
    return fake


@pytest.fixture
def open_runner(fake: FakeRuntime) -> Open:
    record = PORTABLE if fake.is_rtx else FILE.record
    record = dataclasses.replace(record, runtime_version=fake.library.version())

    def open_runner(options: RunnerOptions = OPTIONS, **changed: Any) -> Any:
        file = dataclasses.replace(FILE, record=dataclasses.replace(record, **changed))
        return open_engine_file(file, options)

    return open_runner
