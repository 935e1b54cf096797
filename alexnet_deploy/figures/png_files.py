"""Write figures and sheets as PNG, over nothing but earlier ones."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from alexnet_deploy.errors import UsageError
from alexnet_deploy.files.output_files import atomic_write

DPI = (200, 200)
_MARK = ("Software", "alexnet-deploy")


@contextmanager
def open_png(path: Path) -> Iterator[Callable[[Image.Image], object]]:
    """Open a PNG; yields the function that saves the picture in it.

    Only a picture that this package drew is replaced: a shell that expands `*.png` after the option
    for the figure makes the first photograph its value.

    Raises:
        UsageError: `path` is a file that this package did not draw.
        OutputError: the file cannot be written.
    """
    if path.is_file() and path.stat().st_size and not _is_ours(path):
        raise UsageError(
            f"{path}: exists, and alexnet-deploy did not draw it; remove it or name another file"
        )
    with atomic_write(path) as file:
        mark = PngInfo()
        mark.add_text(*_MARK)
        yield lambda picture: picture.save(file, format="PNG", dpi=DPI, pnginfo=mark)


def _is_ours(path: Path) -> bool:
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            key, value = _MARK
            return picture.info.get(key) == value
    except (OSError, ValueError, SyntaxError):  # not a PNG at all
        return False
