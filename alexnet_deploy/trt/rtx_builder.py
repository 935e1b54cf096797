"""Build TensorRT-RTX engines, on any machine: it needs no GPU.

An engine holds code for the compute capabilities that it is built for and is compiled to machine
code where it runs. Without a GPU one can inspect the network passed to the builder
(`describe_network`) and whether a file is an engine at all (`rtx_plan`), but not compute results.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from alexnet_deploy.errors import (
    Argument,
    DeviceError,
    IncompatibleFileError,
    MissingPackageError,
    UsageError,
)
from alexnet_deploy.graph.interface import INPUT
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.runtimes.batch_profile import BatchProfile
from alexnet_deploy.runtimes.engine_file import (
    ENGINE_PRECISIONS,
    RTX_OWN_CHOICE,
    EngineFile,
    EngineRecord,
)
from alexnet_deploy.runtimes.tensorrt_library import load_library, without_noise

try:
    import tensorrt_rtx as trt
except ImportError as error:
    raise MissingPackageError("tensorrt-rtx", "rtx", "building a TensorRT-RTX engine") from error

_LIBRARY = load_library("tensorrt-rtx")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorDescription:
    """A tensor of the network: TensorRT's type name ("UINT8", "FLOAT"), -1 for dynamic axes."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDescription:
    """A layer of the network.

    Attributes:
        name: the ONNX node's; layers added by the parser have their own names.
        type: TensorRT's name, "CONVOLUTION" or "LRN".
        outputs: its output tensors.
        numbers: an LRN layer's window_size, alpha, beta and k; else empty.
    """

    name: str
    type: str
    outputs: tuple[TensorDescription, ...]
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkDescription:
    """The network passed to the builder, read back from it.

    Attributes:
        inputs: in the network's order.
        outputs: in the network's order.
        layers: in the network's order.
        profile: smallest, usual and largest shape of the input.
    """

    inputs: tuple[TensorDescription, ...]
    outputs: tuple[TensorDescription, ...]
    layers: tuple[LayerDescription, ...]
    profile: tuple[tuple[int, ...], ...]


def compute_capabilities() -> tuple[str, ...]:
    """Return what this version can build for, as "8.9"."""
    return tuple(_LIBRARY.compute_capabilities())


def build_rtx_engine(
    model: ModelFile, profile: BatchProfile, capabilities: tuple[str, ...] = ()
) -> EngineFile:
    """Build an engine with its record, not yet verified; see `build_rtx_plan`."""
    record = EngineRecord(
        runtime="tensorrt-rtx",
        runtime_version=_LIBRARY.version(),
        cuda_version=None,
        gpu_name=None,
        compute_capabilities=tuple(dict.fromkeys(capabilities)),
        profile=profile,
        precision=model.precision,
        outputs=model.outputs(),
        lrn="native" if model.spec.lrn else "none",
        plugin_sha256=None,
        spec=model.spec,
        identity=model.identity,
        checkpoint=model.checkpoint_identity,
    )
    return EngineFile(record=record, plan=build_rtx_plan(model, profile, capabilities))


def build_rtx_plan(
    model: ModelFile, profile: BatchProfile, capabilities: tuple[str, ...] = ()
) -> bytes:
    """Build an engine; two builds of the same model differ in some bytes.

    Args:
        model: fp32 or fp16, not lowered, without plugin nodes.
        profile: batch sizes that the engine takes.
        capabilities: GPUs to build for, from `compute_capabilities()`; empty for the library's own
            choice, `engine_file.RTX_OWN_CHOICE`. For 7.5 version 1.7.1 builds fp16 only.

    Raises:
        UsageError: a compute capability that the library does not know.
        DeviceError: a precision other than fp32 and fp16.
        IncompatibleFileError: the library cannot parse or build the graph.
    """
    members = [_capability_member(name) for name in dict.fromkeys(capabilities)]
    network = _Network(model)
    config = _LIBRARY.created("a builder configuration", network.builder.create_builder_config)
    # On by default; TF32's 10 bits of mantissa would cost more than verification allows for fp32.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.num_compute_capabilities = len(members)
    taken = [config.set_compute_capability(member, i) for i, member in enumerate(members)]
    taken.append(config.add_optimization_profile(network.profile(profile)) == 0)
    plan = network.builder.build_serialized_network(network.definition, config)
    if plan is None or not all(taken):
        chosen = f"compute capability {', '.join(capabilities)}" if capabilities else RTX_OWN_CHOICE
        raise IncompatibleFileError(
            f"{model.source}: TensorRT-RTX {_LIBRARY.version()} cannot build {model.precision} for "
            f"batches of {profile.min} to {profile.max} on {chosen} ({_LIBRARY.messages.take()}); "
            "change one of these"
        )
    return bytes(plan)


def describe_network(model: ModelFile, profile: BatchProfile | None = None) -> NetworkDescription:
    """Describe the network that `build_rtx_plan` would build from.

    Raises:
        DeviceError: a precision other than fp32 and fp16.
        IncompatibleFileError: the parser rejects the graph.
    """
    network = _Network(model)
    definition = network.definition
    shapes = network.profile(profile or BatchProfile()).get_shape(INPUT)
    return NetworkDescription(
        inputs=tuple(_tensor(definition.get_input(i)) for i in range(definition.num_inputs)),
        outputs=tuple(_tensor(definition.get_output(i)) for i in range(definition.num_outputs)),
        layers=tuple(_layer(definition.get_layer(i)) for i in range(definition.num_layers)),
        profile=tuple(tuple(shape) for shape in shapes),
    )


class _Network:
    """A parsed graph with its parser and builder, which must outlive it."""

    def __init__(self, model: ModelFile) -> None:
        built = ENGINE_PRECISIONS["tensorrt-rtx"]
        if model.precision not in built:
            raise DeviceError(
                f"{model.source}: is {model.precision}, and TensorRT-RTX is used with "
                f"{' and '.join(built)}; export the checkpoint in one of these"
            )
        created = _LIBRARY.created
        self.builder = created("a builder", trt.Builder, _LIBRARY.logger)
        strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        self.definition = created("a network", self.builder.create_network, strongly_typed)
        self._parser = created("a parser", trt.OnnxParser, self.definition, _LIBRARY.logger)
        self._image = (model.spec.input_size, model.spec.input_size, 3)
        if not self._parser.parse(model.to_bytes()):
            raise _parser_error(self._parser, model.source)

    def profile(self, profile: BatchProfile) -> Any:
        """Return `profile` as the library's own object."""
        create = self.builder.create_optimization_profile
        shapes = _LIBRARY.created("an optimization profile", create)
        shapes.set_shape(INPUT, *profile.shapes(self._image))
        return shapes


def _parser_error(parser: Any, source: str) -> IncompatibleFileError:
    """Return the error that names the nodes that the parser rejected, and why."""
    found = [parser.get_error(index) for index in range(parser.num_errors)]
    refused = [
        f"node {each.node_name()!r}, operator {each.node_operator()}: {without_noise(each.desc())}"
        if each.node_operator()
        else without_noise(each.desc())
        for each in found
    ]
    return IncompatibleFileError(
        f"{source}: TensorRT-RTX {_LIBRARY.version()} rejects the graph "
        f"({'; '.join(refused) or _LIBRARY.messages.take()}); it has no plugins: "
        "export the checkpoint again, with standard operators"
    )


def _capability_member(name: str) -> Any:
    members = _LIBRARY.compute_capabilities()
    if name not in members:
        raise UsageError(
            Argument("compute_capabilities", name),
            f": TensorRT-RTX {_LIBRARY.version()} builds for "
            f"{', '.join(members)}; for other GPUs (H100 is 9.0, B200 is 10.0) build a "
            "TensorRT engine, on such a machine",
        )
    return members[name]


def _tensor(tensor: Any) -> TensorDescription:
    return TensorDescription(
        name=tensor.name, dtype=tensor.dtype.name, shape=tuple(map(int, tensor.shape))
    )


def _layer(layer: Any) -> LayerDescription:
    numbers: dict[str, float] = {}
    if layer.type == trt.LayerType.LRN:
        layer.__class__ = trt.ILRNLayer  # the binding returns the base class
        numbers = {name: getattr(layer, name) for name in ("window_size", "alpha", "beta", "k")}
    return LayerDescription(
        name=layer.name,
        type=layer.type.name,
        outputs=tuple(_tensor(layer.get_output(index)) for index in range(layer.num_outputs)),
        numbers=numbers,
    )
