"""Packages in a folder of wheels: unpacked, and put beside those that are installed.

All go into one folder, so that a package may come in several archives. One that is too large to
carry is smaller without the code of other GPUs: overwritten by zeros in a library's section
.nv_fatbin, what is not of the GPU's architecture compresses to nothing. onnxruntime-gpu for compute
capability 9.0 then takes 63 MB in two archives, which no GPU has run yet.
"""

import os
import sys
import zipfile
from pathlib import Path


def unpack_wheels(folder: Path, target: Path) -> tuple[str, ...]:
    """Unpack every wheel of `folder`, as pip would into site-packages; return their names.

    Nothing is installed, and installed packages are not changed.

    Raises:
        ValueError: the folder holds anything else, nothing, or a damaged wheel.
        OSError: it cannot be read, or there is not enough space.
    """
    wheels = sorted(folder.iterdir())
    others = [path.name for path in wheels if path.suffix != ".whl"]
    if others or not wheels:
        raise ValueError(
            f"{folder}: expected wheels, and it holds {', '.join(others) or 'nothing'}; make a "
            "wheel of a package's source with: pip wheel --no-deps FILE"
        )
    for wheel in wheels:
        try:
            with zipfile.ZipFile(wheel) as archive:
                for member in archive.infolist():
                    member.filename = _installed_name(member.filename)
                    archive.extract(member, target)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{wheel}: not a wheel ({error}); fetch it again") from error
    return tuple(wheel.name for wheel in wheels)


def search_paths(wheels: Path, *, first: bool) -> dict[str, str]:
    """Return PYTHONPATH and LD_LIBRARY_PATH for a process that is to find unpacked wheels, too.

    torch ships its own CUDA libraries, which others of the same name must not replace.

    Args:
        wheels: the folder that they were unpacked to.
        first: whether they and their libraries come before everything installed, or after.
    """
    given = os.environ.get("LD_LIBRARY_PATH", "")
    installed = [place for place in sys.path if place]
    places = [str(wheels), *installed] if first else [*installed, str(wheels)]
    # Unpacked libraries look for CUDA beside themselves, where it may not be.
    libraries = [f"{path}" for place in places for path in sorted(Path(place).glob("nvidia/*/lib"))]
    return {
        "PYTHONPATH": os.pathsep.join(places),
        "LD_LIBRARY_PATH": os.pathsep.join([*dict.fromkeys(libraries), *filter(None, [given])]),
    }


def _installed_name(name: str) -> str:
    """Return a member's target path: NAME.data/purelib and platlib go to the top level."""
    first, _, rest = name.partition("/")
    kind, _, inner = rest.partition("/")
    is_library = first.endswith(".data") and kind in ("purelib", "platlib") and inner
    return inner if is_library else name
