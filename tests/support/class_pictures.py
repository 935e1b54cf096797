"""Small class folders of noisy photographs in several formats and shapes, good and bad."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 72
"""Side of the pictures in px: small, and still a size that a network takes."""

UNSPOKEN = os.fsdecode(b"caf\xe9.gif")
GOOD = {
    "bee/1.jpg": (100, 80),
    "bee/2.png": (72, 72),
    "bee/more/2.png": (75, 200),
    "cow/1.jpeg": (300, 73),
    "cow/1x1.png": (1, 1),
    "cow/2.PNG": (90, 60),
    f"elk/{UNSPOKEN}": (80, 81),
    "elk/small.bmp": (20, 30),
}
"""Photographs, of which width and height."""
BAD = ("bee/cut.jpg", "cow/empty.jpg", f"elk/{UNSPOKEN}.png")


def save_noise(path: Path, size: tuple[int, int], seed: int) -> None:
    """Save a photograph of large random spots, which a JPEG keeps but not exactly."""
    path.parent.mkdir(parents=True, exist_ok=True)
    spots = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(spots).resize(size, Image.Resampling.BILINEAR).save(path)


def square_by_hand(image: Image.Image) -> Image.Image:
    """Scale the shorter side to SIZE, and cut out the centre."""
    shorter = min(image.size)
    width, height = (SIZE * side // shorter for side in image.size)
    resized = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - SIZE) / 2), round((height - SIZE) / 2)
    return resized.crop((left, top, left + SIZE, top + SIZE))


def save_good(root: Path) -> Path:
    """Make the good photographs."""
    for seed, (name, size) in enumerate(GOOD.items()):
        save_noise(root / name, size, seed)
    return root


def save_bad(root: Path) -> Path:
    """Make one that is cut short, one that is empty and one that is text."""
    cut, empty, text = (root / name for name in BAD)
    save_noise(cut, (200, 200), 99)
    cut.write_bytes(cut.read_bytes()[:-1000])
    for path in (empty, text):
        path.parent.mkdir(parents=True, exist_ok=True)
    empty.touch()
    text.write_text("<html>")
    return root
