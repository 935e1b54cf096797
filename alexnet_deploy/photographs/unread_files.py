"""What a file is that is not decoded, from its first bytes: damaged, of another kind, or no image.

A file of a kind that is not read is in order: to copy it again would not help.
"""

from typing import IO, BinaryIO

from alexnet_deploy.errors import PhotographError
from alexnet_deploy.photographs.decoded_size import Jpeg2000Header, jpeg2000_header
from alexnet_deploy.photographs.heif_files import HEAD_BYTES, brands, is_heif
from alexnet_deploy.photographs.jpeg_headers import JpegHeader, read_header
from alexnet_deploy.photographs.tiff_layouts import LENGTH, WIDTH, unread
from alexnet_deploy.photographs.tiff_tags import directories

_JPEG2000 = "a JPEG 2000"
_READ = (
    *((0, b"\xff\xd8\xff", "a JPEG"), (0, b"\x89PNG\r\n\x1a\n", "a PNG"), (0, b"GIF8", "a GIF")),
    *((0, b"II*\0", "a TIFF"), (0, b"MM\0*", "a TIFF"), (0, b"II+\0", "a TIFF")),
    *((0, b"MM\0+", "a TIFF"), (0, b"BM", "a BMP"), (0, b"8BPS", "a PSD")),
    (8, b"WEBP", "a WebP"),  # after RIFF and a length, as in an AVI or a WAV
    *((0, b"\0\0\0\x0cjP  ", _JPEG2000), (0, b"\xff\x4f\xff\x51", _JPEG2000)),
)
_UNREAD = (
    *((0, b"\xff\x0a", "a JPEG XL"), (0, b"\0\0\0\x0cJXL ", "a JPEG XL")),
    *((0, b"%PDF", "a PDF"), (0, b"%!PS", "PostScript"), (0, b"\xc5\xd0\xd3\xc6", "PostScript")),
    *((0, b"<svg", "an SVG"), (0, b"\0\0\1\0", "an icon"), (0, b"DDS ", "a DDS texture")),
    *((0, b"v/1\x01", "an OpenEXR"), (0, b"#?RADIANCE", "a Radiance HDR")),
    *((0, b"gimp xcf", "a GIMP picture"), (0, b"II\xbc\x01", "a JPEG XR")),
)
_PROCESSES = {
    **dict.fromkeys((0xC3, 0xC7, 0xCB, 0xCF), "lossless"),
    **dict.fromkeys((0xC5, 0xC6), "hierarchical"),
    **dict.fromkeys((0xC9, 0xCA), "arithmetic"),
}
_JPEG_HEAD_BYTES = 2**20


def not_an_image(file: BinaryIO) -> PhotographError:
    """Return the error of a file that no decoder takes."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    for offset, mark, kind in _UNREAD:
        if head.startswith(mark, offset):
            return PhotographError(f"is {kind}, which is not read; convert it to JPEG or PNG")
    for offset, mark, kind in _READ:
        if head.startswith(mark, offset):
            return _of_an_unread_kind(file, kind) or damaged(f"begins as {kind}")
    if is_heif(head):
        return damaged("begins as a HEIC")
    if brands(head) & {b"avif", b"avis"}:
        return damaged("begins as an AVIF")
    if brands(head):
        return PhotographError("is a film or sound, not a photograph; leave it out")
    line = (head.splitlines() or [b""])[0][:24].decode("latin-1")
    return PhotographError(f"not an image: it begins with {line!a}")


def check_jpeg2000(file: IO[bytes]) -> None:
    """Refuse a JPEG 2000 whose brightest colours would become black.

    Pillow rounds colours of more than 8 bits to 8, up, and cuts off the ninth bit.

    Raises:
        PhotographError: it is one.
    """
    header = jpeg2000_header(file)
    if header is not None and header.num_channels > 1 and header.bits > 8:
        raise of_an_unread_kind(f"a JPEG 2000, {_channels(header)}")


def damaged(reason: str) -> PhotographError:
    """Return the error of a file that another copy would replace."""
    reason = " ".join(reason.split())  # some libraries end it with a line
    return PhotographError(f"damaged or cut short ({reason}); copy it again")


def of_an_unread_kind(what: str) -> PhotographError:
    """Return the error of a file that is in order and not read."""
    return PhotographError(f"is of a kind that is not read ({what}); save it as JPEG or PNG")


def _channels(header: JpegHeader | Jpeg2000Header) -> str:
    return f"{header.num_channels} channels of {header.bits} bits"


def _of_an_unread_kind(file: BinaryIO, kind: str) -> PhotographError | None:
    """Return the error of a file of a known format, None if it is none of its odder kinds."""
    if kind == "a TIFF":
        first = next(directories(file), None)
        if first is not None and first.number(WIDTH, 0) and first.number(LENGTH, 0):
            return unread(first.numbers)
    if kind == "a JPEG":
        file.seek(0)
        header = read_header(file.read(_JPEG_HEAD_BYTES))
        if header is not None and not header.is_read:
            process = _PROCESSES.get(header.process, "Huffman-coded")
            return of_an_unread_kind(f"a {process} JPEG, {_channels(header)}")
    if kind == _JPEG2000:
        codestream = jpeg2000_header(file)
        if codestream is not None and not 1 <= codestream.num_channels <= 4:
            return of_an_unread_kind(f"a JPEG 2000, {_channels(codestream)}")
    return None
