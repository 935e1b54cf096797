"""Adopt state dicts of other programs: the paper's names, and a spec.

torchvision's AlexNet is recognized by its keys. Any other AlexNet needs a preset; its arrays are
matched by the paper's names if it has them, else by shape, whatever their names and order. Shapes
are unique in every preset, except for fc7 and fc8 with 4096 classes, which is rejected.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import Argument, IncompatibleFileError
from alexnet_deploy.model.labels import imagenet_labels
from alexnet_deploy.model.spec import FC_WIDTH, PRESET_NAMES, ModelSpec, preset_spec

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
# Key parts that DataParallel and torch.compile insert where they wrap a module.
_WRAPPERS = ("module", "_orig_mod")
_OUTER = "model."
# The order of the outputs of these networks as published; see data/README.md.
_IMAGENET_ORDER = ("torchvision", "caffe", "caffenet")


def adopt_state_dict(
    arrays: Mapping[str, NDArray[Any]], *, preset: str | None, source: str
) -> tuple[ModelSpec, dict[str, NDArray[Any]]]:
    """Return a spec and the arrays under the paper's names.

    With `preset` "caffe" or "caffenet" the weights are assumed to expect BGR, as in every
    conversion of Caffe's files, and conv1 is flipped to RGB.

    Args:
        arrays: a state dict of 16 arrays; under the paper's names fc6 and fc7 may be factored.
        preset: which AlexNet it is; needed unless the keys are torchvision's.
        source: the file's name, for messages.

    Raises:
        IncompatibleFileError: not recognized, or an array does not fit the preset.
    """
    arrays = _unwrapped(arrays, source)
    if set(arrays) == _TORCHVISION_KEYS and preset in (None, "torchvision"):
        preset = "torchvision"
        named = {_paper_name(key): array for key, array in arrays.items()}
    elif preset is None:
        listed = ", ".join(list(arrays)[:4]) or "none"
        raise IncompatibleFileError(
            f"{source}: has no alexnet-deploy spec and is not torchvision's AlexNet (arrays: "
            f"{listed}, ...); say which AlexNet it is: alexnet-deploy export FILE "
            f"--preset {'|'.join(PRESET_NAMES)}"
        )
    elif {_without_factor(name) for name in arrays} == set(preset_spec(preset).array_shapes()):
        named = dict(arrays)
    else:
        named = _named_by_shape(arrays, preset, source)
    classes = named["fc8.weight"]
    if classes.ndim != 2 or 0 in classes.shape:
        raise IncompatibleFileError(
            f"{source}: fc8's weight is {list(classes.shape)}, expected [classes, {FC_WIDTH}]"
        )
    num_classes = classes.shape[0]
    is_imagenet = preset in _IMAGENET_ORDER and num_classes == 1000
    spec = preset_spec(
        preset, num_classes=num_classes, labels=imagenet_labels() if is_imagenet else ()
    )
    if preset in ("caffe", "caffenet") and named["conv1.weight"].ndim == 4:
        named["conv1.weight"] = np.ascontiguousarray(named["conv1.weight"][:, ::-1])
    return spec, named


def _unwrapped(arrays: Mapping[str, NDArray[Any]], source: str) -> dict[str, NDArray[Any]]:
    """Strip what wrappers add to keys: `model.features.module.0.bias`, `_orig_mod.fc8.bias`."""
    unwrapped: dict[str, NDArray[Any]] = {}
    for key, array in arrays.items():
        name = ".".join(part for part in key.split(".") if part not in _WRAPPERS)
        if name in unwrapped:
            raise IncompatibleFileError(
                f"{source}: holds {name} twice, with and without a wrapper ({key}); "
                "save the state dict of one model only"
            )
        unwrapped[name] = array
    while unwrapped and all(name.startswith(_OUTER) for name in unwrapped):
        unwrapped = {name.removeprefix(_OUTER): array for name, array in unwrapped.items()}
    return unwrapped


def _without_factor(name: str) -> str:
    return re.sub(r"^(fc[67]\.weight)\.(left|right)$", r"\1", name)


def _paper_name(key: str) -> str:
    prefix, _, part = key.rpartition(".")
    return f"{_TORCHVISION[prefix]}.{part}"


def _named_by_shape(
    arrays: Mapping[str, NDArray[Any]], preset: str, source: str
) -> dict[str, NDArray[Any]]:
    """Name each weight by its shape and each bias by the weight that shares its prefix."""
    matrices = {name: array for name, array in arrays.items() if array.ndim in (2, 4)}
    spec = preset_spec(preset, num_classes=_num_classes(matrices, source))
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
                f"{target}; it holds: {found}; choose another ",
                Argument("preset"),
            )
        bias = f"{key.rpartition('.')[0]}.bias" if key.endswith(".weight") else f"{key}.bias"
        if bias not in arrays:
            raise IncompatibleFileError(
                f"{source}: {key} is {layer}'s weight, but its bias {bias} is missing; "
                "AlexNet has a bias in every layer"
            )
        named |= {target: arrays[key], f"{layer}.bias": arrays[bias]}
        taken |= {key, bias}
    unused = [name for name in arrays if name not in taken]
    if unused:
        raise IncompatibleFileError(
            f"{source}: {', '.join(unused[:4])} is not part of a {preset} AlexNet; "
            "remove it from the state dict, or choose another ",
            Argument("preset"),
        )
    return named


def _num_classes(matrices: Mapping[str, NDArray[Any]], source: str) -> int:
    """Count the outputs of fc8, which has 4096 inputs like fc7, but not 4096 outputs."""
    inner = {name: array for name, array in matrices.items() if array.shape[1:] == (FC_WIDTH,)}
    outputs = [len(array) for array in inner.values() if len(array) not in (0, FC_WIDTH)]
    if len(outputs) == 1:
        return outputs[0]
    raise IncompatibleFileError(
        f"{source}: expected one array of [{FC_WIDTH}, {FC_WIDTH}] for fc7 and one of "
        f"[classes, {FC_WIDTH}] for fc8, found "
        f"{', '.join(f'{name} {list(array.shape)}' for name, array in inner.items()) or 'none'}; "
        "rename the arrays to conv1.weight, conv1.bias, ... fc8.bias if they are AlexNet's"
    )
