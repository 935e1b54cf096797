"""Photographs to be drawn."""

from PIL import Image

from alexnet_deploy.model.spec import PRESETS
from alexnet_deploy.photographs.pixels import Decode
from alexnet_deploy.photographs.sources import ImageSource, load_image

_DECODE = Decode.of("scaled")
_DRAWN_AS = PRESETS["paper"].preprocessing
"""Leaves 512 px or more of a side, and no photograph is drawn with more than 400."""


def load_drawn(source: ImageSource) -> Image.Image:
    """Decode a photograph to be drawn, as a new index does: what it reads, however large.

    Raises:
        PhotographError: the reason why it cannot be decoded.
    """
    return load_image(source, _DECODE, _DRAWN_AS)
