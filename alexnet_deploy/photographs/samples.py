"""The sample photographs inside the package, for the demo, verification and benchmarks."""

from importlib import resources
from pathlib import Path


def sample_paths() -> tuple[Path, ...]:
    """Return the 40 photographs, sorted; each lies in a folder named after its class.

    JPEG files from the test part of Caltech-101, RGB and grayscale, 136x300 to 395x176 px.
    """
    folder = Path(str(resources.files("alexnet_deploy") / "data" / "samples"))
    return tuple(sorted(folder.glob("*/*.jpg")))
