"""JPEGs decoded on an NVIDIA GPU by nvImageCodec, after Pillow has read and judged their headers.

Its arithmetic is not libjpeg's: a level may differ by one, more where chroma is enlarged, and from
one GPU to another. What it does not decode, or not as libjpeg would, is left to Pillow.
"""

import io
import os
import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, JpegImagePlugin

from alexnet_deploy.errors import Argument, DeviceError, MissingPackageError

_DEVICE = 0
_BACKENDS = ("HW_GPU_ONLY", "GPU_ONLY", "HYBRID_CPU_GPU")

_OPTIONS = ":fancy_upsampling=1"
"""Enlarge chroma as libjpeg does, where a decoder can; not left to a default, for pixels' sake."""

_END = b"\xff\xd9"
_NEAR_THE_END = 64
"""Bytes that the mark must be among: decoders of GPUs may fill up a file that is cut short."""
_STRANGE = re.compile(rb"\xff[^\x00\xc4\xd0-\xd7\xd9\xda\xdb\xdd\xff]")
"""A mark that is none of those among and after scans: Pillow refuses the file, others may not."""

_MODES = {"L": 1, "RGB": 3}
_YCBCR = [1, 2, 3]
"""The numbers of the components; others are taken for YCbCr by some decoders, for RGB by others."""

_MOST_APART = 8
"""Levels of a smooth picture: with a wrong order of channels, say, there are 100 and more."""

_free: dict[int, deque[Any]] = {}
"""Decoders by process: a new one takes long, and none survives a fork."""

_silence = threading.RLock()
"""There is one stderr: two threads that restored it in turns would leave it closed."""


class Refusals(threading.local):
    """JPEGs of this thread that were meant for the GPU and left to Pillow.

    Attributes:
        count: how many, so far.
    """

    count = 0


REFUSALS = Refusals()


def check_gpu_decoding() -> None:
    """Return if JPEGs are decoded here as Pillow decodes them, but for small differences.

    Raises:
        MissingPackageError: nvImageCodec is not installed.
        DeviceError: there is no GPU, it lacks a library, or what comes from it is wrong.
    """
    ramp, file = np.arange(0, 256, 4, dtype=np.uint8), io.BytesIO()
    colours = np.stack(np.broadcast_arrays(ramp, ramp[:, None], np.uint8(64)), axis=-1)
    Image.fromarray(colours).save(file, "JPEG")
    with _stderr_unseen():  # without a GPU the library has words of its own
        found = _decode(file.getvalue())
    expected = np.asarray(Image.open(file), np.int64)
    if found is None or np.abs(np.asarray(found) - expected).max() > _MOST_APART:
        how = "does not decode" if found is None else "decodes to other colours"
        raise DeviceError(
            f"nvImageCodec {how} a JPEG on this GPU; see that nvidia-nvjpeg is installed, or use ",
            Argument("decode", "exact"),
        )


def decoded_on_gpu(image: Image.Image) -> Image.Image | None:
    """Return the pixels of an opened JPEG, in its mode, L or RGB; None if Pillow is to decode it.

    Args:
        image: not loaded; it stays so.

    Raises:
        MissingPackageError: as for `check_gpu_decoding`.
        DeviceError: as for `check_gpu_decoding`.
    """
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return None
    picture, file = None, image.fp
    if file is not None and _is_admitted(image):
        position = file.tell()
        file.seek(0)
        data = file.read()
        file.seek(position)
        is_whole = _END in data[-_NEAR_THE_END:]
        if is_whole and not _STRANGE.search(data, position):  # which is that of the first scan
            picture = _decode(data)
    if picture is None or picture.size != image.size:
        REFUSALS.count += 1
        return None
    return picture if image.mode == "RGB" else picture.getchannel(0)


def _is_admitted(image: Any) -> bool:
    """Return whether a JPEG is of a kind that every decoder reads as the same colours."""
    if image.format != "JPEG" or _MODES.get(image.mode) != image.layers:  # several, MPO, are not
        return False
    is_ycbcr = [component[0] for component in image.layer] == _YCBCR
    return image.layers == 1 or (is_ycbcr and image.info.get("adobe_transform", 1) == 1)


def _decode(data: bytes) -> Image.Image | None:
    """Return a JPEG as RGB, not turned; None if nvImageCodec does not decode it."""
    codec = _codec()
    free = _free.setdefault(os.getpid(), deque())
    try:
        decoder = free.pop()
    except IndexError:
        decoder = _new_decoder(codec)
    how = codec.DecodeParams(
        apply_exif_orientation=False,
        color_spec=codec.ColorSpec.SRGB,
        sample_format=codec.SampleFormat.I_RGB,
    )
    picture = None
    with suppress(RuntimeError):  # what goes wrong on the GPU is a refusal, too
        pixels = decoder.decode(data, params=how)
        picture = None if pixels is None else Image.fromarray(np.asarray(pixels.cpu()))
    free.append(decoder)
    return picture


def _new_decoder(codec: Any) -> Any:
    backends = [codec.Backend(getattr(codec, name)) for name in _BACKENDS]
    try:
        return codec.Decoder(
            device_id=_DEVICE, max_num_cpu_threads=1, backends=backends, options=_OPTIONS
        )
    except RuntimeError as error:
        raise DeviceError(
            f"nvImageCodec cannot decode on a GPU here ({error}); see what this machine has with: "
            "alexnet-deploy doctor; for vectors that need not match others made so, use ",
            Argument("decode", "exact"),
        ) from error


@cache
def _codec() -> Any:
    """Import nvImageCodec.

    Raises:
        MissingPackageError: it is not installed.
    """
    os.environ.setdefault("PYNVIMGCODEC_VERBOSITY", "0")  # else it writes of every refusal
    try:
        with _stderr_unseen():
            from nvidia import nvimgcodec
    except ImportError as error:
        raise MissingPackageError(
            "nvidia-nvimgcodec-cu13", "gpu", "decoding JPEGs on a GPU"
        ) from error
    return nvimgcodec


@contextmanager
def _stderr_unseen() -> Iterator[None]:
    """Keep from the terminal what the library writes of what it lacks and may not be asked for."""
    with _silence:
        try:
            kept = os.dup(2)
        except OSError:  # there is no stderr
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(nowhere)
            os.close(kept)
