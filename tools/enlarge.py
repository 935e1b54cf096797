"""Make photographs as large as a phone's, or any other size, of small ones.

    python tools/enlarge.py FOLDER LARGE [--megapixels 12] [--photographs 300]

LARGE gets photographs of FOLDER at equal distances, in their folders. Grey noise of 5 levels is
added, and they are saved with quality 92, so that they take about the bits per pixel of a camera's.
One that is there already is kept.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet_deploy.photographs.finding import find_photographs

NOISE = 5  # standard deviation, in levels of 0..255
QUALITY = 92


def main() -> None:
    """Write the photographs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("source", metavar="FOLDER", type=Path)
    parser.add_argument("target", metavar="LARGE", type=Path)
    parser.add_argument("--megapixels", type=float, default=12.0)
    parser.add_argument("--photographs", type=int, default=300)
    arguments = parser.parse_args()
    paths = list(find_photographs([arguments.source]))
    count = min(arguments.photographs, len(paths))
    for number in range(count):
        path = paths[number * len(paths) // count]
        target = arguments.target / path.relative_to(arguments.source)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            enlarged(path, arguments.megapixels, number).save(target, "JPEG", quality=QUALITY)


def enlarged(path: Path, megapixels: float, seed: int) -> Image.Image:
    """Return a photograph with so many pixels, and noise."""
    with Image.open(path) as image:
        picture = image.convert("RGB")
    factor = (megapixels * 1e6 / (picture.width * picture.height)) ** 0.5
    size = (round(picture.width * factor), round(picture.height * factor))
    large = np.asarray(picture.resize(size, Image.Resampling.BICUBIC), np.float32)
    noise = NOISE * np.random.default_rng(seed).standard_normal(large.shape[:2], np.float32)
    noisy = np.clip(large + noise[..., np.newaxis], 0, 255).astype(np.uint8)
    return Image.fromarray(noisy)


if __name__ == "__main__":
    main()
