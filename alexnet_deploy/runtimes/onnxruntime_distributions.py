"""Which distributions of ONNX Runtime are installed, from pip's records, without importing it.

All of them install one package, `onnxruntime`, into one folder and overwrite each other's files.
"""

import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

from alexnet_deploy.errors import DeviceError

ONNX_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")


def is_installed_for_gpu() -> bool:
    """Return whether the `onnxruntime` that Python would import is onnxruntime-gpu's."""
    # A glance at names first: pip's records take long to read, and most machines have no such one.
    beside = (Path(folder).parent for folder in _package_folders())
    is_named = any(any(folder.glob("onnxruntime[-_]gpu*")) for folder in beside)
    return is_named and "onnxruntime-gpu" in _imported()


def overwritten_distributions() -> tuple[str, ...]:
    """Return the distributions installed over each other; none if all is well.

    Two in different folders are harmless: Python takes the first.
    """
    by_folder: dict[str, list[str]] = {}
    for name in ONNX_RUNTIMES:
        for folder in dict.fromkeys(_folders(name)):
            by_folder.setdefault(folder, []).append(name)
    return next((tuple(names) for names in by_folder.values() if len(names) > 1), ())


def check_distributions() -> None:
    """Reject distributions installed over each other, before importing.

    Raises:
        DeviceError: naming them and the remedy.
    """
    found = overwritten_distributions()
    if found:
        raise DeviceError(
            f"{' and '.join(found)} are installed over each other, and which of their files are "
            f"left is unknown: pip uninstall {' '.join(found)}, then "
            "pip install 'alexnet-deploy[cpu]', or [gpu] for an NVIDIA GPU"
        )


def not_importable(error: Exception) -> DeviceError:
    """Return the error for an installed `onnxruntime` that raises `error` on import."""
    return DeviceError(
        f"the package onnxruntime is installed here and cannot be imported "
        f"({type(error).__name__}: {error}); install it again: "
        f"pip install --force-reinstall --no-deps {' '.join(_imported()) or 'onnxruntime'}"
    )


def _imported() -> list[str]:
    """Return the distributions whose files Python would import; one if all is well."""
    folders = _package_folders()
    return [name for name in ONNX_RUNTIMES if any(folder in folders for folder in _folders(name))]


def _package_folders() -> Iterable[str]:
    """Return where the package is that Python would import."""
    found = importlib.util.find_spec("onnxruntime")
    return (found and found.submodule_search_locations) or ()


def _folders(distribution: str) -> Iterator[str]:
    """Yield the package folder of each installed copy of `distribution`."""
    from importlib import metadata  # slow to import, see `is_installed_for_gpu`

    for found in metadata.distributions(name=distribution):
        yield str(found.locate_file("onnxruntime"))
