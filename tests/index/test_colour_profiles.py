"""What an index makes of colour profiles it makes of them in every later run."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_deploy.choices import Colour
from tests.support.colour_profiles import DISPLAY_P3, converted, rgb_profile, srgb_curve
from tests.support.index_runner import REQUEST, Runners, save, search, update

STORED, OTHER = (200, 100, 50), (30, 120, 60)


def tagged(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG", icc_profile=rgb_profile(DISPLAY_P3, None))
    return file.getvalue()


@pytest.mark.parametrize("kept", ["srgb", "ignored"])
def test_an_index_keeps_what_it_makes_of_profiles(
    kept: Colour, tmp_path: Path, runners: Runners
) -> None:
    index, photos = tmp_path / "index", tmp_path / "photos"
    save(photos / "1.png", tagged(STORED))
    update(index, photos, request=dataclasses.replace(REQUEST, colour=kept))
    save(photos / "2.png", tagged(OTHER))
    update(index)
    with Image.open(io.BytesIO(tagged(STORED))) as image:
        (result,) = search(index, [image])
    assert result.neighbours[0].path.name == "1.png"
    expected = np.array([STORED, OTHER, STORED], np.uint8)
    seen = converted(expected, DISPLAY_P3, srgb_curve) if kept == "srgb" else expected
    assert np.abs(np.array(runners.colours) - seen).max() <= 1
