"""Every name of TensorRT and CUDA that the package writes exists in the real libraries.

Code that runs on a GPU only would otherwise meet a wrong enum there for the first time. The dolls
that stand in for TensorRT's objects elsewhere are held here to being as strict as these.
"""

import ast
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.trt_stub.dolls import doll, maker

pytest_plugins = ["tests.support.trt_stub.fixtures"]

PACKAGE = Path(__file__).resolve().parents[2] / "alexnet_deploy"
LIBRARIES = ("tensorrt", "tensorrt.plugin", "cuda.bindings.runtime")


def names_used(path: Path) -> Iterator[tuple[str, str]]:
    """Yield ("tensorrt", "BuilderFlag.TF32") for each name that a module takes of a library."""
    tree = ast.parse(path.read_text("utf-8"))
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {each.asname or each.name: each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            full = {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
            aliases |= full
    for node in ast.walk(tree):
        parts: list[str] = []
        inner: ast.AST = node
        while isinstance(inner, ast.Attribute):
            parts.insert(0, inner.attr)
            inner = inner.value
        library = aliases.get(inner.id, "") if isinstance(inner, ast.Name) else ""
        if parts and library in LIBRARIES:
            yield library, ".".join(parts)


def all_names() -> set[tuple[str, str]]:
    return {name for path in PACKAGE.rglob("*.py") for name in names_used(path)}


def test_every_name_that_is_written_exists(trt: Any) -> None:
    pytest.importorskip("cuda.bindings.runtime", reason="needs: pip install cuda-bindings")
    names = all_names()
    for library in LIBRARIES:
        assert len({name for of, name in names if of == library}) >= 5, "the walk finds the names"
    missing = []
    for library, name in sorted(names):
        value: Any = importlib.import_module(library)
        try:
            for part in name.split("."):
                value = getattr(value, part)
        except AttributeError:
            missing.append(f"{library}.{name}")
    assert missing == []


def test_names_that_are_gone_since_tensorrt_10_are_gone_here(trt: Any) -> None:
    """What the test above would find: the bindings are those of 11."""
    assert trt.__version__.startswith("11.")
    for gone in ("FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"):
        assert not hasattr(trt.BuilderFlag, gone)
    assert not hasattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH")
    assert not hasattr(trt.IExecutionContext, "execute_async_v2")


WRONG: dict[str, Callable[[Any], object]] = {
    "a method that is gone": lambda trt: doll(trt.Builder).build_engine,
    "an attribute that is gone": lambda trt: doll(trt.IBuilderConfig).max_workspace_size,
    "an unknown attribute to set": lambda trt: setattr(doll(trt.IBuilderConfig), "fp16", True),
    "an attribute to read only": lambda trt: setattr(doll(trt.ICudaEngine), "name", "x"),
    "a keyword that it lacks": lambda trt: doll(trt.IExecutionContext).execute_async_v3(stream=0),
    "too few arguments": lambda trt: doll(trt.IExecutionContext).set_tensor_address("images"),
    "too many arguments": lambda trt: doll(trt.IExecutionContext).execute_async_v3(0, 1),
    "arguments swapped": lambda trt: doll(trt.IExecutionContext).set_tensor_address(0, "images"),
    "a shape of NumPy's": lambda trt: doll(trt.IExecutionContext).set_input_shape(
        "images", np.zeros(4)
    ),
    "a float for an integer": lambda trt: doll(trt.IExecutionContext).execute_async_v3(0.5),
    "a flag of another enum": lambda trt: doll(trt.IBuilderConfig).set_flag(
        trt.OnnxParserFlag.ENABLE_PLUGIN_OVERRIDE
    ),
    "another object": lambda trt: doll(trt.Builder).build_serialized_network(
        doll(trt.IBuilderConfig), doll(trt.INetworkDefinition)
    ),
    "a constructor without its logger": lambda trt: maker(trt.Builder, doll(trt.Builder))(),
    "a parser of no network": lambda trt: maker(trt.OnnxParser, doll(trt.OnnxParser))(
        doll(trt.Builder), trt.Logger()
    ),
    "an answer for a method that is not": lambda trt: doll(trt.Builder, build_engine=None),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_doll_refuses_what_the_real_object_would_refuse(trt: Any, what: str) -> None:
    with pytest.raises((AttributeError, TypeError)):
        WRONG[what](trt)


def test_a_doll_takes_what_the_real_object_would_take(trt: Any) -> None:
    journal: list[str] = []
    made = doll(trt.Builder, journal)
    builder = maker(trt.Builder, made)(trt.Logger())
    assert builder is made
    network, config = builder.create_network(1 << 2), builder.create_builder_config()
    config.set_flag(flag=trt.BuilderFlag.TF32)
    config.builder_optimization_level = 3
    assert config.builder_optimization_level == 3
    assert builder.build_serialized_network(network, config).real is trt.IHostMemory
    context = doll(trt.ICudaEngine).create_execution_context()
    assert context.real is trt.IExecutionContext
    assert context.set_input_shape("images", (1, 227, 227, 3)) is True
    assert context.execute_async_v3(stream_handle=0) is True
    assert journal == [
        "Builder",
        "Builder.create_network",
        "Builder.create_builder_config",
        "IBuilderConfig.set_flag",
        "IBuilderConfig.builder_optimization_level=",
        "Builder.build_serialized_network",
    ]


def test_other_tests_see_a_machine_without_tensorrt() -> None:
    """This one asks for none of the fixtures; those that did must have put everything back."""
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("TensorRT itself is installed here")
    with pytest.raises(ImportError):
        importlib.import_module("tensorrt")
    loaded = importlib.import_module("sys").modules
    assert not [name for name in loaded if name.split(".")[0] == "tensorrt"]
    # They import TensorRT at the top.
    assert not {"alexnet_deploy.trt.plugin", "alexnet_deploy.trt.builder"} & set(loaded)
