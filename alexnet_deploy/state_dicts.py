"""State dicts of other programs, given the paper's names and a spec.

torchvision's AlexNet is recognised by its keys. Any other network of AlexNet's shape is taken
with a preset: its arrays are told apart by their shapes, which differ in every layer, so the
names do not matter. The arrays themselves are used as they are.
"""

from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.model_spec import PRESET_NAMES, ModelSpec, preset_spec

# Positions in torchvision's two Sequentials (torchvision/models/alexnet.py).
_TORCHVISION = {
    "features.0": "conv1",
    "features.3": "conv2",
    "features.6": "conv3",
    "features.8": "conv4",
    "features.10": "conv5",
    "classifier.1": "fc6",
    "classifier.4": "fc7",
    "classifier.6": "fc8",
}
_TORCHVISION_KEYS = {f"{prefix}.{part}" for prefix in _TORCHVISION for part in ("weight", "bias")}
# Prefixes that DataParallel, compiled modules and common wrappers put before every key.
_WRAPPERS = ("module.", "_orig_mod.", "model.")


def adopt_state_dict(
    arrays: Mapping[str, NDArray[Any]], *, preset: str | None, source: str
) -> tuple[ModelSpec, dict[str, NDArray[Any]]]:
    """Return a spec and the arrays under the paper's names.

    With `preset` "caffe" or "caffenet" the weights are taken to read BGR, as every conversion of
    Caffe's files does, and conv1 is turned to RGB.

    Args:
        arrays: a state dict of 16 arrays.
        preset: which AlexNet it is; needed unless the keys are torchvision's.
        source: the file's name, for messages.

    Raises:
        IncompatibleFileError: not recognised, or an array does not fit the preset.
    """
    arrays = _unwrapped(arrays)
    if set(arrays) == _TORCHVISION_KEYS and preset in (None, "torchvision"):
        preset = "torchvision"
        named = {_paper_name(key): array for key, array in arrays.items()}
    elif preset is None:
        listed = ", ".join(list(arrays)[:4]) or "none"
        raise IncompatibleFileError(
            f"{source}: has no spec of ours and is no torchvision AlexNet (arrays: {listed}, ...); "
            f"say which AlexNet it is: alexnet-deploy export FILE --preset {'|'.join(PRESET_NAMES)}"
        )
    else:
        named = _named_by_shape(arrays, preset, source)
    num_classes = int(named["fc8.weight"].shape[0]) if "fc8.weight" in named else 1000
    labels = imagenet_labels() if preset == "torchvision" and num_classes == 1000 else ()
    spec = preset_spec(preset, num_classes=num_classes, labels=labels)
    if preset in ("caffe", "caffenet"):
        named["conv1.weight"] = np.ascontiguousarray(named["conv1.weight"][:, ::-1])
    return spec, named


def imagenet_labels() -> tuple[str, ...]:
    """Return the 1000 ILSVRC-2012 names in sorted-WNID order, torchvision's output order."""
    table = resources.files("alexnet_deploy") / "data" / "imagenet_classes.tsv"
    rows = table.read_text("utf-8").splitlines()[1:]
    return tuple(row.split("\t")[2] for row in rows)


def _unwrapped(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    names = dict(arrays)
    for prefix in _WRAPPERS:
        if names and all(name.startswith(prefix) for name in names):
            names = {name.removeprefix(prefix): array for name, array in names.items()}
    return names


def _paper_name(key: str) -> str:
    prefix, _, part = key.rpartition(".")
    return f"{_TORCHVISION[prefix]}.{part}"


def _named_by_shape(
    arrays: Mapping[str, NDArray[Any]], preset: str, source: str
) -> dict[str, NDArray[Any]]:
    """Name each weight by its shape and each bias by the weight that shares its prefix."""
    matrices = {name: array for name, array in arrays.items() if array.ndim in (2, 4)}
    last = next((array for array in reversed(matrices.values()) if array.ndim == 2), None)
    spec = preset_spec(preset, num_classes=1000 if last is None else max(1, last.shape[0]))
    named: dict[str, NDArray[Any]] = {}
    taken: set[str] = set()
    for target, shape in spec.array_shapes().items():
        layer, part = target.split(".")
        if part == "bias":
            continue
        key = next((k for k, a in matrices.items() if a.shape == shape and k not in taken), None)
        if key is None:
            found = ", ".join(f"{k} {list(a.shape)}" for k, a in list(matrices.items())[:8])
            raise IncompatibleFileError(
                f"{source}: no array has the shape {list(shape)} of the {preset} preset's "
                f"{target}; it holds: {found}; choose another --preset"
            )
        bias = f"{key.rpartition('.')[0]}.bias" if key.endswith(".weight") else f"{key}.bias"
        if bias not in arrays:
            raise IncompatibleFileError(
                f"{source}: {key} is {layer}'s weight, and its bias {bias} is missing; "
                "AlexNet has a bias in every layer"
            )
        named |= {target: arrays[key], f"{layer}.bias": arrays[bias]}
        taken |= {key, bias}
    unused = [name for name in arrays if name not in taken]
    if unused:
        raise IncompatibleFileError(
            f"{source}: {', '.join(unused[:4])} is not part of a {preset} AlexNet; "
            "remove it from the state dict, or choose another --preset"
        )
    return named
