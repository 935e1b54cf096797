"""The accuracy that a public network's publisher states, to put beside what is measured here."""

from collections.abc import Mapping
from dataclasses import dataclass

from alexnet_deploy.importing.known import known_networks
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
    """Return what is published of the network that a file was imported from.

    Its name is in the provenance, which anybody can write: any other content means None.
    """
    imported = spec.provenance.get("imported")
    name = imported.get("network") if isinstance(imported, Mapping) else None
    network = known_networks().get(name) if isinstance(name, str) else None
    if network is None or spec.num_classes != len(imagenet_names()):
        return None
    return PublishedAccuracy(
        network=network.name,
        top1=network.top1 / 100,
        top5=network.top5 / 100,
        measured=network.measured,
    )
