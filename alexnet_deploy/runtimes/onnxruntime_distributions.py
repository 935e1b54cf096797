"""Which distributions of ONNX Runtime are installed; asked of pip's records, without importing it.

All of them install one package, `onnxruntime`, into one folder and overwrite each other's files.
"""

import importlib.metadata
import importlib.util
from collections.abc import Iterator

from alexnet_deploy.errors import DeviceError

ONNX_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")


def is_installed_for_gpu() -> bool:
    """Tell whether the `onnxruntime` that Python would import is that of onnxruntime-gpu."""
    return "onnxruntime-gpu" in _imported()


def overwritten_distributions() -> tuple[str, ...]:
    """Return those that were installed over each other; none where all is well.

    Two in different folders do no harm: Python takes the first.
    """
    by_folder: dict[str, list[str]] = {}
    for name in ONNX_RUNTIMES:
        for folder in dict.fromkeys(_folders(name)):
            by_folder.setdefault(folder, []).append(name)
    return next((tuple(names) for names in by_folder.values() if len(names) > 1), ())


def check_distributions() -> None:
    """Refuse what several distributions have left of each other; before it is imported.

    Raises:
        DeviceError: naming them and the way out.
    """
    found = overwritten_distributions()
    if found:
        raise DeviceError(
            f"{' and '.join(found)} are installed over each other, and which of their files are "
            f"left nobody knows: pip uninstall {' '.join(found)}, then "
            "pip install 'alexnet-deploy[cpu]', or [gpu] for an NVIDIA GPU"
        )


def not_importable(error: Exception) -> DeviceError:
    """Return what to say of an `onnxruntime` that is there and raises `error` when imported."""
    return DeviceError(
        f"the package onnxruntime is installed here and cannot be imported "
        f"({type(error).__name__}: {error}); install it again: "
        f"pip install --force-reinstall --no-deps {' '.join(_imported()) or 'onnxruntime'}"
    )


def _imported() -> list[str]:
    """Return the distributions whose files Python would import; one, where all is well."""
    found = importlib.util.find_spec("onnxruntime")
    folders = (found and found.submodule_search_locations) or ()
    return [name for name in ONNX_RUNTIMES if any(folder in folders for folder in _folders(name))]


def _folders(distribution: str) -> Iterator[str]:
    """Yield where each installed copy of `distribution` has the package."""
    for found in importlib.metadata.distributions(name=distribution):
        yield str(found.locate_file("onnxruntime"))
