"""Fixtures that put a `FakeTensorRt` in the place of TensorRT's builder."""

import importlib
from typing import Any

import pytest

from tests.support.trt_stub.dolls import maker
from tests.support.trt_stub.fake_builder import FakeTensorRt


@pytest.fixture
def fake(trt: Any, cuda: Any, monkeypatch: pytest.MonkeyPatch) -> FakeTensorRt:
    fake = FakeTensorRt(trt)
    monkeypatch.setattr(trt, "Builder", maker(trt.Builder, fake.builder))
    monkeypatch.setattr(trt, "OnnxParser", fake.new_parser)
    monkeypatch.setattr(trt, "Runtime", maker(trt.Runtime, fake.runtime))
    return fake


@pytest.fixture
def builder(fake: FakeTensorRt, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the module; it compiles no kernel, and keeps in `kernels` what it would compile."""
    module: Any = importlib.import_module("alexnet_deploy.trt.builder")
    module.kernels = []
    monkeypatch.setattr(
        module.plugin, "compile_ptx", lambda kernel, *_: module.kernels.append(kernel) or b"PTX"
    )
    return module
