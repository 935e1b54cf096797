"""How vectors were made: one record, as JSON beside an `.npy` and in a Parquet file's metadata."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from alexnet_deploy import __version__
from alexnet_deploy.choices import (
    FILE_PRECISIONS,
    LAYERS,
    Device,
    Pool,
    Relu,
    Runtime,
    StoredType,
)
from alexnet_deploy.files.records import (
    LATER,
    Matching,
    Within,
    check_fields,
    plain_fields,
    read_record,
    require,
)
from alexnet_deploy.inference.activations import pooled_shape
from alexnet_deploy.inference.published import network_name
from alexnet_deploy.model.calibrated import ActivationRanges, check_ranges
from alexnet_deploy.model.spec import ModelSpec
from alexnet_deploy.photographs.pixels import EXACT, Decode
from alexnet_deploy.runtimes.base import Runner
from alexnet_deploy.runtimes.factory import runtime_version

PYTHON = ("python",)
"""The command of vectors that a program made by a call."""
_AGAIN = "embed the photographs again"
_ROW_FIELDS = (
    *("tool_version", "identity", "layers", "dtype", "decode", "precision", "ranges"),
    *("runtime", "runtime_version", "device"),
)
_Text = Annotated[str, Within(most=1000)]
_Count = Annotated[int, Within(0, 2**53)]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLayer:
    """One array of vectors.

    Attributes:
        name: as in `ModelSpec.layer_shapes`.
        shape: of one row: (D,), (C, H, W), or (C,) of maps that were pooled.
        relu: whether the numbers are those before the layer's ReLU or after one; "none" for logits
            and probabilities.
        pool: how maps were reduced to one number a channel.
    """

    name: str
    shape: tuple[int, ...]
    relu: Relu
    pool: Pool

    @classmethod
    def of(cls, name: str, spec: ModelSpec, pool: Pool) -> Self:
        """Return what is kept of a layer of a network."""
        shape = spec.layer_shapes()[name]
        (relu,) = (layer.relu for layer in LAYERS if layer.name == name)
        return cls(
            name=name,
            shape=pooled_shape(shape, pool),
            relu=relu,
            pool=pool if len(shape) > 1 else "none",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """How vectors were made; the numbers of a photograph depend on the `row_fields`.

    Attributes:
        tool, tool_version: what wrote them.
        identity: of the checkpoint.
        network: the public network that it was imported from, if any.
        spec: the network: input, preprocessing and labels among it.
        layers: one for each array, in order.
        dtype: of the arrays.
        decode: how files became pixels.
        precision: arithmetic of the network.
        ranges: of an int8 network that was calibrated for these photographs; else None.
        runtime, runtime_version, device: what computed it; "" for a version that is not known.
        command: the command line, or `PYTHON`.
        date: when the run began that finished the file, UTC.
        num_rows: one for each photograph, in the order given.
        num_failed: rows without numbers, because the photograph could not be read.
        left_out: photographs in the folders that were not tried, by suffix; see `finding`.
    """

    FORMAT: ClassVar[int] = 1

    tool: Literal["alexnet-deploy"] = "alexnet-deploy"
    tool_version: _Text
    identity: _Text
    network: _Text | None
    spec: ModelSpec
    layers: tuple[StoredLayer, ...]
    dtype: StoredType
    decode: Decode
    precision: Annotated[str, Matching("|".join(FILE_PRECISIONS))]
    runtime: Runtime
    runtime_version: _Text
    device: Device
    command: tuple[str, ...]
    date: Annotated[str, Matching(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")]
    num_rows: _Count
    num_failed: _Count
    left_out: Mapping[str, Any]
    ranges: ActivationRanges | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        """Check the fields; see `ModelSpec.__post_init__`."""
        check_fields(self)
        check_ranges(self.ranges, self.precision)
        names = [layer.name for layer in self.layers]
        require(0 < len(names) == len(set(names)), "layers", names, "one or more different ones")
        require(self.num_failed <= self.num_rows, "num_failed", self.num_failed, "at most num_rows")
        known = self.spec.layer_shapes()
        are_own = all(
            layer.name in known and layer == StoredLayer.of(layer.name, self.spec, layer.pool)
            for layer in self.layers
        )
        require(are_own, "layers", names, "layers of the network, each with its shape")
        are_counts = all(type(n) is int and n >= 0 for n in self.left_out.values())
        require(are_counts, "left_out", self.left_out, "numbers")

    def fields(self) -> dict[str, Any]:
        """Return the record as JSON values, with its format."""
        return {
            "format": self.FORMAT,
            **plain_fields(self),
            "spec": json.loads(self.spec.to_json()),
            "left_out": dict(self.left_out),
        }

    def row_fields(self) -> dict[str, Any]:
        """Return those fields on which the numbers of a photograph depend."""
        fields = self.fields()
        return {name: fields[name] for name in _ROW_FIELDS if name in fields}

    def to_json(self) -> str:
        """Return `fields` as one line of ASCII; `from_json` reads it."""
        return json.dumps(self.fields())

    @classmethod
    def from_json(cls, text: str | bytes, source: str) -> "Provenance":
        """Read what `to_json` wrote; `source` names its origin in messages.

        Raises:
            IncompatibleFileError: not JSON, a field missing, unknown or invalid, or another format.
        """
        return read_record(cls, text, source, _AGAIN)


def provenance_of(
    runner: Runner,
    layers: tuple[str, ...],
    *,
    pool: Pool = "none",
    dtype: StoredType = "float32",
    decode: Decode = EXACT,
    command: tuple[str, ...] = PYTHON,
) -> Provenance:
    """Return the record of a run that begins now and has no row yet."""
    options = runner.options
    return Provenance(
        tool_version=__version__,
        identity=runner.identity,
        network=network_name(runner.spec),
        spec=runner.spec,
        layers=tuple(StoredLayer.of(layer, runner.spec, pool) for layer in layers),
        dtype=dtype,
        decode=decode,
        precision=options.precision,
        ranges=options.ranges,
        runtime=options.runtime,
        runtime_version=runtime_version(options.runtime),
        device=options.device,
        command=command,
        date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        num_rows=0,
        num_failed=0,
        left_out={},
    )


def record_path(output: Path) -> Path:
    """Return where the record of an `.npy` is: `vectors.json` of `vectors.npy`."""
    return output.with_suffix(".json")
