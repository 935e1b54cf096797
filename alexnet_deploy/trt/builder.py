"""Build TensorRT engines, on and for the GPU of this machine.

The network is strongly typed, as always since TensorRT 11: each tensor has the type that the graph
gives it, and the builder only chooses kernels.
"""

import json
from collections.abc import Mapping
from typing import Any

from alexnet_deploy.choices import FilePrecision
from alexnet_deploy.errors import (
    Argument,
    DeviceError,
    IncompatibleFileError,
    Message,
    MissingPackageError,
)
from alexnet_deploy.graph.interface import INPUT
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.graph.plugin_nodes import ATTRIBUTES, DOMAIN
from alexnet_deploy.runtimes.batch_profile import BatchProfile
from alexnet_deploy.runtimes.engine_file import (
    ENGINE_PRECISIONS,
    EngineFile,
    EngineLrn,
    EngineRecord,
)
from alexnet_deploy.runtimes.gpu_driver import Gpu
from alexnet_deploy.runtimes.tensorrt_library import engine_gpu, load_library
from alexnet_deploy.trt import plugin

try:
    import tensorrt as trt
except ImportError as error:
    raise MissingPackageError("tensorrt", "tensorrt", "building a TensorRT engine") from error

_LIBRARY = load_library("tensorrt")


def builder_gpu(precision: FilePrecision) -> Gpu:
    """Return the GPU that engines are built on and for.

    Raises:
        DeviceError: there is none; the message gives the reason and the alternatives for
            `precision`. Or its driver or TensorRT is too old.
    """
    _LIBRARY.version()
    without = Message("build it on the machine that it is for")
    if precision in ENGINE_PRECISIONS["tensorrt-rtx"]:
        rtx = Argument("rtx", True)
        without = Message(without, ", or use ", rtx, ", which builds without a GPU")
    try:
        return engine_gpu(without)
    except DeviceError as error:
        raise DeviceError(
            "TensorRT builds on the GPU that the engine is for: ", error.message
        ) from error


def build_engine(file: ModelFile, profile: BatchProfile) -> EngineFile:
    """Build an engine with its record, not yet verified; see `build_plan`."""
    gpu = builder_gpu(file.precision)
    plan = build_plan(file, profile)
    lrn: EngineLrn = "plugin" if _plugin_nodes(file) else "native" if file.spec.lrn else "none"
    record = EngineRecord(
        runtime="tensorrt",
        runtime_version=_LIBRARY.version(),
        cuda_version=gpu.cuda_version,
        gpu_name=gpu.name,
        compute_capabilities=(gpu.compute_capability,),
        profile=profile,
        precision=file.precision,
        outputs=file.outputs(),
        lrn=lrn,
        plugin_sha256=plugin.plugin_sha256() if lrn == "plugin" else None,
        spec=file.spec,
        identity=file.identity,
        checkpoint=file.checkpoint_identity,
    )
    return EngineFile(record=record, plan=plan)


def build_plan(file: ModelFile, profile: BatchProfile) -> bytes:
    """Build the plan of `file` for batches of `profile`.

    Args:
        file: in any precision, not lowered; its nodes of domain "alexnet" become our plugins.
        profile: batch sizes; kernels are chosen for `profile.opt`.

    Raises:
        DeviceError: as for `builder_gpu`, or the build failed.
        IncompatibleFileError: TensorRT cannot parse the graph, or parses it into something else.
    """
    builder_gpu(file.precision)
    created = _LIBRARY.created
    builder = created("a builder", trt.Builder, _LIBRARY.logger)
    aot = trt.NetworkDefinitionCreationFlag.PREFER_AOT_PYTHON_PLUGINS
    network = created("a network", builder.create_network, 1 << int(aot))
    # The network points into the parser's copy of the weights, so the parser must outlive the
    # build.
    parser = created("a parser", trt.OnnxParser, network, _LIBRARY.logger)
    _parse(parser, file)
    _check_tensors(network, file)
    _check_plugin_layers(network, file)
    host_memory = builder.build_serialized_network(network, _config(builder, file, profile))
    if host_memory is None:
        raise DeviceError(
            f"{file.source}: TensorRT cannot build an engine from it ({_LIBRARY.messages.take()}); "
            "free memory on the GPU or lower ",
            Argument("profile.max"),
            ", and try ",
            Argument("lrn", "native"),
        )
    plan = bytes(host_memory)
    _check_built_layers(plan, file)
    return plan


def _parse(parser: Any, file: ModelFile) -> None:
    """Parse the graph into the parser's network.

    Raises:
        IncompatibleFileError: naming each node that TensorRT rejects, with its reason.
    """
    if parser.parse(file.to_bytes()):
        return
    errors = (parser.get_error(index) for index in range(parser.num_errors))
    reasons = [
        f"node {error.node_name()!r}, operator {error.node_operator()}: {error.desc().strip()}"
        for error in errors
    ]
    raise IncompatibleFileError(
        f"{file.source}: TensorRT {_LIBRARY.version()} cannot read it "
        f"({'; '.join(reasons) or _LIBRARY.messages.take()}); export the checkpoint again with "
        "this version"
    )


def _config(builder: Any, file: ModelFile, profile: BatchProfile) -> Any:
    """Return the builder's configuration.

    Raises:
        IncompatibleFileError: it rejects the profile.
    """
    config = _LIBRARY.created("a builder configuration", builder.create_builder_config)
    # On by default; with it float32 convolutions round their inputs to 11 bits, 5e-4, five times
    # the whole network's tolerance. A faster precision is chosen in the graph instead.
    config.clear_flag(trt.BuilderFlag.TF32)
    # Otherwise the engine does not report the types of its layers; see _check_built_layers.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    size = file.spec.input_size
    shapes = _LIBRARY.created("an optimization profile", builder.create_optimization_profile)
    shapes.set_shape(INPUT, *profile.shapes((size, size, 3)))
    if config.add_optimization_profile(shapes) != 0:  # the index of the first
        raise IncompatibleFileError(
            f"{file.source}: TensorRT does not build for batches of {profile.min} to {profile.max} "
            f"({_LIBRARY.messages.take()}); choose another ",
            Argument("profile.min"),
            " and ",
            Argument("profile.max"),
        )
    return config


def _check_tensors(network: Any, file: ModelFile) -> None:
    """Reject a network whose inputs and outputs are not those of the file."""
    size = file.spec.input_size
    layers = file.spec.layer_shapes()
    expected: dict[str, tuple[str, tuple[int, ...]]] = {INPUT: ("UINT8", (size, size, 3))}
    expected |= {name: ("FLOAT", layers[name]) for name in file.outputs()}
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    tensors += [network.get_output(index) for index in range(network.num_outputs)]
    found = {tensor.name: (tensor.dtype.name, tuple(tensor.shape)[1:]) for tensor in tensors}
    if found != expected:
        raise IncompatibleFileError(
            f"{file.source}: TensorRT's network has the inputs and outputs {found}, expected "
            f"{expected}; export the checkpoint again with this version"
        )


def _check_plugin_layers(network: Any, file: ModelFile) -> None:
    """Prove that each of our nodes became a plugin, and compile its kernel.

    If a node is not marked, TensorRT's parser silently prefers our operator's local function. And
    during the build a compiler error would only surface as TensorRT's "no implementation found".
    """
    layers = {layer.name: layer for layer in map(network.get_layer, range(network.num_layers))}
    for node in _plugin_nodes(file):
        layer = layers.get(node.name)
        if layer is None or layer.type != trt.LayerType.PLUGIN_V3:
            kind = "no layer of its name" if layer is None else f"a layer of type {layer.type.name}"
            raise _not_a_plugin(file, node, f"made {kind} of")
        tensor = layer.get_input(0)
        lrn = _attributes(file, node)
        plugin.compiled(plugin.kernel_for(node.op_type, tensor.dtype, tensor.shape, lrn))


def _check_built_layers(plan: bytes, file: ModelFile) -> None:
    """Prove from the list of its layers that the plugins are in the built engine."""
    runtime = _LIBRARY.created("a runtime", trt.Runtime, _LIBRARY.logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise DeviceError(
            f"{file.source}: TensorRT cannot load its own plan ({_LIBRARY.messages.take()})"
        )
    inspector = _LIBRARY.created("an engine inspector", engine.create_engine_inspector)
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    kinds = {layer["Name"]: layer["LayerType"] for layer in json.loads(text)["Layers"]}
    for node in _plugin_nodes(file):
        kind = kinds.get(node.name)
        if kind != "PluginV3":
            raise _not_a_plugin(file, node, f"lists {kind} in the built engine for")


def _plugin_nodes(file: ModelFile) -> list[Any]:
    return [node for node in file.graph.graph.node if node.domain == DOMAIN]


def _attributes(file: ModelFile, node: Any) -> Mapping[str, float]:
    """Return the attributes of one of our nodes.

    Raises:
        IncompatibleFileError: one is missing; TensorRT would only warn, and pass the others in the
            wrong order.
    """
    found = {each.name: each.f if each.HasField("f") else each.i for each in node.attribute}
    missing = [name for name in ATTRIBUTES if name not in found]
    if missing:
        raise IncompatibleFileError(
            f"{file.source}: node {node.name!r}, operator {node.op_type}: has no "
            f"{', '.join(missing)}; export the checkpoint again with this version"
        )
    return {name: found[name] for name in ATTRIBUTES}


def _not_a_plugin(file: ModelFile, node: Any, what: str) -> IncompatibleFileError:
    return IncompatibleFileError(
        f"{file.source}: TensorRT {what} node {node.name!r}, operator {node.op_type}, expected our "
        "plugin; export the checkpoint again, or build without the plugin: ",
        Argument("lrn", "native"),
    )
