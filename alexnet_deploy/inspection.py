"""What a checkpoint, a model file or an index is: architecture, identity, provenance, proof."""

import os
import textwrap
from pathlib import Path
from typing import Any

from alexnet_deploy.checkpoints import Checkpoint, load_checkpoint
from alexnet_deploy.errors import UsageError
from alexnet_deploy.index.status import describe_index, readable_index
from alexnet_deploy.input_files import existing_file
from alexnet_deploy.model_file import read_model
from alexnet_deploy.model_spec import ModelSpec
from alexnet_deploy.path_text import path_fields, printable


def describe(path: Path, *, check: bool = False) -> dict[str, Any]:
    """Read a file and return what it is, as JSON values; of a directory see `describe_index`.

    Keys: path, kind ("checkpoint" or "onnx"), size_bytes, fingerprint, preset, parameters
    (weights and biases of the dense network), spec (all of it but labels and provenance),
    layers (name to shape without the batch), arrays (name to "dtype shape"), labels, provenance;
    for "onnx" also outputs, unchanged (since it was exported) and report (None when it was never
    verified). A path that is not UTF-8 comes with path_base64.

    Args:
        path: a checkpoint, an .onnx file, or the directory of an index.
        check: read all of an index, and name what is wrong.

    Raises:
        UsageError: there is no such file, or it may not be read; `check` for a file.
        IncompatibleFileError: not one of ours, or damaged.
    """
    if os.path.isdir(path):  # Path.is_dir raises where a name is too long
        return describe_index(path, check=check)
    if check:
        raise UsageError(f"{path}: --check is for an index; for a model use alexnet-deploy verify")
    existing_file(path, "a checkpoint, an .onnx file or an index")
    if path.suffix == ".onnx":
        file = read_model(path)
        return _described(path, "onnx", file.spec, file.fingerprint, file.weights()) | {
            "outputs": list(file.outputs()),
            "unchanged": file.is_unchanged(),
            "report": file.report,
        }
    checkpoint = load_checkpoint(path)
    return _described(path, "checkpoint", checkpoint.spec, checkpoint.fingerprint, checkpoint)


def readable(description: dict[str, Any]) -> str:
    """Return `describe`'s result as text for a terminal, whatever the file's strings hold."""
    if description["kind"] == "index":
        return readable_index(description)
    spec = description["spec"]
    size = spec["input_size"]
    preprocessing = spec["preprocessing"]
    lines = [
        f"{description['path']}: {description['kind']}, {description['size_bytes'] / 1e6:.1f} MB",
        f"  fingerprint   {description['fingerprint']}",
        f"  network       {description['preset']} AlexNet, {len(description['labels'])} labels, "
        f"{description['parameters']:,} parameters",
        f"  input         RGB {size}x{size}; {preprocessing['resize'].replace('_', ' ')} to "
        f"{preprocessing['resize_to']} px ({preprocessing['filter']}), centre crop",
        f"  mean, std     {_numbers(preprocessing['mean'])}; {_numbers(preprocessing['std'])}",
        f"  normalisation {_normalisation(spec['lrn'])}",
        f"  stored as     {_stored(description['arrays'])}",
    ]
    if "outputs" in description:
        lines.append(f"  outputs       {', '.join(description['outputs'])}")
        verification = _verification(description["report"])
        if not description["unchanged"]:
            verification = "CHANGED since it was exported: copy it again or export it again"
        lines.append(f"  verification  {verification}")
    labels = description["labels"]
    if labels:
        lines.append(f"  labels        {', '.join(labels[:6])}{', ...' if len(labels) > 6 else ''}")
    for key, value in description["provenance"].items():
        text = f"  {key:<13} {_flat(value)}"
        lines += textwrap.wrap(text, 100, subsequent_indent=" " * 16, break_long_words=False)
    return "\n".join(map(printable, lines))


def _described(
    path: Path, kind: str, spec: ModelSpec, fingerprint: str, weights: Checkpoint
) -> dict[str, Any]:
    return {
        **path_fields(path),
        "kind": kind,
        "size_bytes": path.stat().st_size,
        "fingerprint": fingerprint,
        "preset": spec.preset,
        "parameters": weights.num_parameters(),
        "spec": spec.identity(),
        "layers": {name: list(shape) for name, shape in spec.layer_shapes().items()},
        "arrays": {
            name: f"{array.dtype.name} {list(array.shape)}"
            for name, array in weights.arrays.items()
        },
        "labels": list(spec.labels),
        "provenance": dict(spec.provenance),
    }


def _flat(value: object) -> str:
    """Return JSON of any depth as words."""
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')}: {_flat(part)}" for key, part in value.items())
    return str(value)


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.2f}" for value in values)


def _normalisation(lrn: dict[str, Any] | None) -> str:
    if lrn is None:
        return "none"
    where = "before" if lrn["position"] == "before_pool" else "after"
    towers = f"within each of {lrn['towers']} towers" if lrn["towers"] > 1 else "all channels"
    constants = f"k={lrn['k']:g} n={lrn['size']} alpha={lrn['alpha']:g}/n beta={lrn['beta']:g}"
    return f"LRN {constants}, {towers}, {where} pooling"


def _stored(arrays: dict[str, str]) -> str:
    kinds = sorted({line.split()[0] for line in arrays.values()})
    factored = sorted({name.split(".")[0] for name in arrays if name.endswith(".left")})
    return ", ".join(kinds) + (f"; {' and '.join(factored)} as two factors" if factored else "")


def _verification(report: dict[str, Any] | None) -> str:
    if report is None:
        return "never verified; run: alexnet-deploy verify FILE"
    verdict = "passed" if report["passed"] else "FAILED"
    return f"{verdict} on {report['num_photographs']} photographs, {report['runs']}"
