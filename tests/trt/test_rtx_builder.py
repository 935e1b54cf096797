"""TensorRT-RTX, with its real parser and builder: what can be seen of an engine without a GPU.

Its numbers cannot: an engine runs on an NVIDIA GPU only.
"""

import dataclasses
import importlib
import re
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import onnx
import pytest

from alexnet_deploy.errors import DeviceError, IncompatibleFileError, UsageError
from alexnet_deploy.graph.build import build_model
from alexnet_deploy.graph.casting import cast_model
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.model.checkpoints import load_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.model.spec import PRESET_NAMES
from alexnet_deploy.runtimes.batch_profile import BatchProfile
from alexnet_deploy.runtimes.engine_file import RTX_OWN_CHOICE
from alexnet_deploy.runtimes.rtx_plan import check_plan
from alexnet_deploy.runtimes.tensorrt_library import load_library
from tests.support.networks import random_checkpoint
from tests.support.waiting import PATIENCE_S

if TYPE_CHECKING:
    from alexnet_deploy.trt.rtx_builder import NetworkDescription

OUTPUTS = ("probabilities", "fc7")
ADA = ("8.9",)


@pytest.fixture(scope="module")
def builder() -> Any:
    """Return TensorRT-RTX's builder."""
    pytest.importorskip("tensorrt_rtx", reason="pip install 'alexnet-deploy[rtx]'")
    return importlib.import_module("alexnet_deploy.trt.rtx_builder")


def model(preset: str = "paper", outputs: tuple[str, ...] = OUTPUTS) -> ModelFile:
    return build_model(random_checkpoint(preset), outputs)


def with_changed_node(name: str, **changed: Any) -> ModelFile:
    """Return the model with an attribute, or `op_type`, of one node changed."""
    file = model()
    (node,) = (node for node in file.graph.graph.node if node.name == name)
    node.op_type = changed.pop("op_type", node.op_type)
    kept = [each for each in node.attribute if each.name not in changed]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(onnx.helper.make_attribute(*item) for item in changed.items())
    return file


@pytest.fixture(scope="module")
def plan(builder: Any) -> bytes:
    """An engine of the bundled checkpoint."""
    checkpoint = load_checkpoint(bundled_checkpoint())
    file = build_model(checkpoint, OUTPUTS)
    return bytes(builder.build_rtx_plan(file, BatchProfile(max=64), ADA))


def kinds(network: "NetworkDescription") -> list[str]:
    return [layer.type for layer in network.layers]


def test_the_network_takes_uint8_pixels_and_gives_float32(builder: Any) -> None:
    network = builder.describe_network(model(), BatchProfile(min=2, opt=8, max=64))
    (images,) = network.inputs
    assert (images.name, images.dtype, images.shape) == ("images", "UINT8", (-1, 224, 224, 3))
    assert [(each.name, each.dtype, each.shape) for each in network.outputs] == [
        ("probabilities", "FLOAT", (-1, 11)),
        ("fc7", "FLOAT", (-1, 4096)),
    ]
    assert network.profile == ((2, 224, 224, 3), (8, 224, 224, 3), (64, 224, 224, 3))


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_every_layer_of_the_spec_is_a_tensor_of_the_network(builder: Any, preset: str) -> None:
    file = model(preset)
    shapes = {
        tensor.name: tensor.shape
        for layer in builder.describe_network(file).layers
        for tensor in layer.outputs
    }
    for name, shape in file.spec.layer_shapes().items():
        assert shapes[name] == (-1, *shape), name


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_normalization_is_the_librarys_own_layer_with_the_specs_numbers(
    builder: Any, preset: str
) -> None:
    file = model(preset)
    found = [layer for layer in builder.describe_network(file).layers if layer.type == "LRN"]
    lrn = file.spec.lrn
    if lrn is None:
        assert found == []
        return
    assert len(found) == 2
    expected = {"window_size": lrn.size, "alpha": lrn.alpha, "beta": lrn.beta, "k": lrn.k}
    for layer, channels in zip(found, (96, 256), strict=True):
        assert layer.numbers == pytest.approx(expected, rel=1e-7)  # they pass through float32
        assert layer.outputs[0].shape[1] == channels // lrn.towers


def test_the_network_is_made_of_the_papers_layers(builder: Any) -> None:
    found = kinds(builder.describe_network(model()))
    assert {kind: found.count(kind) for kind in ("CONVOLUTION", "POOLING", "SOFTMAX")} == {
        "CONVOLUTION": 5,
        "POOLING": 3,
        "SOFTMAX": 1,
    }
    assert found.count("ACTIVATION") == 7
    assert found.count("MATRIX_MULTIPLY") == 5  # fc6 and fc7 are stored as two factors each
    assert found[:2] == ["CAST", "SHUFFLE"]


def test_fp16_convolves_in_half_and_normalizes_in_float(builder: Any) -> None:
    network = builder.describe_network(cast_model(model(), "fp16"))
    types = {layer.name: layer.outputs[0].dtype for layer in network.layers}
    by_kind = {
        kind: {types[layer.name] for layer in network.layers if layer.type == kind}
        for kind in ("CONVOLUTION", "POOLING", "MATRIX_MULTIPLY", "LRN", "SOFTMAX")
    }
    assert by_kind == {
        "CONVOLUTION": {"HALF"},
        "POOLING": {"HALF"},
        "MATRIX_MULTIPLY": {"HALF"},
        "LRN": {"FLOAT"},
        "SOFTMAX": {"FLOAT"},
    }
    assert {each.dtype for each in network.outputs} == {"FLOAT"}


def test_the_bundled_checkpoint_becomes_an_engine_without_a_gpu(plan: bytes) -> None:
    check_format(plan)
    weights = sum(
        array.nbytes
        for array in build_model(load_checkpoint(bundled_checkpoint()), OUTPUTS).arrays.values()
    )
    assert weights < len(plan) < 1.2 * weights


def check_format(plan: bytes) -> None:
    """The library knows it for an engine: what may be missing here is the GPU."""
    with suppress(DeviceError):
        check_plan(plan, "small.engine")


def test_an_engine_in_half_precision_is_half_the_size(builder: Any, plan: bytes) -> None:
    checkpoint = load_checkpoint(bundled_checkpoint())
    half = cast_model(build_model(checkpoint, OUTPUTS), "fp16")
    built = builder.build_rtx_plan(half, BatchProfile(), ADA)
    check_format(built)
    assert 0.45 < len(built) / len(plan) < 0.6


def test_an_engine_can_be_for_several_gpus_or_for_the_librarys_choice(builder: Any) -> None:
    file, small = cast_model(model(), "fp16"), BatchProfile(opt=1, max=1)
    for chosen in ((), ("8.6", "8.9", "8.6"), ("7.5",)):
        check_format(builder.build_rtx_plan(file, small, chosen))


def test_the_builder_is_told_gpus_profile_and_no_tf32(
    builder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen on the library's own objects, in the place of its build."""
    seen: list[Any] = []

    def build(_: Any, network: Any, config: Any) -> bytes:
        count = config.num_compute_capabilities
        seen.extend(config.get_compute_capability(index).name for index in range(count))
        seen.append(config.num_optimization_profiles)
        seen.append(config.get_flag(builder.trt.BuilderFlag.TF32))
        seen.append(network.get_flag(builder.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        return b"engine"

    monkeypatch.setattr(builder.trt.Builder, "build_serialized_network", build)
    assert builder.build_rtx_plan(model(), BatchProfile(), ("12.0", "8.9")) == b"engine"
    assert seen == ["SM120", "SM89", 1, False, True]


def test_a_build_that_fails_says_what_the_library_said(
    builder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: Any) -> None:
        log = load_library("tensorrt-rtx").logger
        log.log(builder.trt.ILogger.Severity.ERROR, "no tactic for conv2")

    monkeypatch.setattr(builder.trt.Builder, "build_serialized_network", build)
    with pytest.raises(IncompatibleFileError, match=r"1 to 32 on.* 8\.9 \(no tactic for conv2\)"):
        builder.build_rtx_plan(model(), BatchProfile(), ADA)
    with pytest.raises(IncompatibleFileError, match=rf"on {RTX_OWN_CHOICE} \(no tactic"):
        builder.build_rtx_plan(model(), BatchProfile())


def test_the_librarys_own_choice_is_made_of_what_it_builds_for(builder: Any) -> None:
    own = re.findall(r"\d+\.\d", RTX_OWN_CHOICE)
    assert set(own) < set(builder.compute_capabilities())
    assert float(own[0]) == 8.0, "7.5 is there on request only"


@pytest.mark.parametrize("wrong", ["9.0", "10.0", "8.7", "89", "sm89", "CURRENT", ""])
def test_a_gpu_that_cannot_be_built_for_is_refused_with_the_list(builder: Any, wrong: str) -> None:
    with pytest.raises(UsageError, match=r"7\.5, 8\.0, 8\.6, 8\.9, 12\.0.*H100 is 9\.0") as caught:
        builder.build_rtx_plan(model(), BatchProfile(), ("8.9", wrong))
    assert f'compute_capabilities="{wrong}": ' in str(caught.value)


def test_capabilities_are_named_as_nvidia_names_them(builder: Any) -> None:
    names = builder.compute_capabilities()
    assert set(names) >= {"7.5", "8.0", "8.6", "8.9", "12.0"}
    assert list(names) == sorted(names, key=float)


def test_an_operator_that_the_parser_does_not_know_is_named(builder: Any) -> None:
    with pytest.raises(IncompatibleFileError) as caught:
        builder.build_rtx_plan(
            with_changed_node("norm1_lrn", op_type="TowerLRN"), BatchProfile(), ADA
        )
    for part in ("the exported graph", "node 'norm1_lrn'", "operator TowerLRN", "Plugin not found"):
        assert part in str(caught.value)


def test_what_the_parser_refuses_is_said_without_the_missing_driver(builder: Any) -> None:
    with pytest.raises(IncompatibleFileError, match=r"'norm2_lrn', operator LRN.*windowSize") as e:
        builder.describe_network(with_changed_node("norm2_lrn", size=4))
    assert "cudaError" not in str(e.value)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_other_precisions_are_refused(builder: Any, precision: Any) -> None:
    file = dataclasses.replace(model(), precision=precision)
    with pytest.raises(DeviceError, match=f"is {precision}.*fp32 and fp16"):
        builder.describe_network(file)


def test_a_missing_package_names_the_install_line() -> None:
    code = """
import sys
sys.modules["tensorrt_rtx"] = None
from alexnet_deploy.errors import MissingPackageError
try:
    import alexnet_deploy.trt.rtx_builder
except MissingPackageError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    assert "pip install 'alexnet-deploy[rtx]'" in done.stdout


@pytest.mark.usefixtures("builder")
def test_a_process_that_logged_ends_in_peace() -> None:
    """The library may log to our Python object while the interpreter is going away."""
    code = """
from tests.support.networks import random_checkpoint
from alexnet_deploy.graph.build import build_model
from alexnet_deploy.trt import rtx_builder
from alexnet_deploy.runtimes.batch_profile import BatchProfile
file = build_model(random_checkpoint("paper"), ("fc7",))
plan = rtx_builder.build_rtx_plan(file, BatchProfile(), ("8.9",))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": ""},
    )
    assert (done.returncode, done.stderr) == (0, "")
