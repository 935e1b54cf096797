"""What a model's name means: a file, or a public network that was pulled.

A word in the table of `importing.known` is a network's name; anything else is a path, and so is
`./torchvision`.
"""

import difflib
import os
import re
from collections.abc import Callable
from pathlib import Path

from alexnet_deploy import arguments
from alexnet_deploy.errors import UsageError
from alexnet_deploy.importing.known import KnownNetwork, known_networks
from alexnet_deploy.importing.opening import open_weights
from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.weights.places import files_on_disk
from alexnet_deploy.weights.store import load_stored, stored_path

Notify = Callable[[str], None]


def resolve(
    model: str | os.PathLike[str], *, notify: Notify = lambda _: None
) -> KnownNetwork | Path:
    """Return the network that a word names, or the path that anything else is.

    Args:
        model: a `Path` is never a name.
        notify: called with one line where a file has the name of a network.

    Raises:
        UsageError: a single word that is neither a network nor there as a file.
    """
    path = arguments.path("model", model)
    if not isinstance(model, str):
        return path
    network = known_networks().get(model)
    if network is not None:
        if os.path.lexists(path):
            notify(f"{model}: is {network.title}, not the file here; for that give ./{model}")
        return network
    if re.fullmatch(r"[\w-]+", model) and not os.path.lexists(path):
        raise UsageError(_unknown(model, "is neither a file nor a public network"))
    return path


def named_network(name: str) -> KnownNetwork:
    """Return the public network of this name.

    Raises:
        UsageError: there is none.
    """
    network = known_networks().get(name)
    if network is None:
        raise UsageError(_unknown(name, "is no public network"))
    return network


def open_named(network: KnownNetwork) -> Checkpoint:
    """Read a public network from the store.

    Raises:
        IncompatibleFileError: it is damaged.
        UsageError: it is not there.
    """
    path = stored_path(network.name)
    if path is None:
        on_disk = any(True for file in network.files for _ in files_on_disk(file))
        how = (
            "takes it from this disk"
            if on_disk
            else f"fetches {network.files[0].size / 1e6:.0f} MB"
        )
        raise UsageError(
            f"{network.name}: is not here yet; this {how}: alexnet-deploy pull {network.name}"
        )
    return load_stored(network.name, path)


def open_checkpoint(
    model: str | os.PathLike[str], *, notify: Notify = lambda _: None
) -> Checkpoint:
    """Read the weights that a name or a path stands for; see `resolve` and `open_weights`."""
    found = resolve(model, notify=notify)
    return open_weights(found) if isinstance(found, Path) else open_named(found)


def _unknown(word: str, what: str) -> str:
    names = list(known_networks())
    close = difflib.get_close_matches(word.lower(), names, n=1)
    meant = f"; do you mean {close[0]}?" if close else ""
    return f"{word}: {what}; these are public: {', '.join(names)}{meant}"
