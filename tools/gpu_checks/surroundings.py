"""What the processes of the checks find: the checkout, unpacked wheels, a cache of their own."""

import os
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from gpu_checks.check import ROOT

_OWN_VARIABLES = ("ALEXNET_MODEL", "ALEXNET_INDEX")
_ARCHIVES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip", ".egg", ".conda")


def unpack_wheels(folder: Path, target: Path) -> tuple[str, ...]:
    """Unpack every wheel of `folder`, as pip would have into site-packages; return their names.

    Nothing is installed, and nothing that is installed is changed.

    Raises:
        ValueError: the folder holds no wheel, one that is damaged, or another archive.
        OSError: it cannot be read, or there is no room.
    """
    others = sorted(path.name for path in folder.iterdir() if path.name.endswith(_ARCHIVES))
    if others:
        raise ValueError(
            f"{folder}: {', '.join(others)}: no wheel; make wheels of them with: pip wheel "
            f"--no-deps {' '.join(others)}, and take them out of the folder"
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
    """Return where the wheels are unpacked to, if there are any."""
    return scratch / "wheels"


def environment(scratch: Path, *, wheels_first: bool) -> dict[str, str]:
    """Return the variables of a check's process.

    torch comes with CUDA libraries of its own, for which others of the same name must not be
    loaded in their place. So the checks that need it have the wheels behind all that is installed,
    and their libraries not at all; the others take the wheels in place of what is installed.

    Args:
        scratch: the cache of exported models goes there: the user's is neither used nor filled.
        wheels_first: what of the wheels is to be found, before all else; or else behind.
    """
    variables = {name: text for name, text in os.environ.items() if name not in _OWN_VARIABLES}
    wheels = unpacked_in(scratch)
    first, last = [ROOT, ROOT / "tools"], list[Path]()
    if wheels.is_dir() and wheels_first:
        first.insert(0, wheels)
        # Unpacked libraries look for CUDA beside themselves, where it need not be.
        variables |= _joined(variables, "LD_LIBRARY_PATH", _cuda_folders(wheels))
    elif wheels.is_dir():
        # Python puts what the variable names before what is installed, so that is named, too.
        last = [*(Path(place) for place in sys.path if place), wheels]
    return variables | {
        **_joined(variables, "PYTHONPATH", first, last),
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        "XDG_CACHE_HOME": str(scratch / "cache"),
    }


def _installed_name(name: str) -> str:
    """Return where a member goes: what is in NAME.data/purelib and platlib goes to the top."""
    first, _, rest = name.partition("/")
    kind, _, inner = rest.partition("/")
    is_library = first.endswith(".data") and kind in ("purelib", "platlib") and inner
    return inner if is_library else name


def _cuda_folders(wheels: Path) -> list[Path]:
    """Return where NVIDIA's packages have their libraries, those of the wheels first."""
    return [
        folder
        for place in dict.fromkeys([str(wheels), *sys.path])
        for folder in sorted(Path(place).glob("nvidia/*/lib"))
    ]


def _joined(
    variables: Mapping[str, str], name: str, first: Sequence[Path], last: Sequence[Path] = ()
) -> dict[str, str]:
    """Put folders before those that a variable has, and others behind."""
    parts = [*map(str, first), *filter(None, [variables.get(name)]), *map(str, last)]
    return {name: os.pathsep.join(parts)} if parts else {}
