"""The plugins through NVIDIA's own Python layer: registered, parsed, tuned, compiled, launched.

Below it, where C++ would be, stand fakes. The same harness is shown versions of the module with
one thing wrong: it must not take them.
"""

import importlib
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.graph.build import build_model
from alexnet_deploy.graph.plugin_nodes import ATTRIBUTES, with_plugins
from tests.support.networks import random_checkpoint
from tests.support.trt_stub.models import OPERATORS, plugin_node

pytest.importorskip("cuda.bindings", reason="CUDA's API comes with: pip install cuda-bindings")
from alexnet_deploy.trt.kernel import Hwc8Kernel, TowerLrnKernel

pytest_plugins = ["tests.support.trt_stub.fixtures"]

SOURCE = Path(__file__).resolve().parents[2] / "alexnet_deploy" / "trt" / "plugin.py"
LRN = {"size": 5, "alpha": float(np.float32(1e-4)), "beta": 0.75, "bias": 2.0, "towers": 2}
IN = {"TowerLRN": (96, 55, 55), "ReluTowerLRNPool": (256, 27, 27)}
OUT = {"TowerLRN": (96, 55, 55), "ReluTowerLRNPool": (256, 13, 13)}
ENTRY = {"TowerLRN": "tower_lrn", "ReluTowerLRNPool": "relu_tower_lrn_pool"}


def loaded(*changes: tuple[str, str]) -> Any:
    """Run the module's source, changed so; its kernels are asked for and not compiled."""
    text = SOURCE.read_text("utf-8")
    for old, new in changes:
        assert old in text, f"{old!r} is not in the source: the test no longer tests anything"
        text = text.replace(old, new)
    module: Any = ModuleType("changed_plugin")
    exec(compile(text, "changed_plugin.py", "exec"), vars(module))
    module.kernels = []
    module.compile_ptx = lambda kernel, *_: module.kernels.append(kernel) or b"PTX"
    return module


def parsed(trt: Any, node: onnx.NodeProto) -> Any:
    """Make the plugin of a node as the ONNX parser does, from fields of 32 bits."""
    given = {each.name: each for each in node.attribute}
    registry = trt.get_plugin_registry()
    namespace, version = given["plugin_namespace"].s.decode(), given["plugin_version"].s.decode()
    creator = registry.get_creator(node.op_type, version, namespace)
    fields = []
    for field in creator.field_names:
        if given[field.name].HasField("f"):
            value, kind = np.array([given[field.name].f], np.float32), trt.PluginFieldType.FLOAT32
        else:
            value, kind = np.array([given[field.name].i], np.int32), trt.PluginFieldType.INT32
        fields.append(trt.PluginField(field.name, value, kind))
    assert given["aot"].i == 1
    return creator.create_plugin(
        node.op_type,
        namespace,
        trt.PluginFieldCollection(fields),
        trt.TensorRTPhase.BUILD,
        trt.QuickPluginCreationRequest.STRICT_AOT,
    )


def described(plugin: Any, shape: tuple[int, ...]) -> list[int]:
    """Ask the plugin for its output's shape, of a batch that is not known yet."""
    from tests.support.trt_stub import fakes

    batch, *rest = shape
    dimensions = [fakes.Expr.of("N", batch), *(fakes.Expr.of(str(n), n) for n in rest)]
    plugin.get_output_shapes([dimensions], [], fakes.ExprBuilder())
    (output,) = plugin.output_descs
    expressions = [each._expr for each in output.shape_expr]
    # What follows is built for maps of a known size: only N may be open.
    assert [each.is_constant() for each in expressions] == [False, True, True, True]
    return [each.value for each in expressions]


def launch(
    trt: Any, plugin: Any, op: str, dtype: Any, batch: int, layout: str = "LINEAR"
) -> tuple[dict[str, int], str]:
    """Have the plugin tuned and compiled; return its launch for that batch, and the entry."""
    from tests.support.trt_stub import fakes

    shapes = [(batch, *IN[op]), (batch, *OUT[op])]
    tensors = [fakes.tensor(dtype, shape, getattr(trt.TensorFormat, layout)) for shape in shapes]
    plugin.configure_plugin(tensors[:1], tensors[1:])
    assert plugin.get_valid_tactics() == [], "there is nothing to choose from"
    plugin.set_tactic(0)
    params, extra = fakes.LaunchParameters(), fakes.ExtraArguments()
    dimensions = [fakes.Expr.of("N", batch), *(fakes.Expr.of(str(n), n) for n in IN[op])]
    plugin.get_launch_params([dimensions], tensors, 1, params, extra, fakes.ExprBuilder())
    assert extra == {}
    assert extra.nbSymExprs == 0, "the kernel takes its input, its output and nothing else"
    said = {name: each.said for name, each in vars(params).items()}
    assert None not in said.values(), "TensorRT takes floats and NumPy's integers for nothing"
    name, code = plugin.get_kernel([tensors[0].desc], [tensors[1].desc])
    assert code == b"PTX"
    return {name: each.value for name, each in said.items()}, name


def exercise(trt: Any, module: Any, op: str) -> None:
    """Take an operator through all that a build does with it, and check what comes out."""
    definition = getattr(importlib.import_module("tensorrt.plugin").op.alexnet, op)
    assert definition.plugin_id == f"alexnet::{op}"
    kinds = {"size": int, "alpha": float, "beta": float, "bias": float, "towers": int}
    assert list(definition.input_attrs.items()) == list(kinds.items())
    plugin = parsed(trt, plugin_node(op))
    assert plugin.attrs == LRN
    assert [type(value) for value in plugin.attrs.values()] == list(kinds.values())
    cases = (
        (trt.float32, "float", "LINEAR", TowerLrnKernel),
        (trt.float16, "half", "LINEAR", TowerLrnKernel),
        (trt.float16, "half", "HWC8", Hwc8Kernel),
    )
    for dtype, scalar, layout, kind in cases:
        assert plugin.get_output_data_types([dtype], [4]) == [dtype]
        for batch in (1, 2, 32):
            assert described(plugin, (batch, *IN[op])) == [batch, *OUT[op]]
            tensors = tuned(trt, plugin, op)
            assert tensors == [(case[0], case[2]) for case in cases]
            module.kernels.clear()
            module.compiled.cache_clear()
            params, entry = launch(trt, plugin, op, dtype, batch, layout)
            (kernel,) = module.kernels
            assert type(kernel) is kind
            assert (kernel.channels, kernel.height, kernel.width) == IN[op]
            assert (kernel.scalar, kernel.fused) == (scalar, op == "ReluTowerLRNPool")
            given = (kernel.size, kernel.alpha, kernel.beta, kernel.k, kernel.towers)
            assert given == tuple(LRN.values())
            assert kernel.output_shape() == OUT[op]
            assert entry == kernel.name == ENTRY[op]
            assert params == {
                "grid_x": batch * kernel.blocks_per_image,
                "grid_y": 1,
                "grid_z": 1,
                "block_x": kernel.threads,
                "block_y": 1,
                "block_z": 1,
                "shared_mem": 0,
            }


def tuned(trt: Any, plugin: Any, op: str) -> list[tuple[Any, str]]:
    """Return the types and layouts that the plugin offers, the same for input and output."""
    from tests.support.trt_stub import fakes

    shapes = [(8, *IN[op]), (8, *OUT[op])]
    tensors = [fakes.tensor(trt.float32, shape, trt.TensorFormat.LINEAR) for shape in shapes]
    offered = plugin.get_supported_format_combinations(tensors, 1)
    pairs = [(each.type, each.format.name) for each in offered]
    assert pairs[::2] == pairs[1::2]
    return pairs[::2]


@pytest.mark.parametrize("op", OPERATORS)
def test_an_operator_lives_through_a_whole_build(trt: Any, op: str) -> None:
    exercise(trt, loaded(), op)


# A part of `_fused_kernel` in the source, for a change that must not touch `_norm_kernel`.
HEAD = "def _fused_kernel(\n    x: trtp.TensorDesc,\n    size: int,\n    alpha: float,\n"

WRONG = {
    "attributes in another order in aot_impl": (
        [(HEAD, HEAD.replace("size: int,\n    alpha: float", "alpha: float,\n    size: int"))],
        "does not match the expected input arg schema",
    ),
    "a type that does not exist": ([('"FP32|FP16, FP32|FP16"', '"FP32|FP33, FP32|FP33"')], "FP33"),
    "a layout for the wrong kernel": (
        [("layout == trt.TensorFormat.HWC8", "layout == trt.TensorFormat.HWC")],
        "Hwc8Kernel",
    ),
    "a grid that is no integer": (
        [("launch.block_x = kernel.threads", "launch.block_x = float(kernel.threads)")],
        "takes floats and NumPy's integers for nothing",
    ),
    "a grid for one image": (
        [("x.shape_expr[0] * kernel.blocks_per_image", "kernel.blocks_per_image")],
        "grid_x",
    ),
    "maps that are pooled as if padded": (
        [("(side - POOL_SIZE) // POOL_STRIDE + 1", "side // POOL_STRIDE + 1")],
        "[1, 256, 13, 13]",
    ),
    "alpha in the place of beta": ([('beta=lrn["beta"]', 'beta=lrn["alpha"]')], "0.75"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_plugin_with_something_wrong_does_not_get_through(trt: Any, what: str) -> None:
    changes, message = WRONG[what]
    sys.modules.pop("changed_plugin", None)

    def run() -> None:
        module = loaded(*changes)
        for op in reversed(OPERATORS):
            exercise(trt, module, op)

    with pytest.raises(
        (AssertionError, AttributeError, TypeError, ValueError), match=re.escape(message)
    ):
        run()


def test_all_functions_of_an_operator_declare_the_same_attributes(trt: Any) -> None:
    loaded()
    quick = importlib.import_module("tensorrt_bindings.plugin._lib").QDP_REGISTRY
    assert list(quick) == [f"alexnet::{op}" for op in OPERATORS]
    for definition in quick.values():
        for function in (
            definition.register_func,
            definition.autotune_func,
            definition.aot_impl_func,
        ):
            names = list(inspect.signature(function).parameters)
            assert tuple(names[1:6]) == ATTRIBUTES == tuple(LRN)
        assert definition.impl_func is None, "with one, TensorRT could choose to run Python"


def test_importing_the_module_registers_once_and_prints_nothing(
    trt: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Standard output is for results; NVIDIA's module greets there on its first import."""
    for name in [name for name in sys.modules if name.startswith("tensorrt") and "plugin" in name]:
        monkeypatch.delitem(sys.modules, name)
        package, _, module = name.rpartition(".")
        monkeypatch.delattr(f"{package}.{module}")
    logger = trt.Logger
    importlib.import_module("alexnet_deploy.trt.plugin")
    importlib.import_module("alexnet_deploy.trt.plugin")
    assert capfd.readouterr() == ("", "")
    assert trt.Logger is logger
    creators = trt.get_plugin_registry().creators
    assert list(creators) == [(op, "1", "alexnet") for op in OPERATORS]


def test_numbers_of_a_node_reach_the_kernel(trt: Any) -> None:
    module = loaded()
    node = plugin_node("TowerLRN", size=9, alpha=0.3, beta=0.6, bias=1.5, towers=4)
    launch(trt, planned(parsed(trt, node)), "TowerLRN", trt.float32, 1)
    (kernel,) = module.kernels
    assert (kernel.size, kernel.towers) == (9, 4)
    assert (kernel.alpha, kernel.beta, kernel.k) == tuple(
        float(np.float32(value)) for value in (0.3, 0.6, 1.5)
    )


@pytest.mark.parametrize("preset", ["paper", "caffe", "caffenet"])
@pytest.mark.parametrize("fused", [True, False])
def test_nodes_that_are_exported_become_plugins_with_the_numbers_of_the_spec(
    trt: Any, preset: str, fused: bool
) -> None:
    loaded()
    file = with_plugins(build_model(random_checkpoint(preset), ("fc7",)), fused=fused)
    nodes = [node for node in file.graph.graph.node if node.domain]
    may_fuse = fused and preset != "caffenet"  # which normalizes after pooling
    assert [node.op_type for node in nodes] == [OPERATORS[may_fuse]] * 2
    lrn = file.spec.lrn
    assert lrn is not None
    alpha, beta, k = (float(np.float32(value)) for value in (lrn.alpha, lrn.beta, lrn.k))
    for node in nodes:
        assert list(parsed(trt, node).attrs.values()) == [lrn.size, alpha, beta, k, lrn.towers]


def planned(plugin: Any) -> Any:
    """Take a plugin to where it can be compiled."""
    trt = sys.modules["tensorrt"]
    plugin.get_output_data_types([trt.float32], [4])
    described(plugin, (1, *IN["TowerLRN"]))
    tuned(trt, plugin, "TowerLRN")
    return plugin


def test_a_tactic_that_was_never_offered_is_refused(trt: Any) -> None:
    loaded()
    plugin = planned(parsed(trt, plugin_node("TowerLRN")))
    plugin.set_tactic = lambda _: setattr(plugin, "_tactic", 3)
    with pytest.raises(ValueError, match="tactic is 3, expected 0"):
        launch(trt, plugin, "TowerLRN", trt.float32, 1)


def test_a_type_without_kernel_is_refused(trt: Any) -> None:
    module = loaded()
    with pytest.raises(IncompatibleFileError, match="its input is BF16, expected FLOAT or HALF"):
        module.kernel_for("TowerLRN", trt.bfloat16, (1, 96, 55, 55), LRN)


@pytest.mark.parametrize(
    ("changes", "offers_hwc8"),
    [({}, True), ({"size": 17}, True), ({"size": 19}, False), ({"towers": 24}, False)],
    ids=str,
)
def test_hwc8_is_offered_where_its_kernel_computes_the_layer(
    trt: Any, changes: dict[str, Any], offers_hwc8: bool
) -> None:
    loaded()
    plugin = parsed(trt, plugin_node("TowerLRN", **changes))
    plugin.get_output_data_types([trt.float16], [4])
    described(plugin, (1, *IN["TowerLRN"]))
    assert ((trt.float16, "HWC8") in tuned(trt, plugin, "TowerLRN")) is offers_hwc8


@pytest.mark.parametrize(("num_gpus", "architecture"), [(1, ("compute_90",)), (0, ())])
def test_a_kernel_is_compiled_once_for_the_gpu_at_hand(
    trt: Any, driver: Any, num_gpus: int, architecture: tuple[str, ...]
) -> None:
    driver.gpus = driver.gpus[:num_gpus]
    module = loaded()
    asked: list[tuple[str, ...]] = []

    def compile_ptx(kernel: Any, *architecture: str) -> bytes:
        asked.append(architecture)
        return b"PTX"

    module.compile_ptx = compile_ptx
    kernel = module.kernel_for("TowerLRN", trt.float32, (-1, 96, 55, 55), LRN)
    assert module.compiled(kernel) == module.compiled(kernel) == b"PTX"
    assert asked == [architecture]


@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize(
    ("dtype", "layout"), [("float32", "LINEAR"), ("float16", "LINEAR"), ("float16", "HWC8")]
)
def test_the_code_has_an_entry_of_the_name_that_is_given_with_two_pointers(
    trt: Any, op: str, dtype: str, layout: str
) -> None:
    """NVRTC compiles it for real; one tower of small maps, which takes it no time."""
    pytest.importorskip("cuda.bindings.nvrtc", reason="needs NVRTC: nvidia-cuda-nvrtc==13.0.*")
    plugin = importlib.import_module("alexnet_deploy.trt.plugin")
    shape = (-1, 16, 7, 9)
    kernel = plugin.kernel_for(
        op, getattr(trt, dtype), shape, LRN, getattr(trt.TensorFormat, layout)
    )
    code = plugin.compiled(kernel).decode("ascii")
    entries = re.findall(r"\.entry\s+(\w+)\s*\(([^)]*)\)", code)
    ((name, parameters),) = entries
    assert name == kernel.name == ENTRY[op]
    assert len(re.findall(r"\.param\s+\.u64", parameters)) == parameters.count(".param") == 2
    assert "\0" not in code


def test_the_hash_is_of_all_that_the_kernel_is_made_from(
    trt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = loaded()
    names = ("lrn.cuh", "tower_lrn.cu", "tower_lrn_hwc8.cu", "kernel.py")
    for name in names:
        (tmp_path / name).write_bytes((SOURCE.parent / name).read_bytes())
    first = module.plugin_sha256()
    assert re.fullmatch("[0-9a-f]{64}", first)
    monkeypatch.setattr(module, "files", lambda package: tmp_path)
    assert module.plugin_sha256() == first
    for name in names:
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content + b" ")
        assert module.plugin_sha256() != first
        (tmp_path / name).write_bytes(content)
    assert module.plugin_sha256() == first
