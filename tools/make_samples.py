"""Copy the chosen Caltech-101 test photographs into the package, bytes unchanged.

    python tools/make_samples.py CALTECH101_TEST_FOLDER

The folder holds one folder per class, as in the published archive. There are 100:

- one of each of 40 classes, chosen by eye before any network saw them: animals and objects, near
  and far, in colour and grey, no faces, no drawn characters, from 136x300 to 395x176 px;
- of twelve of these classes, the five files that follow it by name, unselected, so that a search
  has something to find. The twelve are easy to tell apart by eye, and are classes that the bundled
  network retrieves well in `tools/results/retrieval-cpu.json`.
"""

import argparse
import shutil
from pathlib import Path

SAMPLES = Path(__file__).resolve().parents[1] / "alexnet_deploy" / "data" / "samples"
CHOSEN = {
    "Leopards": 35,
    "Motorbikes": 265,
    "accordion": 20,
    "airplanes": 5,
    "bonsai": 45,
    "buddha": 55,
    "butterfly": 20,
    "car_side": 25,
    "chandelier": 35,
    "crab": 15,
    "cup": 10,
    "dalmatian": 55,
    "dolphin": 5,
    "dragonfly": 15,
    "electric_guitar": 15,
    "elephant": 25,
    "ewer": 20,
    "ferry": 5,
    "flamingo": 45,
    "grand_piano": 5,
    "hawksbill": 50,
    "hedgehog": 10,
    "helicopter": 55,
    "joshua_tree": 5,
    "kangaroo": 5,
    "ketch": 50,
    "lobster": 10,
    "menorah": 5,
    "nautilus": 15,
    "panda": 15,
    "pizza": 20,
    "pyramid": 5,
    "rooster": 15,
    "saxophone": 25,
    "starfish": 15,
    "stop_sign": 55,
    "strawberry": 10,
    "sunflower": 25,
    "umbrella": 25,
    "windsor_chair": 5,
}
"""Class -> number of the photograph in the class."""
SEARCHED = (
    "Leopards",
    "Motorbikes",
    "accordion",
    "airplanes",
    "car_side",
    "chandelier",
    "dragonfly",
    "grand_piano",
    "ketch",
    "menorah",
    "sunflower",
    "windsor_chair",
)
NUM_EACH = 6


def main() -> None:
    """Replace every photograph in the sample folder; its README stays."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="folder of Caltech-101 test photographs")
    source: Path = parser.parse_args().source
    chosen = [path for label in CHOSEN for path in photographs_of(source / label)]
    for old in SAMPLES.glob("*/"):
        shutil.rmtree(old)
    for path in chosen:
        target = SAMPLES / path.parent.name / path.name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)


def photographs_of(folder: Path) -> list[Path]:
    """Return the chosen photograph of a class and, for the twelve, those that follow it."""
    first = folder / f"image_{CHOSEN[folder.name]:04d}.jpg"
    size = NUM_EACH if folder.name in SEARCHED else 1
    found = [path for path in sorted(folder.glob("*.jpg")) if path >= first][:size]
    if len(found) < size or found[0] != first:
        raise SystemExit(f"{folder}: expected {first.name} and {size - 1} photographs after it")
    return found


if __name__ == "__main__":
    main()
