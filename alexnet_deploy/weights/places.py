"""Where a published file may be: in the caches of other programs, and at a mirror."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from alexnet_deploy.errors import UsageError
from alexnet_deploy.importing.known import KnownFile

MIRROR_VARIABLE = "ALEXNET_MIRROR"
"""A base URL, or a folder, under which files have the names with which they were published."""

OFFLINE_VARIABLE = "HF_HUB_OFFLINE"
"""As the Hugging Face hub's own programs obey it."""


def is_offline() -> bool:
    """Return whether the environment forbids connections."""
    return os.environ.get(OFFLINE_VARIABLE, "").upper() in ("1", "ON", "YES", "TRUE")


def files_on_disk(file: KnownFile, *folders: Path) -> Iterator[Path]:
    """Yield what may be this file, by its name and size: nothing is read.

    Args:
        file: as it was published.
        folders: to look in, before the caches of torch and of the Hugging Face hub.
    """
    candidates = [folder / file.name for folder in (*folders, _torch_hub() / "checkpoints")]
    with suppress(OSError):
        candidates += sorted(_hugging_face_hub().glob(f"models--*/snapshots/*/**/{file.name}"))
    for path in candidates:
        with suppress(OSError):
            if path.is_file() and path.stat().st_size == file.size:
                yield path


def sources_of(file: KnownFile) -> tuple[str | Path, ...]:
    """Return where to get the file: from `$ALEXNET_MIRROR` if that is set, else its publishers.

    Nowhere, if no publisher is known: its hash may be too short to trust a server.

    Raises:
        UsageError: the variable is neither a URL nor a folder.
    """
    mirror = os.environ.get(MIRROR_VARIABLE)
    if not mirror or not file.urls:
        return file.urls
    base = parsed_source(mirror)
    if isinstance(base, Path):
        return (base / file.name,)
    return (f"{base.rstrip('/')}/{file.name}",)


def parsed_source(text: str) -> str | Path:
    """Return a URL that is fetched as it is, and anything else as a path.

    Raises:
        UsageError: a URL of another kind than http:, https: and file:.
    """
    scheme = urlsplit(text).scheme.lower() if "://" in text else ""
    if scheme in ("http", "https"):
        return text
    if scheme == "file":
        from urllib.request import url2pathname  # brings http and ssl, and most need no network

        return Path(url2pathname(urlsplit(text).path))
    if scheme:
        raise UsageError(
            f"{text}: {scheme}: is not supported; give a file, or an address that begins with "
            "https:, http: or file:"
        )
    return Path(text)


def _torch_hub() -> Path:
    """Return torch.hub's folder, as `torch.hub.get_dir` does."""
    home = os.environ.get("TORCH_HOME")
    return (Path(home).expanduser() if home else _cache() / "torch") / "hub"


def _hugging_face_hub() -> Path:
    """Return the folder of huggingface_hub's cache, as its `constants` do."""
    folder = os.environ.get("HF_HUB_CACHE")
    if folder:
        return Path(folder).expanduser()
    home = os.environ.get("HF_HOME")
    return (Path(home).expanduser() if home else _cache() / "huggingface") / "hub"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
