"""What a caller's word for a model means: a file, or a public network that was pulled.

A word in the table of `importing.known` is a network's name; anything else is a path, and so is
`./torchvision`.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from alexnet_deploy import arguments
from alexnet_deploy.errors import UsageError
from alexnet_deploy.files.input_files import existing_file
from alexnet_deploy.importing.known import KnownNetwork, known_networks
from alexnet_deploy.model.checkpoints import Checkpoint, load_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.weights.places import files_on_disk
from alexnet_deploy.weights.store import load_stored, stored_path

MODEL_VARIABLE = "ALEXNET_MODEL"

ModelSource = KnownNetwork | Path
"""A public network in the store, or a file; its text is what a person would write."""


def chosen_model(
    model: str | os.PathLike[str] | None = None, *, notify: Callable[[str], None] = lambda _: None
) -> ModelSource:
    """Return the network that a word names, or the path that anything else is.

    Args:
        model: a `Path` is never a name; None for `$ALEXNET_MODEL`, else the bundled checkpoint.
        notify: called with one line where a file has the name of a network.

    Raises:
        UsageError: a single word that is neither a network nor there as a file, or the variable
            does not name a readable file.
    """
    if model is not None:
        return _resolved(model, notify)
    variable = os.environ.get(MODEL_VARIABLE)
    if not variable:
        return bundled_checkpoint()
    try:
        source = _resolved(variable, notify)
    except UsageError as error:
        raise UsageError(f"${MODEL_VARIABLE}: {error}") from error
    if isinstance(source, Path):
        existing_file(source, f"a checkpoint, an .onnx or an .engine file in ${MODEL_VARIABLE}")
    return source


def _resolved(model: str | os.PathLike[str], notify: Callable[[str], None]) -> ModelSource:
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


def open_checkpoint(source: ModelSource) -> Checkpoint:
    """Read the weights of a public network, or of a file as `open_weights` does.

    Raises:
        IncompatibleFileError, MissingPackageError, UsageError: as `open_named` and `open_weights`.
    """
    if isinstance(source, KnownNetwork):
        return open_named(source)
    if source == bundled_checkpoint():
        return load_checkpoint(source)
    # Here, because the readers of other programs' files take a while to load.
    from alexnet_deploy.importing.opening import open_weights

    return open_weights(source)


def open_named(network: KnownNetwork) -> Checkpoint:
    """Read a public network from the store.

    Raises:
        IncompatibleFileError: it is damaged.
        UsageError: it is not there.
    """
    return load_stored(network.name, _path_of(network))


def file_of(source: ModelSource) -> Path:
    """Return the file that a source is, or in which the store has it, as it was written.

    Raises:
        IncompatibleFileError, UsageError: as `open_named`.
    """
    if isinstance(source, Path):
        return source
    open_named(source)
    return _path_of(source)


def _path_of(network: KnownNetwork) -> Path:
    path = stored_path(network.name)
    if path is not None:
        return path
    on_disk = any(True for file in network.files for _ in files_on_disk(file))
    how = "takes it from this disk" if on_disk else f"fetches {network.files[0].size / 1e6:.0f} MB"
    raise UsageError(
        f"{network.name}: is not here yet; this {how}: alexnet-deploy pull {network.name}"
    )


def _unknown(word: str, what: str) -> str:
    import difflib  # slow to import, for what is seldom needed

    names = list(known_networks())
    close = difflib.get_close_matches(word.lower(), names, n=1)
    meant = f"; do you mean {close[0]}?" if close else ""
    return f"{word}: {what}; these are public: {', '.join(names)}{meant}"
