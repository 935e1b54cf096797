"""Bring a public network into the store: from this disk, or from where it is published."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alexnet_deploy import installed
from alexnet_deploy.errors import (
    DownloadError,
    IncompatibleFileError,
    MissingPackageError,
    UsageError,
)
from alexnet_deploy.files.input_files import existing_file
from alexnet_deploy.files.output_files import errors_of
from alexnet_deploy.files.private_folders import private_folder
from alexnet_deploy.importing.adoption import ImportOptions
from alexnet_deploy.importing.containers import container_of
from alexnet_deploy.importing.known import KnownFile, KnownNetwork, file_digests
from alexnet_deploy.importing.opening import import_weights
from alexnet_deploy.weights.download import STALL_S, SourceError, download
from alexnet_deploy.weights.places import files_on_disk, is_offline, parsed_source, sources_of
from alexnet_deploy.weights.store import load_stored, store, stored_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """A network that is in the store.

    Attributes:
        path: its file.
        identity: of its numbers.
        source: the file or the address that it came from; None where it was there already.
    """

    path: Path
    identity: str
    source: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporting:
    """How a pull tells what it does.

    Attributes:
        notify: called with one line for a person.
        on_bytes: called with the bytes that have come, and their number in the end.
        stall_s: seconds without a byte after which a connection counts as broken.
    """

    notify: Callable[[str], None] = lambda _: None
    on_bytes: Callable[[int, int], None] = lambda come, total: None
    stall_s: float = STALL_S


_SILENT = Reporting()


def pull(
    network: KnownNetwork,
    *,
    source: str | None = None,
    offline: bool = False,
    reporting: Reporting = _SILENT,
) -> Pulled:
    """Bring a network into the store, verified, unless it is there and as it was written.

    Args:
        network: which.
        source: the only file, folder or address to take it from; None for all that are known.
        offline: whether to open no connection; also `$HF_HUB_OFFLINE`.
        reporting: what tells how far it is.

    Raises:
        DownloadError: nothing that was asked gives it.
        IncompatibleFileError: `source` is a file in which it was not published.
        MissingPackageError: its file cannot be read here; then it is not fetched.
        OutputError: the store cannot be written.
        UsageError: `source` is no file, or an address while connections are forbidden.
    """
    there = stored_path(network.name)
    if there is not None:
        try:
            identity = load_stored(network.name, there).identity
            _remove_fetched(network, there.parent)
            return Pulled(path=there, identity=identity, source=None)
        except IncompatibleFileError as error:
            reporting.notify(f"{error}; that is done now")
    folder = private_folder("data")
    path, origin = _obtained(network, source, offline or is_offline(), folder, reporting)
    checkpoint = import_weights(path, ImportOptions()).checkpoint
    stored = store(network.name, checkpoint)
    _remove_fetched(network, folder)
    return Pulled(path=stored, identity=checkpoint.identity, source=origin)


def _remove_fetched(network: KnownNetwork, folder: Path) -> None:
    """Remove what this pull has fetched, and what another that was broken off has left."""
    for file in network.files:
        for path in (folder / file.name, folder / f"{file.name}.part"):
            with errors_of(path):
                path.unlink(missing_ok=True)


def _obtained(
    network: KnownNetwork, source: str | None, offline: bool, folder: Path, reporting: Reporting
) -> tuple[Path, str]:
    """Return a file in which the network was published, and where it is from."""
    if source is None:
        copy = _copy(network, folder, reporting)
        if copy is not None:
            return copy, str(copy)
        places = [(file, place) for file in network.files for place in sources_of(file)]
    else:
        place = parsed_source(source)
        if isinstance(place, Path):
            return _given(network, place), str(place)
        if offline:
            raise UsageError(f"{source}: is an address, and connections are forbidden")
        names = {file.name: file for file in network.files}
        places = [(names.get(place.rpartition("/")[2], network.files[0]), place)]
    if offline:
        places = [(file, place) for file, place in places if isinstance(place, Path)]
    reasons: list[str] = []
    for file, place in places:
        if reasons:
            reporting.notify(reasons[-1])
        try:
            return _fetched(file, place, folder, reporting), str(place)
        except SourceError as error:
            reasons.append(f"{place}: {error}")
    first = network.files[0]
    if offline and not reasons:
        why = "connections are forbidden"
    else:
        why = f"nothing that was asked gives it: {'; '.join(reasons)}"
    raise DownloadError(
        f"{network.name}: is not on this disk, and {why}. Try again later, or get {first.name} "
        f"({first.size:,} bytes) in another way, and then: "
        f"alexnet-deploy pull {network.name} --from FILE"
    )


def _copy(network: KnownNetwork, folder: Path, reporting: Reporting) -> Path | None:
    """Return a copy that is on this disk and as it was published, None if there is none."""
    for file in network.files:
        for path in files_on_disk(file, folder):
            if _is(file, path):
                return path
            reporting.notify(
                f"{path}: is not used, since it cannot be read, is damaged or another file"
            )
    return None


def _given(network: KnownNetwork, path: Path) -> Path:
    """Return the file at `path`, or in that folder, in which the network was published."""
    if os.path.isdir(path):  # which no name is too long for
        inside = (path / file.name for file in network.files)
        path = next((one for one in inside if os.path.isfile(one)), path / network.files[0].name)
    existing_file(path, f"a file in which {network.name} was published, or a folder with it")
    digests = file_digests(path)
    if not any(file.is_hash_of(digests) for file in network.files):
        container_of(path)  # tells what it is, if it is no weights at all
        raise IncompatibleFileError(
            f"{path}: is none of the files in which {network.name} was published (its SHA-256 is "
            f"{digests.sha256}); to use its weights all the same: alexnet-deploy import FILE"
        )
    return path


def _fetched(file: KnownFile, place: str | Path, folder: Path, reporting: Reporting) -> Path:
    """Return the file at a mirror's folder where it is, or fetch it."""
    if isinstance(place, Path):
        if not os.path.isfile(place):
            raise SourceError("no such file")
        if not _is(file, place):
            raise SourceError("cannot be read, is another file, or damaged")
        return place
    _check_readable(file)
    reporting.notify(f"fetching {file.name} ({file.size / 1e6:.1f} MB) from {place}")
    download(
        place,
        folder / file.name,
        file,
        on_bytes=lambda come: reporting.on_bytes(come, file.size),
        stall_s=reporting.stall_s,
    )
    return folder / file.name


def _check_readable(file: KnownFile) -> None:
    """Refuse to fetch what could not be read here."""
    if file.name.endswith(".pth") and not installed.has_module("torch"):
        raise MissingPackageError("torch", "torch", f"reading {file.name}")
    if file.name.endswith(".onnx") and not installed.has_module("onnx"):
        raise MissingPackageError("onnx", "cpu", f"reading {file.name}")


def _is(file: KnownFile, path: Path) -> bool:
    """Return whether a file on this disk can be read, and is as it was published."""
    try:
        return file.is_hash_of(file_digests(path))
    except OSError:
        return False
