"""Copy the chosen Caltech-101 test photographs into the package, bytes unchanged.

    python tools/make_samples.py CALTECH101_TEST_FOLDER

The folder holds one folder per class, as in the published archive. Chosen by eye, before any
network saw them: 40 classes, no faces and no drawn characters, animals and objects, close and
far, in colour and grey, from 136x300 to 395x176 px.
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


def main() -> None:
    """Replace every photograph of the sample folder; its README stays."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="folder of Caltech-101 test photographs")
    source: Path = parser.parse_args().source
    names = [Path(label) / f"image_{number:04d}.jpg" for label, number in CHOSEN.items()]
    missing = [str(name) for name in names if not (source / name).is_file()]
    if missing:
        parser.error(f"{source} lacks {len(missing)} photographs: {', '.join(missing)}")
    for old in SAMPLES.glob("*/"):
        shutil.rmtree(old)
    for name in names:
        target = SAMPLES / name
        target.parent.mkdir(parents=True)
        shutil.copyfile(source / name, target)


if __name__ == "__main__":
    main()
