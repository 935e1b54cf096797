"""The public AlexNets: what is known of each, and how to recognize it in any file.

A network is recognized by the hash of a file as it was published, or by the digest of its arrays,
whatever file they are in. The table is `data/known_networks.toml`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from alexnet_deploy.files.records import Matching, Within, check_fields, read_record
from alexnet_deploy.importing.source import Array
from alexnet_deploy.installed import DATA
from alexnet_deploy.model.checkpoints import widened
from alexnet_deploy.model.spec import PresetName

_Accuracy = Annotated[float, Within(0, 100)]
_Text = Annotated[str, Within(most=1000)]
_CHUNK = 1 << 20
_TABLE = DATA / "known_networks.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFile:
    """One file in which a network was published.

    Attributes:
        name: of the file.
        size: in bytes.
        sha256: of the file, or its first digits; "" where only `sha1` was published.
        sha1: of the file, or "".
        urls: where it is, tried in turn; none for a file that is only recognized.
    """

    name: Annotated[str, Matching(r"[\w-][\w.-]{0,199}")]
    size: Annotated[int, Within(1, 10**10)]
    sha256: Annotated[str, Matching("[0-9a-f]{0,64}")]
    sha1: Annotated[str, Matching("|[0-9a-f]{40}")]
    urls: tuple[_Text, ...]

    def __post_init__(self) -> None:
        """Check the fields; see `ModelSpec.__post_init__`."""
        check_fields(self)

    def is_hash_of(self, digests: "FileDigests") -> bool:
        """Return whether a file with these digests is this one."""
        if self.sha256:
            return digests.sha256.startswith(self.sha256)
        return bool(self.sha1) and digests.sha1 == self.sha1


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownNetwork:
    """One public AlexNet.

    Attributes:
        name: by which every command knows it: `torchvision`.
        title: what it is, in a few words.
        page: where its publisher describes it.
        preset: its architecture and preprocessing.
        channels: order in which conv1 reads them, in the published files.
        licence: as its publisher states it.
        top1, top5: accuracy in per cent on ImageNet's validation set, as published.
        measured: how that was measured.
        arrays: `arrays_digest` of its weights; "" where no file could be had.
        files: in which it was published; the first that can be had is taken.
    """

    name: Annotated[str, Matching("[a-z0-9-]{1,40}")]
    title: _Text
    page: _Text
    preset: PresetName
    channels: Literal["RGB", "BGR"]
    licence: _Text
    top1: _Accuracy
    top5: _Accuracy
    measured: _Text
    arrays: Annotated[str, Matching("|[0-9a-f]{64}")]
    files: tuple[KnownFile, ...]

    def __post_init__(self) -> None:
        """Check the fields; see `ModelSpec.__post_init__`."""
        check_fields(self)

    def __str__(self) -> str:
        """Return its name, as messages show a path."""
        return self.name


@dataclass(frozen=True, slots=True)
class FileDigests:
    """The hashes of one file, in hexadecimal digits."""

    sha256: str
    sha1: str


def known_networks() -> Mapping[str, KnownNetwork]:
    """Return the table, by name."""
    return _networks_in(_TABLE)


@cache
def _networks_in(table: Path) -> Mapping[str, KnownNetwork]:
    import tomllib  # slow to import, and most models are files

    rows: list[dict[str, Any]] = tomllib.loads(table.read_text("utf-8"))["network"]
    networks = (read_record(KnownNetwork, row, table.name, "") for row in rows)
    return {network.name: network for network in networks}


def file_digests(path: Path) -> FileDigests:
    """Hash a file.

    Raises:
        OSError: it cannot be read.
    """
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
            sha1.update(chunk)
    return FileDigests(sha256.hexdigest(), sha1.hexdigest())


def network_of_file(digests: FileDigests) -> KnownNetwork | None:
    """Return the network that was published as a file with these hashes."""
    networks = known_networks().values()
    return next((n for n in networks if any(f.is_hash_of(digests) for f in n.files)), None)


def network_of_arrays(digest: str) -> KnownNetwork | None:
    """Return the network whose arrays have this `arrays_digest`."""
    return next((n for n in known_networks().values() if n.arrays == digest), None)


def arrays_digest(arrays: Mapping[str, Array]) -> str:
    """Return the SHA-256 by which weights are recognized in any file.

    It is that of the lines `name shape sha256` of all arrays but conv1.weight, whose channels are
    RGB in some files and BGR in others, sorted by name; the numbers as little-endian float32.

    Args:
        arrays: under the paper's names, not factored.
    """
    lines = []
    for name in sorted(arrays):
        if name not in ("conv1.weight", "mean_image"):
            numbers = np.ascontiguousarray(widened(arrays[name]), "<f4")
            lines.append(f"{name} {list(numbers.shape)} {hashlib.sha256(numbers.data).hexdigest()}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
