"""What a figure may be written over."""

from pathlib import Path

import pytest
from PIL import Image, ImageColor

from alexnet_deploy.errors import UsageError
from alexnet_deploy.figures.png_files import open_png


def test_a_picture_replaces_only_one_that_this_package_drew(tmp_path: Path) -> None:
    photograph, drawn = tmp_path / "photograph.png", tmp_path / "drawn.png"
    Image.new("RGB", (9, 9), "red").save(photograph)
    before = photograph.read_bytes()
    with pytest.raises(UsageError, match="did not draw it"), open_png(photograph):
        pytest.fail("it is refused before any work is done")
    assert photograph.read_bytes() == before
    for colour in ("#000000", "#ffffff"):
        with open_png(drawn) as save:
            save(Image.new("RGB", (9, 9), colour))
        with Image.open(drawn) as image:
            assert image.getpixel((0, 0)) == ImageColor.getrgb(colour)
