"""Find photographs below the paths that a user gives, and decode each to upright RGB.

Nothing vanishes silently: whatever cannot be listed or read is yielded all the same, and
loading it raises `PhotographError` with the reason.
"""

import errno
import glob
import os
import re
import stat
import threading
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import (  # noqa: F401 - each registers its format; Pillow's own lazy way is not thread-safe
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PcxImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    PsdImagePlugin,
    QoiImagePlugin,
    SgiImagePlugin,
    SunImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from alexnet_deploy.errors import PhotographError, UsageError

PHOTO_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".bmp", ".dib"),
    *(".webp", ".tif", ".tiff", ".avif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pcx", ".tga", ".qoi"),
)
"""What is taken for a photograph when a folder is searched, in either case of letters."""

MAX_PIXELS = 2 * 89_478_485
"""Largest photograph that is decoded, in px (179 megapixels): Pillow's own limit."""

# What Pillow may open. Left out: formats that start other programs (EPS), that only Windows
# reads (WMF), and stubs. MPO is opened as a JPEG. Targa comes last, because its files begin
# with no mark of their own.
_FORMATS = (
    *("JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM"),
    *("QOI", "PSD", "ICO", "SGI", "SUN", "PCX", "TGA"),
)

# Thumbnails, waste and snapshots of Synology, QNAP, Windows and macOS (zip), and ext4's own.
_SERVICE_FOLDERS = frozenset(
    {"@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "lost+found"}
    | {"$recycle.bin", "system volume information", "__macosx"}
)

_MARKS = (
    (0, b"\xff\xd8\xff", "a JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG"),
    (0, b"GIF8", "a GIF"),
    (0, b"II*\0", "a TIFF"),
    (0, b"MM\0*", "a TIFF"),
    (8, b"WEBP", "a WebP"),  # after RIFF and a length, as in an AVI or a WAV
)

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_PILLOW_WARNINGS = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_warnings_lock = threading.Lock()


def find_photographs(
    paths: Sequence[str | os.PathLike[str]],
    *,
    include_hidden: bool = False,
    exclude: Path | None = None,
) -> Iterator[Path]:
    """Check the paths at once, then yield the photographs lazily, each once.

    A folder is searched recursively for files with one of `PHOTO_SUFFIXES`: its own files by
    name, then its sub-folders by name, then folders that links lead to. A file that is given
    itself is always yielded, whatever its suffix. A path that does not exist and holds one of
    `*?[` is a pattern, `**` crossing folders. A folder that cannot be listed, and a broken link
    with a photograph's suffix, are yielded too: loading them raises the reason.

    A folder is visited once, under the first path that leads to it, so links cannot loop; a
    file that is given twice, or is also below a given folder, comes once. Memory holds the
    folders visited, the arguments, and the names in one folder; not the photographs.

    Args:
        paths: files, folders and patterns, in the order wanted.
        include_hidden: search names that begin with a dot and the service folders of cameras'
            and servers' software (`@eaDir`, `#recycle`, `__MACOSX`) as well.
        exclude: an existing folder that is never searched, whichever path leads to it.

    Raises:
        UsageError: a path does not exist, or a pattern matches nothing.
    """
    given = [name for path in paths for name in _expand(os.fspath(path), include_hidden)]
    return _Search(given, include_hidden, exclude).photographs()


def has_hidden_part(path: str) -> bool:
    """Tell whether a name, or one in a path, is passed over unless hidden files are wanted."""
    return any(
        name.startswith(".") or name.lower() in _SERVICE_FOLDERS for name in path.split(os.sep)
    )


def load_photograph(path: Path) -> Image.Image:
    """Decode one file to an upright image of mode RGB, 8 bits a channel.

    Alpha lies over white; animations give their first frame; 16-bit greys their high byte
    (32-bit ones too, when all are below 65,536); EXIF orientation is applied, and EXIF that
    cannot be parsed counts as none. Colour profiles are ignored, except that LAB is turned
    into sRGB.

    Raises:
        PhotographError: the reason why there is no image, without the path.
    """
    with open_photograph(path) as file:
        return decode_photograph(file)


@contextmanager
def open_photograph(path: Path) -> Iterator[BinaryIO]:
    """Open an ordinary file; a system error, in the block too, becomes `PhotographError`."""
    try:
        _check_regular(path)
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise PhotographError(f"cannot be read ({error.strerror or error})") from error


def decode_photograph(file: BinaryIO) -> Image.Image:
    """Decode a seekable file, from its beginning, as `load_photograph` does.

    Raises:
        PhotographError: the reason why there is no image.
        OSError: the file cannot be read; `open_photograph` turns it into a reason.
    """
    _ignore_pillow_warnings()
    file.seek(0, os.SEEK_END)
    if not file.tell():
        raise PhotographError("is empty (0 bytes); copy it again from its source")
    file.seek(0)
    return _decode(file)


def _expand(text: str, include_hidden: bool) -> list[str]:
    """Return the path itself where it exists, else what it matches as a pattern."""
    try:
        os.lstat(text)
    except PermissionError:
        return [text]
    except (OSError, ValueError) as error:  # ValueError: a null character
        if not any(character in text for character in "*?["):
            reason = getattr(error, "strerror", None) or str(error)
            if isinstance(error, FileNotFoundError):
                reason = "does not exist"
            raise UsageError(
                f"path {text!r}: {reason}; give a photograph, a folder, or a pattern in quotes"
            ) from error
        matches = sorted(glob.iglob(text, recursive=True, include_hidden=include_hidden))
        if not matches:
            raise UsageError(
                f"pattern {text!r} matches nothing; check the folder and the suffix "
                "('**' crosses folders)"
            ) from error
        return matches
    return [text]


class _Search:
    """The state of one search: what has been visited, and which given files have come."""

    def __init__(self, given: list[str], include_hidden: bool, exclude: Path | None) -> None:
        self._given = given
        self._include_hidden = include_hidden
        self._visited: set[tuple[int, int]] = set()  # (device, inode) of folders
        if exclude is not None:
            status = exclude.stat()
            self._visited.add((status.st_dev, status.st_ino))
        self._came = {_identity(path): False for path in given if not os.path.isdir(path)}

    def photographs(self) -> Iterator[Path]:
        """Yield what the given paths lead to, in their order."""
        for path in self._given:
            if os.path.isdir(path):
                yield from self._below(path)
            elif self._comes_first(_identity(path)):
                yield Path(path)

    def _comes_first(self, identity: str) -> bool:
        """Tell whether a file has not come yet; only given files can come twice."""
        if identity not in self._came:
            return True
        first = not self._came[identity]
        self._came[identity] = True
        return first

    def _below(self, root: str) -> Iterator[Path]:
        """Yield the photographs below one folder; links to folders wait until the end.

        Waiting gives each folder its own path rather than that of a link to it.
        """
        folders, linked = [root], deque[str]()
        while folders or linked:
            folder = folders.pop() if folders else linked.popleft()
            try:
                status = os.stat(folder)
                if (status.st_dev, status.st_ino) in self._visited:
                    continue
                self._visited.add((status.st_dev, status.st_ino))
                files, inner, links = self._list(folder)
            except OSError:
                yield Path(folder)  # `load_photograph` finds and reports the same reason
                continue
            real_folder = os.path.realpath(folder) if self._came else ""
            for name in files:
                if not self._came or self._comes_first(os.path.join(real_folder, name)):
                    yield Path(folder, name)
            folders.extend(os.path.join(folder, name) for name in reversed(inner))
            linked.extend(os.path.join(folder, name) for name in links)

    def _list(self, folder: str) -> tuple[list[str], list[str], list[str]]:
        """Return the names of photographs, folders and links to folders, each sorted."""
        files: list[str] = []
        folders: list[str] = []
        links: list[str] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if not self._include_hidden and has_hidden_part(name):
                    continue
                if _is_folder(entry):
                    (links if entry.is_symlink() else folders).append(name)
                elif os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES:
                    files.append(name)
        return sorted(files), sorted(folders), sorted(links)


def _identity(path: str) -> str:
    """Return a file's one name: links in its folder are resolved, the file itself is not.

    So a link and the photograph that it leads to are two inputs, as two copies would be.
    """
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is a folder, or a link to one, or to where one may not look."""
    try:
        return entry.is_dir()
    except OSError as error:
        return error.errno == errno.EACCES


def _check_regular(path: Path) -> None:
    """Refuse what is no ordinary file: opening a pipe, for one, would wait for ever."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        with os.scandir(path):  # raises the reason where the folder cannot be listed
            raise PhotographError("is a folder, expected a photograph; give it as a path instead")
    if not stat.S_ISREG(mode):
        raise PhotographError("is a pipe, socket or device, expected an ordinary file")


def _decode(file: BinaryIO) -> Image.Image:
    """Decode an open file; every way in which Pillow can fail becomes `PhotographError`."""
    try:
        with Image.open(file, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise _too_large(width * height)
            image.load()
            transposition = _TRANSPOSITIONS.get(_orientation(image))
            rgb = _rgb(image)
            return rgb if transposition is None else rgb.transpose(transposition)
    except PhotographError:
        raise
    except UnidentifiedImageError as error:
        raise _not_an_image(file) from error
    except Image.DecompressionBombError as error:
        pixels = re.search(r"(\d+) pixels", str(error))
        raise _too_large(int(pixels[1]) if pixels else MAX_PIXELS + 1) from error
    except MemoryError as error:
        raise PhotographError(
            "needs more memory to decode than there is; use fewer threads"
        ) from error
    except Exception as error:  # Pillow's plugins raise anything on damaged data
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error) or type(error).__name__
        raise PhotographError(f"damaged or cut short ({reason}); copy it again") from error


def _rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image of any of Pillow's modes to RGB; one in RGB is returned as it is."""
    if image.mode.startswith("I"):
        return _from_high_byte(image)
    if image.mode == "F":
        raise PhotographError(
            "holds floating-point greys, whose range is unknown; save it with 8 or 16 bits"
        )
    if image.mode == "LAB":
        return _from_lab(image)
    if image.has_transparency_data:
        rgba = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
        rgb = Image.new("RGB", image.size, "white")
        rgb.paste(rgba, mask=rgba)
        return rgb
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_high_byte(image: Image.Image) -> Image.Image:
    """Convert 16-bit greys, in mode I;16 (any byte order) or I, by their high byte."""
    greys = np.asarray(image)
    if greys.min() < 0 or greys.max() > 0xFFFF:
        raise PhotographError(
            f"holds 32-bit greys from {greys.min()} to {greys.max()}, expected 0 to 65535; "
            "save it with 8 or 16 bits"
        )
    return Image.fromarray((greys >> 8).astype(np.uint8)).convert("RGB")


def _from_lab(image: Image.Image) -> Image.Image:
    """Convert CIE LAB to sRGB; `Image.convert` would take L, a and b for R, G and B."""
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None  # None only when converting in place
    return converted


def _orientation(image: Image.Image) -> Any:
    """Return the EXIF orientation, 1 to 8, or anything else where there is none to be had."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF: viewers show such a photograph as it is stored
        return None


def _too_large(pixels: int) -> PhotographError:
    return PhotographError(
        f"has {pixels / 1e6:.1f} megapixels, at most {MAX_PIXELS / 1e6:.1f} are decoded; "
        "scale it down first"
    )


def _not_an_image(file: BinaryIO) -> PhotographError:
    """Say what the file is instead, from its first bytes."""
    file.seek(0)
    head = file.read(32)
    if head[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc", b"ftypmsf1"):
        return PhotographError("is a HEIC photograph, which Pillow does not read; convert to JPEG")
    for offset, mark, kind in _MARKS:
        if head.startswith(mark, offset):
            return PhotographError(f"damaged or cut short (begins as {kind}); copy it again")
    line = head.splitlines()[0][:24].decode("latin-1")
    return PhotographError(f"not an image: it begins with {line!a}")


def _ignore_pillow_warnings() -> None:
    """Keep Pillow's warnings (large image, odd EXIF) from the user, who cannot tell the file.

    The filter is the process's own, because `warnings.catch_warnings` is not safe in threads.
    """
    with _warnings_lock:
        if _PILLOW_WARNINGS not in warnings.filters:
            warnings.filterwarnings("ignore", module=r"PIL\.")
