"""The builder over dolls of TensorRT's classes: what it asks for, in which order, its refusals."""

import dataclasses
from typing import Any

import onnx
import pytest

from alexnet_deploy.choices import FILE_PRECISIONS, FilePrecision
from alexnet_deploy.errors import DeviceError, IncompatibleFileError
from alexnet_deploy.graph.build import build_model
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.graph.plugin_nodes import with_plugins
from alexnet_deploy.model.spec import preset_spec
from tests.support.networks import random_checkpoint
from tests.support.trt_stub.dolls import Doll
from tests.support.trt_stub.fake_builder import FILE, PLAN, PROFILE, FakeTensorRt, errors
from tests.support.trt_stub.models import OPERATORS, SPEC, plugin_model, plugin_node

pytest.importorskip("cuda.bindings", reason="CUDA's API comes with: pip install cuda-bindings")
pytest_plugins = [
    "tests.support.trt_stub.fixtures",
    "tests.support.trt_stub.builder_fixtures",
]


def test_a_plan_is_built_in_this_order(builder: Any, fake: FakeTensorRt) -> None:
    assert builder.build_plan(FILE, PROFILE) == (PLAN, "plugin")
    steps = [step for step in fake.journal if not step.startswith(("ITensor", "ILayer"))]
    assert [step for step in steps if ".get_" not in step] == [
        "Builder",
        "Builder.create_network",
        "OnnxParser",
        "OnnxParser.parse",
        "Builder.create_builder_config",
        "IBuilderConfig.clear_flag",
        "IBuilderConfig.profiling_verbosity=",
        "Builder.create_optimization_profile",
        "IOptimizationProfile.set_shape",
        "IBuilderConfig.add_optimization_profile",
        "IBuilderConfig.hardware_compatibility_level=",
        "IBuilderConfig.create_timing_cache",
        "IBuilderConfig.set_timing_cache",
        "Builder.build_serialized_network",
        "Runtime",
        "Runtime.deserialize_cuda_engine",
        "ICudaEngine.create_engine_inspector",
    ]


def test_python_plugins_are_compiled_ahead_of_time(builder: Any, fake: FakeTensorRt) -> None:
    """Bit 2; in TensorRT 10 it was bit 1, which now prefers plugins that run in Python."""
    builder.build_plan(FILE, PROFILE)
    assert ("create_network", 1 << 2) in fake.builder.calls


def test_float32_is_float32_and_batches_are_those_of_the_profile(
    builder: Any, fake: FakeTensorRt, trt: Any
) -> None:
    builder.build_plan(FILE, PROFILE)
    assert fake.config.calls[:4] == [
        ("clear_flag", trt.BuilderFlag.TF32),
        ("profiling_verbosity=", trt.ProfilingVerbosity.DETAILED),
        ("add_optimization_profile", fake.profile),
        ("hardware_compatibility_level=", trt.HardwareCompatibilityLevel.NONE),
    ]
    shapes = [(batch, 224, 224, 3) for batch in (1, 8, 32)]
    assert fake.profile.calls == [("set_shape", "images", *shapes)]


def test_kernels_are_compiled_before_the_engine_is_built(
    builder: Any, fake: FakeTensorRt, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder.build_plan(FILE, PROFILE)
    assert [kernel.fused for kernel in builder.kernels] == [False, True]
    for kernel in builder.kernels:
        assert (kernel.scalar, kernel.channels, kernel.height) == ("half", 96, 55)
        assert (kernel.size, kernel.k, kernel.towers) == (5, 2.0, 2)

    def fail(*_: object) -> bytes:
        raise DeviceError("tower_lrn.cu: expected a ';'")

    fake.journal.clear()
    builder.plugin.compiled.cache_clear()
    monkeypatch.setattr(builder.plugin, "compile_ptx", fail)
    with pytest.raises(DeviceError, match="expected a ';'"):
        builder.build_plan(FILE, PROFILE)
    assert "Builder.build_serialized_network" not in fake.journal


@pytest.mark.parametrize("fused", [True, False])
def test_an_exported_graph_is_shown_whole_with_the_functions_behind_its_nodes(
    builder: Any, fake: FakeTensorRt, fused: bool
) -> None:
    file = with_plugins(build_model(random_checkpoint("paper"), ("fc7",)), fused=fused)
    names = ["pool1", "pool2"] if fused else ["norm1", "norm2"]
    fake.layers = dict.fromkeys(("pixels", *names), fake.trt.LayerType.PLUGIN_V3)
    fake.network.answers["num_layers"] = len(fake.layers)
    fake.built = [{"Name": name, "LayerType": "PluginV3"} for name in names]
    assert builder.build_plan(file, PROFILE) == (PLAN, "plugin")
    model = onnx.load_model_from_string(fake.onnx)
    onnx.checker.check_model(model, full_check=True)
    assert {function.name for function in model.functions} == {*OPERATORS}
    assert len(model.graph.initializer) == len(file.arrays)
    assert [kernel.fused for kernel in builder.kernels] == [fused]  # both layers are alike here


def parser_error(fake: FakeTensorRt, **answers: object) -> Doll:
    said = {"node_name": "", "node_operator": "", "desc": "", "node": -1} | answers
    return fake.doll(fake.trt.ParserError, **said)


def test_an_operator_that_tensorrt_does_not_know_is_named(builder: Any, fake: FakeTensorRt) -> None:
    found = [
        parser_error(fake, node_name="n1", node_operator="Frobnicate", desc="Plugin not found\n"),
        parser_error(fake, node_name="n2", node_operator="Conv", desc="bad weights"),
    ]
    fake.parser_answers = {"parse": False, "num_errors": 2, "get_error": found.__getitem__}
    with pytest.raises(IncompatibleFileError) as caught:
        builder.build_plan(FILE, PROFILE)
    assert str(caught.value) == (
        "m.onnx: TensorRT 11.4.0.106 cannot read it (node 'n1', operator Frobnicate: Plugin not "
        "found; node 'n2', operator Conv: bad weights); export the checkpoint again with this "
        "version"
    )
    errors(fake, "of another file")
    fake.parser_answers = {"parse": lambda content: errors(fake, "no memory"), "num_errors": 0}
    with pytest.raises(IncompatibleFileError, match=r"cannot read it \(no memory\)"):
        builder.build_plan(FILE, PROFILE)


def test_a_build_that_fails_says_what_tensorrt_said(builder: Any, fake: FakeTensorRt) -> None:
    fake.builder.answers["build_serialized_network"] = lambda *_: errors(fake, "no tactic found")
    with pytest.raises(DeviceError, match=r'm\.onnx: .*\(no tactic found\).*lrn="native"'):
        builder.build_plan(FILE, PROFILE)


def test_without_a_gpu_the_way_without_one_is_named(
    builder: Any, fake: FakeTensorRt, driver: Any
) -> None:
    driver.gpus = []
    with pytest.raises(DeviceError) as caught:
        builder.build_plan(FILE, PROFILE)
    assert str(caught.value) == (
        "TensorRT builds on the GPU that the engine is for: no NVIDIA GPU that this process "
        "may use (the driver reports none); check nvidia-smi and "
        "CUDA_VISIBLE_DEVICES; without a GPU build it on the machine that it is "
        "for, or use rtx=True, which builds without a GPU"
    )
    assert fake.journal == []


@pytest.mark.parametrize("precision", FILE_PRECISIONS)
def test_tensorrt_rtx_is_named_for_what_it_builds(
    builder: Any, driver: Any, precision: FilePrecision
) -> None:
    driver.gpus = []
    with pytest.raises(DeviceError) as caught:
        builder.build_engine(dataclasses.replace(FILE, precision=precision), PROFILE)
    assert ("rtx=True" in str(caught.value)) == (precision in ("fp32", "fp16"))


def test_a_driver_that_fails_is_not_a_machine_without_a_gpu(
    builder: Any, fake: FakeTensorRt, driver: Any
) -> None:
    driver.failures["cuInit"] = 803
    with pytest.raises(DeviceError, match=r"\(cuInit fails with CUDA error 803\)"):
        builder.build_plan(FILE, PROFILE)
    assert fake.journal == []


def test_batches_that_tensorrt_does_not_take_are_an_error(builder: Any, fake: FakeTensorRt) -> None:
    def refuse(profile: Any) -> int:
        errors(fake, "kMIN > kMAX")
        return -1

    fake.config.answers["add_optimization_profile"] = refuse
    with pytest.raises(
        IncompatibleFileError, match=r"batches of 1 to 32 \(kMIN > kMAX\); .*profile.max$"
    ):
        builder.build_plan(FILE, PROFILE)
    assert "Builder.build_serialized_network" not in fake.journal


@pytest.mark.parametrize("version", ["10.16.0.72", "8.6.1"])
def test_an_older_tensorrt_is_refused(
    builder: Any, fake: FakeTensorRt, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(fake.trt, "__version__", version)
    with pytest.raises(DeviceError, match=f"TensorRT {version} is installed.*pip install"):
        builder.build_plan(FILE, PROFILE)
    assert fake.journal == []


@pytest.mark.parametrize("op", OPERATORS)
def test_a_node_that_became_anything_but_our_plugin_is_refused(
    builder: Any, fake: FakeTensorRt, op: str
) -> None:
    """So it would if the parser took the local function, which normalizes as well, only slower."""
    name = {"TowerLRN": "norm1", "ReluTowerLRNPool": "pool2"}[op]
    fake.layers[name] = fake.trt.LayerType.LRN
    with pytest.raises(IncompatibleFileError, match=f"of type LRN of node '{name}', operator {op}"):
        builder.build_plan(FILE, PROFILE)
    fake.layers = {{name: "inner"}.get(each, each): kind for each, kind in fake.layers.items()}
    with pytest.raises(IncompatibleFileError, match=f"no layer of its name of node '{name}'"):
        builder.build_plan(FILE, PROFILE)
    assert "Builder.build_serialized_network" not in fake.journal


def test_a_plan_that_cannot_be_loaded_again_is_an_error(builder: Any, fake: FakeTensorRt) -> None:
    fake.runtime.answers["deserialize_cuda_engine"] = lambda plan: errors(fake, "no memory")
    with pytest.raises(DeviceError, match=r"cannot load its own plan \(no memory\)"):
        builder.build_plan(FILE, PROFILE)


@pytest.mark.parametrize("missing", ["size", "alpha", "beta", "bias", "towers"])
def test_a_node_that_lacks_a_number_is_refused(builder: Any, missing: str) -> None:
    taken: dict[str, Any] = {missing: None}
    node = plugin_node("TowerLRN", **taken)
    with pytest.raises(IncompatibleFileError, match=f"node 'norm1'.*has no {missing}"):
        builder.build_plan(plugin_model(node), PROFILE)


@pytest.mark.parametrize("side", ["inputs", "outputs"])
@pytest.mark.parametrize("wrong", ["name", "dtype", "shape"])
def test_other_inputs_and_outputs_than_the_files_are_refused(
    builder: Any, fake: FakeTensorRt, side: str, wrong: str
) -> None:
    (tensor,) = getattr(fake, side)
    bad = {"name": "x", "dtype": fake.trt.DataType.HALF, "shape": fake.trt.Dims((-1, 5))}
    tensor.answers[wrong] = bad[wrong]
    with pytest.raises(IncompatibleFileError, match="network has the inputs and outputs"):
        builder.build_plan(FILE, PROFILE)


def without_plugins(preset: str) -> ModelFile:
    spec = preset_spec(preset, num_classes=7)
    return dataclasses.replace(plugin_model(), spec=spec)


def test_the_record_says_what_was_built_where(builder: Any) -> None:
    file = builder.build_engine(dataclasses.replace(FILE, precision="fp16"), PROFILE)
    assert file.plan == PLAN
    record = file.record
    assert (record.runtime, record.runtime_version) == ("tensorrt", "11.4.0.106")
    assert (record.gpu_name, record.cuda_version) == ("NVIDIA Fake 100", "13.0")
    assert record.compute_capabilities == ("9.0",)
    assert (record.profile, record.precision) == (PROFILE, "fp16")
    assert (record.outputs, record.spec) == (("fc7",), SPEC)
    assert (record.lrn, record.plugin_sha256) == ("plugin", builder.plugin.plugin_sha256())
    assert (record.checkpoint, record.report) == ("f" * 64, None)


@pytest.mark.parametrize(("preset", "lrn"), [("paper", "native"), ("torchvision", "none")])
def test_a_file_without_our_operators_is_built_without_plugins(
    builder: Any, fake: FakeTensorRt, preset: str, lrn: str
) -> None:
    fake.built = []
    record = builder.build_engine(without_plugins(preset), PROFILE).record
    assert (record.lrn, record.plugin_sha256) == (lrn, None)
    assert builder.kernels == []
