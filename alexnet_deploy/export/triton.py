"""A model repository for NVIDIA's Triton Inference Server, that takes photographs as bytes.

    NAME/1/model.onnx or model.plan        the network: crops (N, H, W, 3) uint8 to its outputs
    NAME_preprocessing/1/model.py          the bytes of N photographs to crops, by this package
    NAME_ensemble/1/                       one after the other; empty, as Triton wants it
    each with a config.pbtxt, and those that classify with a labels.txt

A configuration is a message ModelConfig (model_config.proto of Triton) in protobuf's text format.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from alexnet_deploy.errors import UsageError
from alexnet_deploy.files.output_files import atomic_directory, atomic_write
from alexnet_deploy.graph.interface import INPUT
from alexnet_deploy.model.layers import layer_names
from alexnet_deploy.model.spec import ModelSpec
from alexnet_deploy.photographs.pixels import EXACT
from alexnet_deploy.runtimes.base import usual_outputs
from alexnet_deploy.runtimes.batch_profile import BatchProfile
from alexnet_deploy.runtimes.engine_file import EngineRecord, read_engine

PHOTOGRAPH = "photograph"
"""The input of preprocessing and ensemble: (N, 1) of bytes, each those of a file."""

_LABELS = "labels.txt"
_MODEL_PY = '''\
"""Decodes, resizes and crops; needs the package alexnet-deploy in the Python of Triton."""

from alexnet_deploy.export.triton_preprocessing import TritonPythonModel as TritonPythonModel
'''


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServedNetwork:
    """What the configurations say of a network.

    Attributes:
        name: of the model, and of its folder; printable, not beginning with a dot.
        spec: of the network.
        outputs: layers that its file offers.
        max_batch: photographs at a time.
    """

    name: str
    spec: ModelSpec
    outputs: tuple[str, ...]
    max_batch: int

    def __post_init__(self) -> None:
        """Refuse a name that is no folder's of its own, or that a configuration cannot hold.

        Raises:
            UsageError: naming it.
        """
        if not self.name.isprintable() or self.name.startswith(".") or "/" in self.name:
            raise UsageError(
                f"{self.name!r}: cannot be the name of a model in Triton, which is that of the "
                "checkpoint without its suffix, expected printable characters, the first no dot; "
                "rename the checkpoint"
            )

    @classmethod
    def of(cls, spec: ModelSpec, name: str, layers: tuple[str, ...], profile: BatchProfile) -> Self:
        """Return what is said of a file that is exported with such layers and batches.

        Args:
            spec: of the network.
            name: of the model.
            layers: as for `layers.layer_names`; none for `usual_outputs`.
            profile: of an engine; of an ONNX file only the largest batch is meant.

        Raises:
            UsageError: a layer that the network does not have, or such a name.
        """
        outputs = layer_names(layers or usual_outputs(spec), spec)
        return cls(name=name, spec=spec, outputs=outputs, max_batch=profile.max)

    @property
    def preprocessing(self) -> str:
        """Name of the model that makes crops."""
        return f"{self.name}_preprocessing"

    @property
    def ensemble(self) -> str:
        """Name of the model that clients call."""
        return f"{self.name}_ensemble"

    @property
    def image(self) -> tuple[int, int, int]:
        """Shape of a crop."""
        return (self.spec.input_size, self.spec.input_size, 3)


@contextmanager
def triton_repository(path: Path, network: ServedNetwork) -> Iterator[Path]:
    """Yield the folder to write `model.onnx` or `model.plan` to; then add all the rest.

    The repository appears at `path` when it is whole, or not at all. A plan keeps its sidecar.

    Args:
        path: of the repository; new, or an empty folder.
        network: what it serves; of an engine, the largest batch of its profile.

    Raises:
        UsageError: there is something at `path`.
        OutputError: it cannot be written.
    """
    with atomic_directory(path) as repository:
        folder = repository / network.name / "1"
        folder.mkdir(parents=True)
        yield folder
        plan = folder / "model.plan"
        record = read_engine(plan).record if plan.exists() else None
        preprocessing = repository / network.preprocessing
        ensemble = repository / network.ensemble
        for other in (preprocessing, ensemble):
            (other / "1").mkdir(parents=True)
        _write(preprocessing / "1" / "model.py", _MODEL_PY)
        _write(preprocessing / "config.pbtxt", _preprocessing_config(network))
        for model, config in (
            (folder.parent, _network_config(network, record)),
            (ensemble, _ensemble_config(network)),
        ):
            _write(model / "config.pbtxt", config)
            if network.spec.labels:
                # A line break in a name would shift the names after it.
                lines = (" ".join(label.split()) for label in network.spec.labels)
                _write(model / _LABELS, "".join(f"{line}\n" for line in lines))


def _network_config(network: ServedNetwork, engine: EngineRecord | None) -> str:
    warm_up = [
        f"{{ name: {_text(f'batch of {size}')} batch_size: {size} inputs {{ key: {_text(INPUT)} "
        f"value {{ data_type: TYPE_UINT8 dims: {list(network.image)} random_data: true }} }} }}"
        for size in sorted({1, network.max_batch})
    ]
    return (
        _head(network.name, "onnxruntime" if engine is None else "tensorrt", network.max_batch)
        + _field("input", [_tensor(INPUT, "UINT8", network.image)])
        + _field("output", _outputs(network))
        + "dynamic_batching { }\n"
        + (_ONNX if engine is None else _engine_fields(engine))
        + "# The first batch of a size takes longer than later ones: no client's is the first.\n"
        + _field("model_warmup", warm_up)
    )


_ONNX = """\
# On each GPU that the server has, else on its CPU.
instance_group [ { kind: KIND_AUTO count: 1 } ]
# fp32 means fp32, not TF32; and no search for kernels with every batch size that comes.
optimization { execution_accelerators { gpu_execution_accelerator [ {
  name: "cuda"
  parameters { key: "use_tf32" value: "0" }
  parameters { key: "cudnn_conv_algo_search" value: "HEURISTIC" }
} ] } }
"""


def _engine_fields(engine: EngineRecord) -> str:
    return (
        "# Two on each GPU: one batch is copied while the other is computed.\n"
        "instance_group [ { kind: KIND_GPU count: 2 } ]\n"
        f"# Only Triton with TensorRT {engine.runtime_version} loads the plan, which was built on "
        f"{engine.gpu_name}.\n"
        + _parameters(
            tensorrt_version=engine.runtime_version,
            compute_capability=" ".join(engine.compute_capabilities),
        )
    )


def _preprocessing_config(network: ServedNetwork) -> str:
    spec = dataclasses.replace(network.spec, labels=(), provenance={})
    return (
        _head(network.preprocessing, "python", network.max_batch)
        + _field("input", [_tensor(PHOTOGRAPH, "STRING", (1,))])
        + _field("output", [_tensor(INPUT, "UINT8", network.image)])
        + "dynamic_batching { }\n"
        + "# One, whose threads use all cores.\n"
        + "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
        + _parameters(decoder=EXACT.decoder, spec=spec.to_json())
    )


def _ensemble_config(network: ServedNetwork) -> str:
    steps = [
        _step(network.preprocessing, [PHOTOGRAPH], [INPUT]),
        _step(network.name, [INPUT], network.outputs),
    ]
    return (
        f"name: {_text(network.ensemble)}\n"
        'platform: "ensemble"\n'
        f"max_batch_size: {network.max_batch}\n"
        + _field("input", [_tensor(PHOTOGRAPH, "STRING", (1,))])
        + _field("output", _outputs(network))
        + f"ensemble_scheduling {{\n{_field('step', steps)}}}\n"
    )


def _step(model: str, inputs: Sequence[str], outputs: Sequence[str]) -> str:
    """Return a step of the ensemble, whose tensors are named as the model names them."""
    maps = [f"input_map {{ key: {_text(name)} value: {_text(name)} }}" for name in inputs]
    maps += [f"output_map {{ key: {_text(name)} value: {_text(name)} }}" for name in outputs]
    return f"{{ model_name: {_text(model)} model_version: -1 {' '.join(maps)} }}"


def _head(name: str, backend: str, max_batch: int) -> str:
    return f"name: {_text(name)}\nbackend: {_text(backend)}\nmax_batch_size: {max_batch}\n"


def _outputs(network: ServedNetwork) -> list[str]:
    """Return the outputs; Triton gives the label of a class to who asks for the likeliest."""
    shapes = network.spec.layer_shapes()
    labelled = ("logits", "probabilities") if network.spec.labels else ()
    return [
        _tensor(name, "FP32", shapes[name], _LABELS if name in labelled else "")
        for name in network.outputs
    ]


def _tensor(name: str, kind: str, shape: Sequence[int], labels: str = "") -> str:
    """Return a tensor; the batch is no part of its shape."""
    label_file = f" label_filename: {_text(labels)}" if labels else ""
    return f"{{ name: {_text(name)} data_type: TYPE_{kind} dims: {list(shape)}{label_file} }}"


def _parameters(**values: str) -> str:
    return _field(
        "parameters",
        [
            f"{{ key: {_text(key)} value {{ string_value: {_text(value)} }} }}"
            for key, value in values.items()
        ],
    )


def _field(name: str, values: Sequence[str]) -> str:
    return f"{name} [\n  " + ",\n  ".join(values) + "\n]\n"


def _text(value: str) -> str:
    """Return a string as protobuf's text format has it, which knows the escapes of JSON."""
    return json.dumps(value, ensure_ascii=False)


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())
