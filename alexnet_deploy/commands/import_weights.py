"""`alexnet-deploy import`."""

import dataclasses
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alexnet_deploy.console.paths import FILE
from alexnet_deploy.console.reporting import print_result, say
from alexnet_deploy.errors import Message, UsageError
from alexnet_deploy.files.path_text import printable

if TYPE_CHECKING:
    from alexnet_deploy.importing.opening import Import

_SUFFIXES = (".tar", ".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".caffemodel", ".onnx")


@click.command(
    "import", epilog="Example: alexnet-deploy import alexnet.caffemodel -o caffe.safetensors"
)
@click.argument("source", type=FILE)
@click.option(
    "-o", "--output", type=FILE, help="Checkpoint to write.  [default: SOURCE's name .safetensors]"
)
@click.option(
    "--preset",
    help="Which AlexNet it is, where its file does not show it: paper, torchvision, caffe, "
    "caffenet, caffe-224, caffenet-224, ungrouped.",
)
@click.option(
    "--labels",
    metavar="FILE|imagenet",
    help="Class names, one per line, in output order; imagenet for the 1000 of ILSVRC 2012.  "
    "[default: those of a public network, else none]",
)
@click.option(
    "--head",
    type=click.Choice(["fc8", "none"]),
    default="fc8",
    show_default=True,
    help="none leaves fc8 out: vectors and search need none.",
)
@click.option(
    "--channels",
    type=click.Choice(["RGB", "BGR"], case_sensitive=False),
    help="Order of the channels that conv1 reads.  [default: BGR for Caffe's networks, else RGB]",
)
@click.option("--key", help="Beginning of the arrays' names, where there are several networks.")
@click.option("--prototxt", type=FILE, help="Description of a Caffe model that holds none.")
@click.option("--mean", type=FILE, help="Mean photograph of a Caffe model: .binaryproto or .npy.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def import_(
    source: Path,
    output: Path | None,
    labels: str | None,
    prototxt: Path | None,
    mean: Path | None,
    dry_run: bool,
    as_json: bool,
    **said: Any,
) -> None:
    """Take the weights of an AlexNet from another program's file into a checkpoint.

    SOURCE is a torch checkpoint (a state dict, alone or in whatever a trainer saves), a
    .safetensors file, a .caffemodel, an .onnx file, or a directory of the Hugging Face hub; what
    it is, its content tells, not its name. Which array is which is printed before anything is
    written. An .onnx file is also run as it is, and the checkpoint must compute the same (exit 4).
    """
    from alexnet_deploy.importing.adoption import ImportOptions
    from alexnet_deploy.importing.opening import import_weights
    from alexnet_deploy.model.checkpoints import save_checkpoint

    target = None if dry_run else output or _default_output(source)
    if target is not None:
        _refuse_to_write_over(target, source, prototxt, mean)
    options = ImportOptions(labels=_labels(labels), **said)
    imported = import_weights(source, options, prototxt=prototxt, mean=mean)
    comparison = None
    if imported.adopted and imported.kind == "onnx":
        # Here, since it needs onnx and onnxruntime, which the other files do not.
        from alexnet_deploy.verification.foreign import compare_on_samples

        channels = imported.adopted.channels
        comparison = compare_on_samples(source, imported.checkpoint, channels=channels)
    if not as_json:
        print_result(_table(imported))
        if comparison is not None:
            print_result(str(comparison))
    for note in imported.notes:
        say(Message("note: ", note))
    if comparison is not None:
        comparison.raise_if_failed(printable(source))
    if target is not None:
        save_checkpoint(imported.checkpoint, target)
    if as_json:
        compared = comparison and dataclasses.asdict(comparison)
        fields = _fields(imported) | {"comparison": compared, "file": target and str(target)}
        print_result(json.dumps({"source": str(source)} | fields))
    elif target is not None:
        print_result(f"{printable(target)}: {target.stat().st_size / 1e6:.1f} MB")


def _default_output(source: Path) -> Path:
    """Return `model_best.safetensors` for `model_best.pth.tar`."""
    name = source.resolve().name
    while (suffix := Path(name).suffix.lower()) in _SUFFIXES:
        name = name[: -len(suffix)]
    return Path(f"{name}.safetensors")


def _refuse_to_write_over(target: Path, *inputs: Path | None) -> None:
    """Raise an error if `target` is one of the inputs, or a file in one that is a directory."""
    for given in inputs:
        with suppress(OSError):  # its reader says what is wrong with it
            files = given.iterdir() if given and given.is_dir() else filter(None, [given])
            if any(file.exists() and target.samefile(file) for file in files):
                raise UsageError(f"{printable(target)}: is what is read; name another file with -o")


def _labels(said: str | None) -> tuple[str, ...] | None:
    from alexnet_deploy.model.labels import imagenet_labels, read_labels

    if said is None:
        return None
    return imagenet_labels() if said == "imagenet" else read_labels(Path(said))


def _rows(imported: "Import") -> list[dict[str, Any]]:
    """Return each array of the checkpoint with where it came from."""
    places = imported.adopted.places if imported.adopted else {}
    arrays = imported.checkpoint.arrays
    return [
        {"name": name, "source": places.get(name, name), "shape": list(arrays[name].shape)}
        for name in arrays
    ]


def _table(imported: "Import") -> str:
    """Return which array is which, as aligned text, and what the spec was taken from."""
    rows = [(printable(row["source"]), str(row["shape"]), row["name"]) for row in _rows(imported)]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [f"{source:<{widths[0]}}  {shape:<{widths[1]}}  {name}" for source, shape, name in rows]
    adopted = imported.adopted
    if adopted is not None:
        if adopted.unused:
            shown = ", ".join(map(printable, adopted.unused[:4]))
            more = f" and {len(adopted.unused) - 4:,} more" if len(adopted.unused) > 4 else ""
            lines.append(f"not used: {shown}{more}")
        spec = imported.checkpoint.spec
        labels = f"{len(spec.labels):,} labels" if spec.labels else "no labels"
        lines.append(
            f"{imported.container}; {spec.preset} AlexNet, {spec.num_classes:,} classes, {labels}, "
            f"conv1 reads {adopted.channels}: {adopted.reason}"
        )
    return "\n".join(lines)


def _fields(imported: "Import") -> dict[str, Any]:
    """Return what --json prints of what was read."""
    from alexnet_deploy.importing.known import arrays_digest

    adopted = imported.adopted
    return {
        "container": imported.container,
        "network": adopted and adopted.network and adopted.network.name,
        "reason": adopted and adopted.reason,
        "channels": adopted and adopted.channels,
        "arrays": _rows(imported),
        "unused": list(adopted.unused) if adopted else [],
        "digest": arrays_digest(imported.checkpoint.arrays),
        "identity": imported.checkpoint.identity,
    }
