"""Measure what colour profiles change, ignored or converted by: Display P3 and Adobe RGB.

    python tools/colour_profiles.py CALTECH101 [--json FILE]

CALTECH101 has the folders train and test. Of the test photographs every fifth is converted, whole,
into either space, tagged with its profile and saved as PNG; it should give what the original gives.

The third row of each is of the numbers as they are, tagged with the profile ("vivid"), so that
colours reach as far as the space does: the crop converted after the resize, as is done here,
against the whole photograph converted before it. Last, how long it takes at 12 megapixels, and how
many photographs of the two folders carry a profile, and one that moves a colour.
"""

import argparse
import io
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alexnet_deploy.export.opening import open_runner_of
from alexnet_deploy.inference.run import run
from alexnet_deploy.photographs.colour import profile_of, to_srgb
from alexnet_deploy.photographs.decoding import decode_photograph, load_photograph
from alexnet_deploy.photographs.finding import find_photographs
from alexnet_deploy.photographs.pixels import EXACT, Decode
from alexnet_deploy.photographs.preprocessing import preprocess
from alexnet_deploy.runtimes.base import Runner, RunnerOptions
from alexnet_deploy.weights.names import chosen_model
from tests.support.colour_profiles import ADOBE_GAMMA, ADOBE_RGB, DISPLAY_P3, rgb_profile

PROFILES = {
    "Display P3": rgb_profile(DISPLAY_P3, None),
    "Adobe RGB": rgb_profile(ADOBE_RGB, ADOBE_GAMMA),
}
IGNORED = Decode.of(colour="ignored")
EVERY = 5  # photographs
LARGE = (4000, 3000)  # px
REPEATS = 7


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    paths = list(find_photographs([arguments.folder / "test"]))[::EVERY]
    with open_runner_of(chosen_model(), RunnerOptions(outputs=("fc7", "logits"))) as runner:
        rows = [row for name in PROFILES for row in of_profile(runner, paths, name)]
    for row in rows:
        print(json.dumps(row))
    record = {
        "photographs": len(paths),
        "agreement": rows,
        "ms_at_12_megapixels": times(paths[0]),
        "tagged": tagged(find_photographs([arguments.folder])),
    }
    print(json.dumps({name: record[name] for name in ("ms_at_12_megapixels", "tagged")}))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


def of_profile(runner: Runner, paths: Sequence[Path], name: str) -> list[dict[str, Any]]:
    """Return a row for each comparison."""
    profile = PROFILES[name]
    originals = [load_photograph(path, IGNORED) for path in paths]
    converted = [saved(by_lcms(one, None, profile), profile) for one in originals]
    vivid = [saved(one, profile) for one in originals]
    first = [saved(by_lcms(one, profile, None), None) for one in originals]
    plain = [saved(one, None) for one in originals]
    wanted = {
        "the original": outputs(runner, plain),
        "converted, then resized": outputs(runner, first),
    }
    rows = []
    for photographs, tags, decode, reference in (
        (converted, "converted into it", IGNORED, "the original"),
        (converted, "converted into it", EXACT, "the original"),
        (vivid, "vivid", EXACT, "converted, then resized"),
    ):
        expected = plain if reference == "the original" else first
        rows.append(
            {
                "profile": name,
                "photographs": tags,
                "colour": decode.colour,
                "against": reference,
                **agreement(outputs(runner, photographs, decode), wanted[reference]),
                **levels(runner, photographs, decode, expected),
            }
        )
    return rows


def by_lcms(image: Image.Image, source: bytes | None, target: bytes | None) -> Image.Image:
    """Return a whole photograph, converted between two profiles; None is sRGB."""
    before, after = (
        ImageCms.createProfile("sRGB") if one is None else ImageCms.ImageCmsProfile(io.BytesIO(one))
        for one in (source, target)
    )
    converted = ImageCms.profileToProfile(image, before, after)
    assert converted is not None  # None only when converting in place
    return converted


def saved(image: Image.Image, profile: bytes | None) -> bytes:
    """Return the photograph as a PNG, tagged with a profile or not at all."""
    file = io.BytesIO()
    image.save(file, "PNG", icc_profile=profile or b"", compress_level=1)
    return file.getvalue()


def outputs(
    runner: Runner, photographs: Iterable[bytes], decode: Decode = EXACT
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return FC7, (N, 4096), and the most probable class, (N,)."""
    vectors, classes = [], []
    for result in run(runner, photographs, decode=decode):
        assert result.outputs is not None, result.error
        vectors.append(result.outputs["fc7"].astype(np.float64))
        classes.append(int(result.outputs["logits"].argmax()))
    return np.array(vectors), np.array(classes)


def agreement(
    got: tuple[NDArray[np.float64], NDArray[np.int64]],
    wanted: tuple[NDArray[np.float64], NDArray[np.int64]],
) -> dict[str, float]:
    """Return how alike the vectors are, and how often the class is the same."""
    (vectors, classes), (others, expected) = got, wanted
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(others, axis=1)
    cosines = (vectors * others).sum(axis=1) / lengths
    return {
        "fc7_cosine_mean": round(float(cosines.mean()), 5),
        "fc7_cosine_lowest": round(float(cosines.min()), 5),
        "same_top1": round(float((classes == expected).mean()), 4),
    }


def levels(
    runner: Runner, photographs: Sequence[bytes], decode: Decode, expected: Sequence[bytes]
) -> dict[str, float]:
    """Return how far the crops are apart, in grey levels."""
    differences = np.stack(
        [
            np.abs(
                preprocess(decode_photograph(io.BytesIO(one), decode), runner.spec).astype(int)
                - preprocess(decode_photograph(io.BytesIO(other)), runner.spec)
            )
            for one, other in zip(photographs, expected, strict=True)
        ]
    )
    return {
        "levels_mean": round(float(differences.mean()), 3),
        "levels_p99": float(np.percentile(differences, 99)),
        "levels_largest": int(differences.max()),
    }


def times(path: Path) -> dict[str, float]:
    """Return ms for a JPEG of 12 megapixels in Display P3: to decode, and to convert."""
    noise = np.random.default_rng(0).normal(0, 4, (LARGE[1], LARGE[0], 3))
    large = load_photograph(path).resize(LARGE, Image.Resampling.BICUBIC)
    noisy = Image.fromarray((np.asarray(large) + noise).clip(0, 255).astype(np.uint8))
    file = io.BytesIO()
    noisy.save(file, "JPEG", quality=90, icc_profile=PROFILES["Display P3"])
    whole = decode_photograph(file)
    crop = whole.resize((341, 256)).crop((57, 14, 284, 241))
    return {
        "decoding": milliseconds(lambda: decode_photograph(file)),
        "converting_the_whole": milliseconds(lambda: to_srgb(whole)),
        "converting_the_crop": milliseconds(lambda: to_srgb(crop)),
    }


def milliseconds(work: Callable[[], object]) -> float:
    """Return the median of several runs, in ms."""
    measured = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        measured.append(1000 * (time.perf_counter() - start))
    return round(median(measured), 2)


def tagged(paths: Iterable[Path]) -> dict[str, int]:
    """Count photographs with a profile, and those of them that it changes."""
    counts = {"photographs": 0, "with_a_profile": 0, "converted": 0}
    for path in paths:
        with Image.open(path) as image:
            counts["photographs"] += 1
            counts["with_a_profile"] += bool(image.info.get("icc_profile"))
            counts["converted"] += profile_of(image) is not None
    return counts


if __name__ == "__main__":
    main()
