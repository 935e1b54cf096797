"""Read weights from any file that holds an AlexNet: ours, or another program's, by content."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alexnet_deploy.errors import UsageError
from alexnet_deploy.files.input_files import existing_file
from alexnet_deploy.importing.adoption import Adopted, ImportOptions, UndecidedError, adopt
from alexnet_deploy.importing.containers import Container, check_own_hash, container_of
from alexnet_deploy.importing.directories import read_directory
from alexnet_deploy.importing.known import file_digests, known_networks, network_of_file
from alexnet_deploy.importing.source import Source
from alexnet_deploy.model.checkpoints import Checkpoint, checkpoint_of, read_arrays

_KINDS = {"torch": "torch checkpoint", "safetensors": "safetensors file"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Import:
    """Weights from any file.

    Attributes:
        checkpoint: with where it came from in its provenance, if it is not ours.
        kind: of file.
        container: the same, for people.
        adopted: how another program's file became a checkpoint; None for one of ours.
        notes: what else a person should know of the file.
    """

    checkpoint: Checkpoint
    kind: Container | Literal["directory"]
    container: str
    adopted: Adopted | None = None
    notes: tuple[str, ...] = ()


def open_weights(path: Path) -> Checkpoint:
    """Read a checkpoint of ours, or any file whose network is recognized without being told.

    Raises:
        IncompatibleFileError: damaged, no weights, or no AlexNet.
        MissingPackageError: a torch file, and torch is not installed.
        UsageError: no such file, or it must be said which AlexNet it is, by importing it.
    """
    try:
        return import_weights(path, ImportOptions()).checkpoint
    except UndecidedError as error:
        raise UsageError(
            f"{error.reason}; say which it is, once: alexnet-deploy import FILE -o CKPT"
        ) from error


def import_weights(
    path: Path,
    options: ImportOptions,
    *,
    prototxt: Path | None = None,
    mean: Path | None = None,
) -> Import:
    """Read the weights of an AlexNet from any file, by its content.

    Args:
        path: a torch checkpoint, `.safetensors`, `.caffemodel`, `.onnx`, or a directory as the
            Hugging Face hub has it.
        options: what is said of it.
        prototxt: the description of a Caffe model that holds none.
        mean: the mean photograph of a Caffe model.

    Raises:
        IncompatibleFileError: damaged, no weights, no AlexNet, or not the one that was said.
        MissingPackageError: a torch file and torch is not installed, or an ONNX file and onnx.
        UsageError: no such file, or an option is missing, does not apply, or contradicts the file.
    """
    if os.path.isdir(path):  # which no name is too long for
        arrays, container = read_directory(path)
        return _adopted(Source(container=container, arrays=arrays), "directory", path, options)
    existing_file(path, "a file with weights: .safetensors, .pt, .pth, .ckpt, .caffemodel, .onnx")
    kind = container_of(path)
    if kind != "caffe" and (prototxt or mean):
        raise UsageError(f"{path}: is no Caffe model, so a prototxt or a mean does not apply")
    if kind == "caffe":
        from alexnet_deploy.importing.caffe_files import read_caffe

        return _adopted(read_caffe(path, prototxt, mean), kind, path, options)
    if kind == "onnx":
        from alexnet_deploy.importing.onnx_files import read_onnx

        found = read_onnx(path)
        if isinstance(found, Checkpoint):
            return _own(found, kind, "ONNX model of alexnet-deploy", path, options)
        return _adopted(found.source, kind, path, options)
    check_own_hash(path)
    arrays, spec_json = read_arrays(path, kind)
    if spec_json is None:
        return _adopted(Source(container=_KINDS[kind], arrays=arrays), kind, path, options)
    checkpoint = checkpoint_of(arrays, spec_json, path)
    return _own(checkpoint, kind, "checkpoint of alexnet-deploy", path, options)


def _own(
    checkpoint: Checkpoint, kind: Container, container: str, path: Path, options: ImportOptions
) -> Import:
    """Take a file of ours as it is; only labels may be given to it."""
    if dataclasses.replace(options, labels=None) != ImportOptions():
        raise UsageError(f"{path}: has its own spec, so only labels can be given to it")
    if options.labels is not None:
        checkpoint = checkpoint.with_labels(options.labels)
    return Import(checkpoint=checkpoint, kind=kind, container=container)


def _adopted(
    source: Source, kind: Container | Literal["directory"], path: Path, options: ImportOptions
) -> Import:
    digests = None if path.is_dir() else file_digests(path)
    network = None if digests is None else network_of_file(digests)
    adopted = adopt(source, str(path), options, network)
    origin = {
        "file": path.name,
        "container": source.container,
        "sha256": digests and digests.sha256,
        "network": adopted.network and adopted.network.name,
        "licence": adopted.network and adopted.network.licence,
    }
    provenance = {"imported": {name: value for name, value in origin.items() if value is not None}}
    checkpoint = adopted.checkpoint
    spec = dataclasses.replace(checkpoint.spec, provenance=provenance)
    return Import(
        checkpoint=Checkpoint(spec=spec, arrays=checkpoint.arrays),
        kind=kind,
        container=source.container,
        adopted=adopted,
        notes=source.notes if adopted.network else (*source.notes, *_namesake_note(path)),
    )


def _namesake_note(path: Path) -> tuple[str, ...]:
    """Say so if a file that is no public network has the name of one's, as a damaged copy has."""
    names = {file.name for network in known_networks().values() for file in network.files}
    if path.name not in names:
        return ()
    return (f"its SHA-256 is not that of the {path.name} that is public: another, or damaged",)
