"""The environment of the checks' processes: checkout, unpacked wheels, a separate cache."""

import os
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from gpu_checks.check import ROOT

_OWN_VARIABLES = ("ALEXNET_MODEL", "ALEXNET_INDEX")
_ARCHIVES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip", ".egg", ".conda")


def unpack_wheels(folder: Path, target: Path) -> tuple[str, ...]:
    """Unpack every wheel of `folder`, as pip would into site-packages; return their names.

    Nothing is installed, and installed packages are not changed.

    Raises:
        ValueError: the folder holds no wheel, a damaged one, or another archive.
        OSError: it cannot be read, or there is not enough space.
    """
    others = sorted(path.name for path in folder.iterdir() if path.name.endswith(_ARCHIVES))
    if others:
        raise ValueError(
            f"{folder}: {', '.join(others)}: not wheels; build wheels from them with: pip wheel "
            f"--no-deps {' '.join(others)}, and remove them from the folder"
        )
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise ValueError(f"{folder}: holds no .whl file")
    for wheel in wheels:
        try:
            with zipfile.ZipFile(wheel) as archive:
                for member in archive.infolist():
                    member.filename = _installed_name(member.filename)
                    archive.extract(member, target)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{wheel}: not a wheel ({error}); fetch it again") from error
    return tuple(wheel.name for wheel in wheels)


def unpacked_in(scratch: Path) -> Path:
    """Return the folder that wheels are unpacked to."""
    return scratch / "wheels"


def environment(scratch: Path, *, wheels_first: bool) -> dict[str, str]:
    """Return the variables of a check's process.

    torch ships its own CUDA libraries, which others of the same name must not replace. So checks
    that need torch have the wheels after everything installed, without their libraries; for the
    others the wheels take precedence.

    Args:
        scratch: also for the cache of exported models: the user's is neither used nor filled.
        wheels_first: whether the wheels come before everything installed, or after.
    """
    variables = {name: text for name, text in os.environ.items() if name not in _OWN_VARIABLES}
    wheels = unpacked_in(scratch)
    first, last = [ROOT, ROOT / "tools"], list[Path]()
    if wheels.is_dir() and wheels_first:
        first.insert(0, wheels)
        # Unpacked libraries look for CUDA beside themselves, where it may not be.
        variables |= _joined(variables, "LD_LIBRARY_PATH", _cuda_folders(wheels))
    elif wheels.is_dir():
        # Python puts PYTHONPATH before installed packages, so their folders are listed too.
        last = [*(Path(place) for place in sys.path if place), wheels]
    return variables | {
        **_joined(variables, "PYTHONPATH", first, last),
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        "XDG_CACHE_HOME": str(scratch / "cache"),
        "XDG_STATE_HOME": str(scratch / "state"),
    }


def _installed_name(name: str) -> str:
    """Return a member's target path: NAME.data/purelib and platlib go to the top level."""
    first, _, rest = name.partition("/")
    kind, _, inner = rest.partition("/")
    is_library = first.endswith(".data") and kind in ("purelib", "platlib") and inner
    return inner if is_library else name


def _cuda_folders(wheels: Path) -> list[Path]:
    """Return the library folders of NVIDIA's packages, those of the wheels first."""
    return [
        folder
        for place in dict.fromkeys([str(wheels), *sys.path])
        for folder in sorted(Path(place).glob("nvidia/*/lib"))
    ]


def _joined(
    variables: Mapping[str, str], name: str, first: Sequence[Path], last: Sequence[Path] = ()
) -> dict[str, str]:
    """Prepend and append folders to those of a variable."""
    parts = [*map(str, first), *filter(None, [variables.get(name)]), *map(str, last)]
    return {name: os.pathsep.join(parts)} if parts else {}
