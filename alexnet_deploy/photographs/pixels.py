"""How files become pixels, as far as two vectors must share it to be compared."""

from dataclasses import dataclass
from typing import Annotated, Self

from alexnet_deploy import arguments
from alexnet_deploy.choices import COLOURS, SCALES, Colour, Scale
from alexnet_deploy.files.records import Within

_DECODERS = "pillow-13+libheif-1.23"
"""The order of Pillow's resize passes is that of version 13; libheif decodes HEIC."""
_GPU_DECODERS = f"nvimgcodec-0.9+{_DECODERS}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decode:
    """What is done to every photograph of a run, of an index or of a file of vectors.

    Attributes:
        decoder: libraries, each with the version since which its pixels are the same.
        scale: "exact" decodes at full size before resizing; "scaled" lets a JPEG be decoded at a
            fraction of it; "gpu" is "exact" with JPEGs decoded on a GPU, see `gpu_jpegs`.
        colour: "srgb" converts by the photograph's colour profile; "ignored" takes the numbers as
            they are.
    """

    decoder: Annotated[str, Within(1, 100)]
    scale: Scale
    colour: Colour

    @classmethod
    def of(cls, decode: Scale = "exact", colour: Colour = "srgb") -> Self:
        """Return what this version does when it is asked for this.

        Raises:
            ArgumentError: naming the argument that has no such value.
        """
        return cls(
            decoder=_GPU_DECODERS if decode == "gpu" else _DECODERS,
            scale=arguments.choice("decode", decode, SCALES),
            colour=arguments.choice("colour", colour, COLOURS),
        )

    def __str__(self) -> str:
        profiles = "converted to sRGB" if self.colour == "srgb" else "ignored"
        size = "scaled" if self.scale == "scaled" else "exact"
        return f"{self.decoder} at {size} size, colour profiles {profiles}"


EXACT = Decode.of()
"""What is done where nothing else is asked for; so are evaluation and calibration."""
