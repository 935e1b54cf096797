"""How files become pixels, as far as two vectors must share it to be compared."""

from dataclasses import dataclass
from typing import Annotated, Literal

from alexnet_deploy.files.records import Within


@dataclass(frozen=True, slots=True, kw_only=True)
class Decode:
    """What was done to every photograph of an index or of a file of vectors.

    Attributes:
        decoder: library and the version since which its pixels are the same.
        scale: "exact" decodes at full size before resizing; "scaled" lets a JPEG be decoded at a
            fraction of it.
        colour: "srgb" converts by the photograph's colour profile; "ignored" takes the numbers as
            they are.
    """

    decoder: Annotated[str, Within(1, 100)]
    scale: Literal["exact", "scaled"]
    colour: Literal["srgb", "ignored"]

    def __str__(self) -> str:
        profiles = "converted to sRGB" if self.colour == "srgb" else "ignored"
        return f"{self.decoder} at {self.scale} size, colour profiles {profiles}"


DECODE = Decode(decoder="pillow-13", scale="exact", colour="ignored")
"""What this version does: the order of Pillow's resize passes is that of version 13."""
