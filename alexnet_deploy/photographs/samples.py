"""The package's sample photographs, for the demo, verification and benchmarks."""

from pathlib import Path

from alexnet_deploy.installed import DATA


def sample_paths() -> tuple[Path, ...]:
    """Return the 100 photographs, sorted; each is in a folder named after its class.

    JPEG files from the test split of Caltech-101: six each of twelve classes, for searching, and
    one each of 28 others.
    """
    return tuple(sorted((DATA / "samples").glob("*/*.jpg")))


def varied_samples() -> tuple[Path, ...]:
    """Return the first of each of the 40 classes, for verification and calibration.

    RGB and grayscale, 136x300 to 395x176 px.
    """
    first = {path.parent: path for path in reversed(sample_paths())}
    return tuple(sorted(first.values()))
