"""The immutable part of an index: its format and the vector space of its vectors."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from alexnet_deploy.choices import FILE_PRECISIONS, LAYERS, Metric
from alexnet_deploy.errors import Argument, IncompatibleFileError, UsageError
from alexnet_deploy.files.output_files import atomic_write
from alexnet_deploy.files.records import (
    LATER,
    Matching,
    Within,
    plain_fields,
    read_record,
    require,
)
from alexnet_deploy.files.regular_files import read_file
from alexnet_deploy.model.calibrated import ActivationRanges, check_ranges
from alexnet_deploy.model.spec import FC_WIDTH, ModelSpec
from alexnet_deploy.photographs.pixels import EXACT, Decode
from alexnet_deploy.runtimes.base import Runner

MANIFEST_NAME = "manifest.json"
SEGMENT_BYTES = 2**30
MAX_DIMENSION = 10**7
_AGAIN = "index again into another directory"
_Name = Annotated[str, Within(1, 1000)]
FOREIGN_LAYER = "vector"
_FOREIGN = "foreign:"
_Layer = Annotated[str, Matching("|".join((FOREIGN_LAYER, *(layer.name for layer in LAYERS))))]


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorSpace:
    """Everything that two vectors must share to be comparable.

    A foreign space is that of vectors which another program made: its identity is "foreign:" and
    the name that the user gave that program's model, its layer "vector", of any dimension, its
    preprocessing empty. Its precision and decode say nothing. No network of ours computes such
    vectors, so no photograph can be embedded; what is imported and given as a vector is searched.

    Attributes:
        identity: of the network: in fp32 the checkpoint's.
        layer: a name of `ModelSpec.layer_shapes`; maps are flattened in (C, H, W) order.
        dimension: D, the length of a vector.
        preprocessing: input size and the fields of the spec's preprocessing, as JSON values.
        precision: arithmetic of the network.
        decode: how files become pixels.
        ranges: of a checkpoint in int8, with which its network is made again; else None. They are
            part of the identity.
    """

    identity: _Name
    layer: _Layer
    dimension: Annotated[int, Within(1, MAX_DIMENSION)]
    preprocessing: Mapping[str, Any]
    precision: Annotated[str, Matching("|".join(FILE_PRECISIONS))]
    decode: Decode
    ranges: ActivationRanges | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        """Check that the ranges are of an int8 network, and a foreign layer of a foreign space."""
        check_ranges(self.ranges, self.precision)
        is_own = self.layer != FOREIGN_LAYER
        require(self.is_foreign != is_own, "layer", self.layer, "that of its identity's network")

    @classmethod
    def foreign(cls, made_by: str, dimension: int) -> Self:
        """Return the space of vectors of another program."""
        return cls(
            identity=f"{_FOREIGN}{made_by}",
            layer=FOREIGN_LAYER,
            dimension=dimension,
            preprocessing={},
            precision="fp32",
            decode=EXACT,
        )

    @property
    def is_foreign(self) -> bool:
        """Whether its vectors were made by another program."""
        return self.identity.startswith(_FOREIGN)

    @property
    def made_by(self) -> str | None:
        """The name that a user gave what made the vectors of a foreign space; else None."""
        return self.identity.removeprefix(_FOREIGN) if self.is_foreign else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The contents of `manifest.json`.

    Attributes:
        space: what the vectors are.
        metric: the default metric of a search. Vectors are not normalized, so each search may
            choose.
        segment_rows: vectors in a full segment.
    """

    FORMAT: ClassVar[int] = 2

    space: VectorSpace
    metric: Metric = "cosine"
    segment_rows: Annotated[int, Within(1, 2**31)]

    @classmethod
    def of(cls, space: VectorSpace) -> Self:
        """Return the manifest of a new index of a vector space."""
        return cls(space=space, segment_rows=max(1, SEGMENT_BYTES // (2 * space.dimension)))

    def to_json(self) -> bytes:
        """Return its JSON, in ASCII; `from_json` reads it."""
        fields = {"format": self.FORMAT, **plain_fields(self)}
        return json.dumps(fields, indent=1).encode("ascii")

    @classmethod
    def from_json(cls, text: bytes, path: Path) -> "Manifest":
        """Read what `to_json` wrote; `path` names its origin in messages.

        Raises:
            IncompatibleFileError: it is damaged, or has another format.
        """
        manifest = read_record(cls, text, str(path), _AGAIN)
        _check_dimension(manifest.space, path)
        return manifest


def new_manifest(runner: Runner, *, layer: str, decode: Decode) -> Manifest:
    """Return the manifest of a new index of `layer`."""
    space = vector_space(
        runner.spec,
        identity=runner.identity,
        layer=layer,
        precision=runner.options.precision,
        decode=decode,
        ranges=runner.options.ranges,
    )
    return Manifest.of(space)


def vector_space(
    spec: ModelSpec,
    *,
    identity: str,
    layer: str,
    precision: str,
    decode: Decode,
    ranges: ActivationRanges | None,
) -> VectorSpace:
    """Return the vector space of a model."""
    dimension = 1
    for size in spec.layer_shapes()[layer]:
        dimension *= size
    return VectorSpace(
        identity=identity,
        layer=layer,
        dimension=dimension,
        preprocessing=preprocessing_of(spec),
        precision=precision,
        decode=decode,
        ranges=ranges,
    )


def preprocessing_of(spec: ModelSpec) -> dict[str, Any]:
    """Return what `VectorSpace.preprocessing` holds for `spec`."""
    fields = {"input_size": spec.input_size, **plain_fields(spec.preprocessing)}
    plain: dict[str, Any] = json.loads(json.dumps(fields))  # tuples become lists
    return plain


def write_manifest(manifest: Manifest, directory: Path) -> None:
    """Write `manifest.json` atomically, which makes the directory an index."""
    with atomic_write(directory / MANIFEST_NAME) as file:
        file.write(manifest.to_json() + b"\n")


def read_manifest(directory: Path) -> Manifest:
    """Read `manifest.json`.

    Raises:
        UsageError: the directory does not exist.
        IncompatibleFileError: the directory is not an index, is damaged, or has another format.
    """
    path = directory / MANIFEST_NAME
    try:
        text = read_file(path, _AGAIN, follow_links=False)
    except FileNotFoundError as error:
        if not os.path.exists(directory):
            raise UsageError(
                f"index {directory}: does not exist; make it with "
                "alexnet-deploy index PHOTOS --index DIR, or name another ",
                Argument("directory"),
            ) from error
        raise IncompatibleFileError(
            f"index {directory}: holds no {MANIFEST_NAME}, so it is not an index; name another ",
            Argument("directory"),
        ) from error
    except NotADirectoryError as error:
        raise UsageError(f"index {directory}: is a file, expected a directory") from error
    return Manifest.from_json(text, path)


def _check_dimension(space: VectorSpace, path: Path) -> None:
    """Reject a dimension that its layer cannot have in any network.

    That of other layers depends on the spec, which is not in the manifest; with vectors of another
    length their checksums would disagree.
    """
    if space.layer.startswith("fc") and space.dimension != FC_WIDTH:
        raise IncompatibleFileError(
            f"{path}: damaged (its vectors of {space.layer} have dimension {space.dimension:,}, "
            f"expected {FC_WIDTH:,}); {_AGAIN}"
        )


def check_space(directory: Path, space: VectorSpace, asked: Mapping[str, Any]) -> None:
    """Reject values that are not those of the index's vector space.

    Args:
        directory: of the index, for the message.
        space: the index's.
        asked: requested values of some fields of `VectorSpace`.

    Raises:
        IncompatibleFileError: naming each difference and the remedy.
    """
    decode = asked.get("decode", space.decode)
    own = space.decode
    if decode.scale == own.scale and decode.decoder != own.decoder:  # which no option chooses
        raise IncompatibleFileError(
            f"index {directory}: its photographs were decoded by {own.decoder}, this "
            f"version decodes by {decode.decoder}, whose vectors cannot be compared with its; "
            f"{_AGAIN}"
        )
    differences = list(_differences(space, asked))
    if differences:
        raise IncompatibleFileError(
            f"index {directory}: {'; '.join(differences)}; vectors of the two cannot be compared: "
            "use the index's own, or index again into another ",
            Argument("directory"),
        )


def _differences(space: VectorSpace, asked: Mapping[str, Any]) -> Iterator[str]:
    for name, value in asked.items():
        own = getattr(space, name)
        if own != value:
            words = name.replace("_", " ")
            yield f"its {words} is {_short(own)}, requested was {_short(value)}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
