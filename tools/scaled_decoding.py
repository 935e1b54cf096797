"""Compare scaled with exact decoding on large photographs: FC7, classes, and the rate of `index`.

    python tools/scaled_decoding.py LARGE [--rounds 3] [--json FILE]

LARGE holds photographs, of cameras or of `tools/enlarge.py`. For each: the cosine similarity of its
two FC7 vectors, and whether the most likely class is the same. `--rounds` times, whole processes of
`index` are run in turns, exact and scaled: wall and processor time. Ratios are medians over the
rounds.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from runs import run as run_process

from alexnet_deploy.choices import Scale
from alexnet_deploy.export.opening import open_runner_of
from alexnet_deploy.inference.run import run
from alexnet_deploy.photographs.finding import find_photographs
from alexnet_deploy.photographs.pixels import Decode
from alexnet_deploy.runtimes.base import Runner, RunnerOptions
from alexnet_deploy.weights.names import chosen_model

BOTH: tuple[Scale, ...] = ("exact", "scaled")


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=0, help="of `index`; 0 for none")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    paths = list(find_photographs([arguments.folder]))
    figures: dict[str, Any] = {"photographs": len(paths), **sizes(paths)}
    with open_runner_of(chosen_model(), RunnerOptions(outputs=("fc7", "probabilities"))) as runner:
        figures |= differences(outputs(runner, paths, "exact"), outputs(runner, paths, "scaled"))
    if arguments.rounds:
        figures |= rates(arguments.folder, len(paths), arguments.rounds)
    for name, value in figures.items():
        print(f"{name:<28} {value}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def sizes(paths: list[Path]) -> dict[str, float]:
    """Return the mean megapixels, and the bits per pixel of all."""
    pixels = []
    for path in paths:
        with Image.open(path) as image:
            pixels.append(image.width * image.height)
    bits = 8 * sum(path.stat().st_size for path in paths)
    return {
        "megapixels": round(sum(pixels) / len(pixels) / 1e6, 1),
        "bits_per_pixel": round(bits / sum(pixels), 2),
    }


def outputs(
    runner: Runner, paths: list[Path], scale: Scale
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return FC7, (N, 4096), and the most likely classes, (N,)."""
    vectors, classes = [], []
    for result in run(runner, paths, decode=Decode.of(scale)):
        if result.outputs is None:
            raise SystemExit(f"{result.source}: {result.error}")
        vectors.append(result.outputs["fc7"].astype(np.float64))
        classes.append(result.outputs["probabilities"].argmax())
    return np.stack(vectors), np.stack(classes)


def differences(
    exact: tuple[NDArray[np.float64], NDArray[np.intp]],
    scaled: tuple[NDArray[np.float64], NDArray[np.intp]],
) -> dict[str, float]:
    """Return what became of vectors and classes."""
    lengths = np.linalg.norm(exact[0], axis=1) * np.linalg.norm(scaled[0], axis=1)
    cosines = (exact[0] * scaled[0]).sum(axis=1) / lengths
    return {
        "fc7_cosine_mean": round(float(cosines.mean()), 6),
        "fc7_cosine_lowest": round(float(cosines.min()), 6),
        "top1_agreement": round(float(np.mean(exact[1] == scaled[1])), 4),
    }


def rates(folder: Path, num_photographs: int, rounds: int) -> dict[str, float]:
    """Return the figures of `index`, run in turns."""
    runs: dict[str, list[tuple[float, float]]] = {scale: [] for scale in BOTH}
    for _ in range(rounds):
        for scale in BOTH:
            runs[scale].append(index(folder, scale))
    figures = {}
    for scale in BOTH:
        walls, processor = zip(*runs[scale], strict=True)
        figures[f"{scale}_images_per_s"] = round(num_photographs / statistics.median(walls), 2)
        figures[f"{scale}_processor_s"] = round(statistics.median(processor), 1)
    for column, name in enumerate(("wall", "processor")):
        pairs = zip(runs["exact"], runs["scaled"], strict=True)
        ratios = [exact[column] / scaled[column] for exact, scaled in pairs]
        figures[f"{name}_ratio"] = round(statistics.median(ratios), 2)
    return figures


def index(folder: Path, scale: Scale) -> tuple[float, float]:
    """Index a folder in a new process; return wall and processor seconds."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "alexnet_deploy", "index", str(folder), "--index"]
        command += [str(Path(scratch, "index")), "--decode", scale]
        wall_s, usage = run_process(command)
    return wall_s, usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
