"""`verify` of what lies on the disk: model files and engines, with and without a checkpoint."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter
import pytest

from alexnet_deploy.errors import DeviceError, IncompatibleFileError, UsageError
from alexnet_deploy.export.onnx import build_file
from alexnet_deploy.graph.model_file import write_model
from alexnet_deploy.model.checkpoints import Checkpoint, load_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.runtimes.base import RunnerOptions
from alexnet_deploy.runtimes.batch_profile import BatchProfile
from alexnet_deploy.runtimes.engine_file import write_engine
from alexnet_deploy.verification import engine as engine_verification
from alexnet_deploy.verification.file import verify_file
from tests.support.cpu_plans import CpuPlan, built

pytest_plugins = ["tests.support.trt_stub.fixtures"]

OUTPUTS = ("probabilities", "fc7")
ONE = varied_samples()[:1]
OPTIONS = RunnerOptions(batch_size=1)


@pytest.fixture(scope="module")
def bundled() -> Checkpoint:
    return load_checkpoint(bundled_checkpoint())


@pytest.fixture(scope="module")
def other(bundled: Checkpoint) -> Checkpoint:
    """The bundled checkpoint with its classes in the reverse order."""
    arrays = dict(bundled.arrays)
    arrays["fc8.bias"] = arrays["fc8.bias"][::-1].copy()
    return dataclasses.replace(bundled, arrays=arrays)


def engine(path: Path, checkpoint: Checkpoint) -> Path:
    file = build_file(checkpoint, OUTPUTS, "fp32")
    write_engine(built(file, BatchProfile(opt=4, max=4)), path)
    return path


@pytest.fixture
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_verification, "open_engine_file", CpuPlan)


def test_a_model_file_is_compared_with_its_own_weights(bundled: Checkpoint, tmp_path: Path) -> None:
    write_model(build_file(bundled, OUTPUTS, "fp32"), tmp_path / "m.onnx")
    seen: list[Path] = []
    report = verify_file(
        tmp_path / "m.onnx", None, ONE, OPTIONS, lambda path, error: seen.append(path)
    )
    assert report.passed
    assert report.against == bundled.identity
    assert "ONNX full check" in [check.name for check in report.checks]
    assert seen == [*ONE]


@pytest.mark.usefixtures("_on_the_cpu")
def test_an_engine_is_compared_with_its_checkpoint(bundled: Checkpoint, tmp_path: Path) -> None:
    seen: list[Path] = []
    path = engine(tmp_path / "m.engine", bundled)
    report = verify_file(path, bundled, ONE, OPTIONS, lambda path, error: seen.append(path))
    assert report.passed
    assert (report.against, report.num_photographs) == (bundled.identity, 1)
    assert seen == [*ONE]


@pytest.mark.usefixtures("_on_the_cpu")
def test_an_engine_of_the_bundled_checkpoint_need_not_be_told_so(
    bundled: Checkpoint, tmp_path: Path
) -> None:
    report = verify_file(engine(tmp_path / "m.engine", bundled), None, ONE, OPTIONS)
    assert report.passed
    assert report.against == bundled.identity


def test_an_engine_of_another_checkpoint_asks_for_it_by_its_identity(
    other: Checkpoint, tmp_path: Path
) -> None:
    path = engine(tmp_path / "m.engine", other)
    with pytest.raises(UsageError, match=rf"{other.identity[:16]}.*with checkpoint"):
        verify_file(path, None, ONE, OPTIONS)


def test_without_a_gpu_an_engine_cannot_be_verified(
    bundled: Checkpoint, tmp_path: Path, driver: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "gpus", [])
    with pytest.raises(DeviceError, match="no NVIDIA GPU"):
        verify_file(engine(tmp_path / "m.engine", bundled), None, ONE, OPTIONS)


@pytest.mark.parametrize("name", ["missing.engine", "missing.onnx"])
def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=rf"{name}: no such file"):
        verify_file(tmp_path / name, None, ONE, OPTIONS)


def test_a_checkpoint_is_to_be_exported_first() -> None:
    with pytest.raises(UsageError, match="is a checkpoint; export it first"):
        verify_file(bundled_checkpoint(), None, ONE, OPTIONS)


def rewritten(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rename tensors and drop the metadata of the graph, as optimizers do."""
    for node in model.graph.node:
        node.name = ""
    model.graph.doc_string = "made simple"
    model.producer_name = "another tool"
    return model


@pytest.fixture(scope="module")
def exported(bundled: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "m.onnx"
    write_model(build_file(bundled, OUTPUTS, "fp32"), path)
    return path


@pytest.mark.parametrize(
    "rewrite", [simplified, lambda model: onnx.version_converter.convert_version(model, 21)]
)
def test_a_file_that_another_tool_rewrote_is_judged_by_its_numbers(
    rewrite: Callable[[onnx.ModelProto], onnx.ModelProto],
    bundled: Checkpoint,
    other: Checkpoint,
    exported: Path,
    tmp_path: Path,
) -> None:
    path = rewritten(rewrite(onnx.load_model(exported)), tmp_path / "m.onnx")
    with pytest.raises(IncompatibleFileError, match=r"rewritten by another|was not written by"):
        verify_file(path, None, ONE, OPTIONS)
    report = verify_file(path, bundled, ONE, OPTIONS)
    assert report.passed
    assert report.checks[0].name == "rewritten by another tool"
    assert not verify_file(path, other, ONE, OPTIONS).passed


def test_a_rewritten_file_that_reads_another_by_a_sparse_array_is_not_run(
    bundled: Checkpoint, exported: Path, tmp_path: Path
) -> None:
    values = onnx.TensorProto(dims=[1], data_type=1, data_location=onnx.TensorProto.EXTERNAL)
    values.external_data.add(key="location", value="secret")
    attribute = onnx.AttributeProto(
        name="sparse_value",
        type=onnx.AttributeProto.SPARSE_TENSOR,
        sparse_tensor=onnx.SparseTensorProto(values=values, dims=[4096]),
    )
    model = onnx.load_model(exported)
    model.graph.node.append(onnx.NodeProto(op_type="Constant", attribute=[attribute], output=["x"]))
    with pytest.raises(IncompatibleFileError, match="a sparse array, in Constant, which is not"):
        verify_file(rewritten(model, tmp_path / "m.onnx"), bundled, ONE, OPTIONS)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((), np.float32), "gives another fc7"),
        (np.zeros(1, np.float32), "gives another fc7"),
        (np.zeros((1, 10), np.float32), "gives another fc7"),
        (np.zeros((1, 4096), np.float64), "gives another fc7"),
        (None, "cannot be run"),
    ],
    ids=["number", "one", "short", "double", "another input"],
)
def test_a_rewritten_file_has_to_give_the_layers_that_it_names(
    value: np.ndarray | None, message: str, bundled: Checkpoint, tmp_path: Path
) -> None:
    side, describe = bundled.spec.input_size, onnx.helper.make_tensor_value_info
    if value is None:
        kind: int = onnx.TensorProto.FLOAT
        given = describe("x", kind, ["N", 4096])
        node = onnx.helper.make_node("Identity", ["x"], ["fc7"])
    else:
        tensor = onnx.numpy_helper.from_array(value)
        kind = tensor.data_type
        given = describe("images", onnx.TensorProto.UINT8, ["N", side, side, 3])
        node = onnx.helper.make_node("Constant", [], ["fc7"], value=tensor)
    graph = onnx.helper.make_graph([node], "graph", [given], [describe("fc7", kind, None)])
    opsets = [onnx.helper.make_opsetid("", 20)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    with pytest.raises(IncompatibleFileError, match=message):
        verify_file(rewritten(model, tmp_path / "m.onnx"), bundled, ONE, OPTIONS)


def test_a_rewritten_file_with_a_loop_is_not_run(
    bundled: Checkpoint, exported: Path, tmp_path: Path
) -> None:
    model = onnx.load_model(exported)
    body = onnx.helper.make_graph([], "body", [], [])
    model.graph.node.append(onnx.helper.make_node("Loop", ["", ""], [], body=body))
    with pytest.raises(IncompatibleFileError, match="a loop or a branch, Loop, which is not run"):
        verify_file(rewritten(model, tmp_path / "m.onnx"), bundled, ONE, OPTIONS)
