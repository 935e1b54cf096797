"""Give a foreign network the paper's names and a spec, checked as far as its file allows.

What a file's graph states is taken from there; a preset adds how photographs are prepared. Where a
file holds arrays alone, widths and groups follow from their shapes, torchvision's network from its
names, and a public one from its digest; any other needs a preset, which nothing here can check.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from alexnet_deploy.errors import Argument, IncompatibleFileError, Message, UsageError
from alexnet_deploy.importing.known import KnownNetwork, arrays_digest, network_of_arrays
from alexnet_deploy.importing.matching import find_network, groups_of
from alexnet_deploy.importing.source import Array, Source, StatedNetwork
from alexnet_deploy.model.checkpoints import Checkpoint, checked
from alexnet_deploy.model.labels import imagenet_labels
from alexnet_deploy.model.spec import PRESETS, ModelSpec, preset_spec

Channels = Literal["RGB", "BGR"]
Head = Literal["fc8", "none"]

# Positions in torchvision's two Sequentials (torchvision/models/alexnet.py).
_TORCHVISION = {
    "conv1": "features.0",
    "conv2": "features.3",
    "conv3": "features.6",
    "conv4": "features.8",
    "conv5": "features.10",
    "fc6": "classifier.1",
    "fc7": "classifier.4",
}
_STATED = ("input_size", "conv1_padding", "pool_padding", "lrn")


class UndecidedError(UsageError):
    """A file could be several networks, and nobody said which.

    Attributes:
        reason: why, without what to do.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; say which it is: ", Argument("preset"))
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What a person says of a foreign file.

    Attributes:
        preset: which AlexNet it is.
        labels: one name per class.
        head: "none" leaves fc8 out.
        channels: in which order conv1 reads them.
        key: the beginning of the arrays' names, where a file holds several networks.
    """

    preset: str | None = None
    labels: tuple[str, ...] | None = None
    head: Head = "fc8"
    channels: Channels | None = None
    key: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Adopted:
    """A foreign network as a checkpoint.

    Attributes:
        checkpoint: in RGB, under the paper's names.
        places: the paper's name of each array -> the file's.
        unused: the file's arrays that are no part of the network.
        network: the public network that it is, None for any other.
        reason: what the spec was taken from, for people.
        channels: the order in the file.
    """

    checkpoint: Checkpoint
    places: Mapping[str, str]
    unused: tuple[str, ...]
    network: KnownNetwork | None
    reason: str
    channels: Channels


def adopt(
    source: Source, path: str, options: ImportOptions, network: KnownNetwork | None = None
) -> Adopted:
    """Return what a file holds as a checkpoint.

    Args:
        source: the file's content.
        path: its name, for messages.
        options: what was said of it.
        network: the public network that the file is by its hash.

    Raises:
        IncompatibleFileError: no AlexNet, or not the one that `options` names.
        UsageError: an option that contradicts what is known, or is missing.
    """
    places, unused = _places(source, path, options)
    named = {name: as_matrix(name, source.arrays[place]) for name, place in places.items()}
    network = network or network_of_arrays(arrays_digest(named))
    shown = _shown(source.stated, named, path)
    possible = [
        name for name in PRESETS if _is_possible(PRESETS[name], source.stated, named, shown)
    ]
    base, reason = _base(source, places, possible, path, options, network)
    channels = _channels(source.stated, base, options, network)
    spec = _spec(source.stated, base, shown, channels)
    labels = options.labels
    if labels is None and network is not None and spec.num_classes == 1000:
        labels = imagenet_labels()
    if source.mean_image is not None:
        named["mean_image"] = source.mean_image
    if channels == "BGR":
        named["conv1.weight"] = np.ascontiguousarray(named["conv1.weight"][:, ::-1])
        if "mean_image" in named:
            named["mean_image"] = np.ascontiguousarray(named["mean_image"][::-1])
    remedy = Message(f"this is not the network of {spec.preset}: see ", Argument("preset"))
    checkpoint = checked(named, spec, path, remedy)
    return Adopted(
        checkpoint=checkpoint if labels is None else checkpoint.with_labels(labels),
        places=places,
        unused=unused,
        network=network,
        reason=reason,
        channels=channels,
    )


def _places(
    source: Source, path: str, options: ImportOptions
) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """Return which array is which, and which are left over."""
    if source.places is None:
        match = find_network(source.arrays, path, has_head=options.head == "fc8", key=options.key)
        return match.places, match.unused
    places = dict(source.places)
    if options.head == "none":
        places = {name: place for name, place in places.items() if not name.startswith("fc8")}
    elif "fc8.weight" not in places:
        raise IncompatibleFileError(
            f"{path}: has no fc8, so it classifies nothing; to take it for its layers up to fc7, "
            "add ",
            Argument("head", "none"),
        )
    used = set(places.values())
    return places, tuple(name for name in source.arrays if name not in used)


def as_matrix(name: str, array: Array) -> Array:
    """Return a fully connected layer's weight as (out, in), also where it was a convolution."""
    is_matrix = name.startswith("fc") and array.ndim == 4
    return array.reshape(len(array), -1) if is_matrix else array


def _shown(stated: StatedNetwork | None, named: Mapping[str, Array], path: str) -> dict[str, Any]:
    """Return the fields of a spec that the arrays' shapes show.

    Raises:
        IncompatibleFileError: the shapes are of another network than the file states.
    """
    kernels = [named[f"conv{number}.weight"] for number in range(1, 6)]
    groups = groups_of(kernels)
    if groups is None or (stated is not None and groups != stated.groups):
        shapes = ", ".join(str(list(kernel.shape)) for kernel in kernels)
        described = f" in groups {stated.groups}, as its description says" if stated else ""
        raise IncompatibleFileError(
            f"{path}: its kernels {shapes} do not follow one another{described}; give weights and "
            "description of one network"
        )
    return {
        "widths": tuple(map(len, kernels)),
        "groups": groups,
        "num_classes": len(named["fc8.weight"]) if "fc8.weight" in named else 0,
    }


def _base(
    source: Source,
    places: Mapping[str, str],
    possible: Sequence[str],
    path: str,
    options: ImportOptions,
    network: KnownNetwork | None,
) -> tuple[ModelSpec, str]:
    """Choose the preset, and say why."""
    wanted = options.preset
    if wanted is not None:
        preset_spec(wanted)  # refuses a name that there is not
    if network is not None:
        if wanted not in (None, network.preset):
            raise UsageError(
                f"{path}: is {network.title}, so ",
                Argument("preset", wanted),
                f" is wrong: it is {network.preset}; omit it",
            )
        return PRESETS[network.preset], f"known: {network.title}"
    if wanted is not None:
        if possible and wanted not in possible:
            raise UsageError(
                f"{path}: does not have the architecture of ",
                Argument("preset", wanted),
                f", but that of {' or '.join(possible)}",
            )
        what = "its preprocessing" if source.stated else "it"
        return PRESETS[wanted], (
            f"{what} is taken as {wanted}'s because you said so; nothing here can check that"
        )
    if source.stated is not None and len(possible) == 1:
        return PRESETS[possible[0]], f"its graph is that of {possible[0]}"
    if source.stated is None and possible == ["torchvision"] and _is_torchvisions(places):
        return PRESETS["torchvision"], "its names and shapes are torchvision's"
    if source.stated is not None and not possible:
        raise UndecidedError(
            f"{path}: is an AlexNet whose graph is none of {', '.join(PRESETS)}, so nothing says "
            "how photographs are prepared for it; one of these may do the same"
        )
    raise UndecidedError(
        f"{path}: could be {', '.join(possible) or 'any AlexNet'}, which differ in what its arrays "
        "do not show: padding, normalization, preprocessing"
    )


def _is_possible(
    preset: ModelSpec,
    stated: StatedNetwork | None,
    named: Mapping[str, Array],
    shown: Mapping[str, Any],
) -> bool:
    """Return whether a network of these shapes, and as its file states it, can be the preset."""
    if (shown["widths"], shown["groups"]) != (preset.widths, preset.groups):
        return False
    if stated is not None:
        return all(getattr(stated, name) == getattr(preset, name) for name in _STATED)
    return bool(named["fc6.weight"].shape == preset.array_shapes()["fc6.weight"])


def _is_torchvisions(places: Mapping[str, str]) -> bool:
    """Return whether the names end as torchvision's do, whatever wraps them."""
    # Without what DataParallel and torch.compile put between the parts.
    names = {
        ours: re.sub(r"\.(module|_orig_mod)\.", ".", f".{name}") for ours, name in places.items()
    }
    return all(
        names[f"{layer}.weight"].endswith(f".{place}.weight")
        for layer, place in _TORCHVISION.items()
    )


def _channels(
    stated: StatedNetwork | None,
    base: ModelSpec,
    options: ImportOptions,
    network: KnownNetwork | None,
) -> Channels:
    """Return in which order conv1 reads the channels."""
    if options.channels is not None:
        return options.channels
    if network is not None:
        return network.channels
    if stated is not None and stated.mean is not None and len(set(stated.mean)) > 1:
        # Photographs have more red than blue: every published mean shows it.
        return "BGR" if stated.mean[0] < stated.mean[-1] else "RGB"
    return "BGR" if base.preset.startswith("caffe") else "RGB"


def _spec(
    stated: StatedNetwork | None,
    base: ModelSpec,
    shown: Mapping[str, Any],
    channels: Channels,
) -> ModelSpec:
    """Return the preset with all that arrays and file say in its place."""
    if stated is None:
        return dataclasses.replace(base, **shown)
    changed = {name: getattr(stated, name) for name in _STATED}
    preprocessing = base.preprocessing
    if stated.mean is not None and stated.std is not None:
        mean, std = _in_rgb(stated.mean, channels), _in_rgb(stated.std, channels)
        preprocessing = dataclasses.replace(preprocessing, mean=mean, std=std)
    if preprocessing.resize_to < stated.input_size:
        preprocessing = dataclasses.replace(preprocessing, resize_to=stated.input_size)
    return dataclasses.replace(base, **shown, **changed, preprocessing=preprocessing)


def _in_rgb(values: tuple[float, float, float], channels: Channels) -> tuple[float, float, float]:
    first, second, third = values
    return (third, second, first) if channels == "BGR" else values
