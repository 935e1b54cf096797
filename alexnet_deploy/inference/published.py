"""The public network that weights were imported from, and the accuracy its publisher states."""

from collections.abc import Mapping
from dataclasses import dataclass

from alexnet_deploy.importing.known import KnownNetwork, known_networks
from alexnet_deploy.model.labels import imagenet_names
from alexnet_deploy.model.spec import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedAccuracy:
    """A figure on ImageNet's validation set, by those who published the network.

    Attributes:
        network: its name in `importing.known`.
        top1: 0..1.
        top5: 0..1.
        measured: how they did it.
    """

    network: str
    top1: float
    top5: float
    measured: str


def published_accuracy(spec: ModelSpec) -> PublishedAccuracy | None:
    """Return what is published of the network that a file was imported from."""
    network = _network(spec)
    if network is None or spec.num_classes != len(imagenet_names()):
        return None
    return PublishedAccuracy(
        network=network.name,
        top1=network.top1 / 100,
        top5=network.top5 / 100,
        measured=network.measured,
    )


def network_name(spec: ModelSpec) -> str | None:
    """Return the name in `importing.known` of the network that a file was imported from."""
    network = _network(spec)
    return None if network is None else network.name


def _network(spec: ModelSpec) -> KnownNetwork | None:
    """Look the name up, which is in the provenance: anybody can write that."""
    imported = spec.provenance.get("imported")
    name = imported.get("network") if isinstance(imported, Mapping) else None
    return known_networks().get(name) if isinstance(name, str) else None
