"""Perceptual hashes, of pictures as they are, turned and cut."""

import imagehash
import numpy as np
import pytest
from PIL import Image

from alexnet_deploy.photographs.likeness import ORIENTATIONS, SIDE, Orientation, read_thumbnail
from alexnet_deploy.photographs.perceptual_hash import HASH_BYTES, NUM_HASHES, hashes_of, turned
from alexnet_deploy.photographs.samples import varied_samples
from tests.support.edited import turned_picture

SAMPLES = varied_samples()[:6]


def bits_between(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.bitwise_count(one ^ other).sum())


def test_the_first_hash_is_imagehash_s_of_the_whole() -> None:
    thumbnail = read_thumbnail(SAMPLES[0].read_bytes())
    found = hashes_of(thumbnail)
    assert found.shape == (NUM_HASHES, HASH_BYTES)
    expected = imagehash.phash(Image.fromarray(thumbnail), hash_size=16)
    assert found[0].tobytes().hex() == str(expected)


def test_a_cut_photograph_is_nearly_a_window_of_the_whole() -> None:
    for path in SAMPLES:
        thumbnail = read_thumbnail(path.read_bytes())
        cut = np.asarray(Image.fromarray(thumbnail[12:, :-12]).resize((SIDE, SIDE)))
        whole, part = hashes_of(thumbnail), hashes_of(cut)[0]
        distances = [bits_between(one, part) for one in whole]
        assert min(distances[1:]) < 20 < distances[0]


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_the_hash_of_a_turned_photograph_is_the_turned_hash(orientation: Orientation) -> None:
    for path in SAMPLES:
        thumbnail = read_thumbnail(path.read_bytes())
        picture = turned_picture(Image.fromarray(thumbnail), orientation)
        own = hashes_of(np.asarray(picture))[:1]
        assert bits_between(own, turned(hashes_of(thumbnail)[:1], orientation)) <= 24


def test_none_can_be_turned() -> None:
    none = np.empty((0, HASH_BYTES), np.uint8)
    assert turned(none, Orientation(turned=90)).shape == none.shape
