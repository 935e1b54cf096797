"""Show what fine-tuning is worth: pre-train on half of the classes, learn the others from few.

    python tools/fine_tuning.py CALTECH101 runs/fine-tuning [--json FILE]

CALTECH101 holds train/ and test/. A network is trained on every second class (51 of 101). The other
50 are then learnt from 20 photographs each, drawn anew for each of three seeds, in three ways that
take as many steps: fc8 alone from the trained network, the whole network from there with the old
layers at a tenth of the rate, and the whole network from nothing; each at the recipe's rate and at
a higher one. All are judged on the test photographs of the 50, once, at the end.

The network is the paper's with half the kernels and inputs of 128 px; the recipe is that of the
bundled checkpoint (`tools/train_bundled.sh`) with fewer epochs, so that all 19 runs take an hour of
one core's time. Interrupted, it goes on where it was when it is run again.
"""

import argparse
import dataclasses
import itertools
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_deploy.export.opening import open_runner_of
from alexnet_deploy.inference.evaluation import evaluate
from alexnet_deploy.model.checkpoints import Checkpoint, save_checkpoint
from alexnet_deploy.model.spec import preset_spec
from alexnet_deploy.photographs.class_folders import find_class_folders
from alexnet_deploy.runtimes.base import RunnerOptions
from training.checkpointing import last_checkpoint
from training.initialization import initial_weights
from training.options import TrainOptions
from training.recipes import MODERN
from training.reporting import TerminalReporter
from training.train import train

NUM_EACH, SEEDS = 20, (0, 1, 2)
NUM_EPOCHS = 20
RATES = (3e-4, 1e-3)
"""Of the new fc8; the first is the recipe's, at which the 51 classes are learnt."""
WIDTHS, INPUT, PICTURE = (48, 128, 192, 192, 128), 128, 146
RECIPE = MODERN.with_options(
    {
        "num_epochs": NUM_EPOCHS,
        "weight_decay": 0.3,
        "min_crop_area": 0.25,
        "max_rotation": 12,
        "colour_jitter": 0.3,
    }
)
WAYS = {"fc8 alone": "head", "the whole network": "all", "from nothing": "all"}


def link_classes(source: Path, target: Path, classes: list[str], seed: int | None) -> Path:
    """Link photographs of some classes into a folder of their own.

    Args:
        source: class sub-folders.
        target: the folder to make.
        classes: names of the sub-folders.
        seed: of the `NUM_EACH` photographs of each class; None for all.
    """
    for name in classes:
        photographs = sorted((source / name).iterdir())
        if seed is not None:
            order = np.random.default_rng(seed).permutation(len(photographs))
            photographs = [photographs[index] for index in order[:NUM_EACH]]
        (target / name).mkdir(parents=True, exist_ok=True)
        for path in photographs:
            link = target / name / path.name
            if not link.is_symlink():
                os.symlink(path.resolve(), link)
    return target


def untrained(folder: Path, seed: int) -> Path:
    """Write a network with its first weights, for `init`: the trainer makes the paper's alone."""
    spec = preset_spec("paper", num_classes=0)
    preprocessing = dataclasses.replace(
        spec.preprocessing, resize_to=PICTURE, std=(RECIPE.input_std,) * 3
    )
    spec = dataclasses.replace(spec, widths=WIDTHS, input_size=INPUT, preprocessing=preprocessing)
    path = folder / f"untrained-{seed}.safetensors"
    if not path.exists():
        weights = initial_weights(spec, RECIPE, seed)
        arrays = {name: tensor.numpy() for name, tensor in weights.items()}
        folder.mkdir(parents=True, exist_ok=True)
        save_checkpoint(Checkpoint(spec=spec, arrays=arrays), path)
    return path


def run(data: Path, output: Path, init: Path, **others: Any) -> tuple[Path, int]:
    """Train, or go on training; return the last checkpoint and the number of steps."""
    options: dict[str, Any] = {
        "recipe": RECIPE,
        "validation": None,
        "hold_out": 0.0,
        "devices": "cpu,cpu",
        "precision": "fp32",
        "seed": 0,
        "old_rate_factor": 1.0,
        "train": "all",
        "keep": 1,
        "save_minutes": 5.0,
        "num_workers": 0,
        "memory_bytes": 4 * 10**9,
    }
    resume = last_checkpoint(output) is not None
    asked = TrainOptions(data=data, output=output, init=init, resume=resume, **options | others)
    report = train(asked, TerminalReporter())
    if report.signal_number is not None:
        raise SystemExit(128 + report.signal_number)
    return report.checkpoint, report.step


def judge(checkpoint: Path, test: Path) -> dict[str, float]:
    """Return a checkpoint's centre-crop accuracy on a folder of its classes."""
    with open_runner_of(checkpoint, RunnerOptions(outputs=("probabilities",))) as runner:
        found = evaluate([runner], find_class_folders(test))
    return {name: round(getattr(found, name), 4) for name in ("top1", "top5", "mean_class_top1")}


def experiment(data: Path, folder: Path, write: Any) -> None:
    """Run all that has not run yet; call `write` with the figures after each run."""
    classes = sorted(path.name for path in (data / "train").iterdir() if path.is_dir())
    known, new = classes[0::2], classes[1::2]
    test = link_classes(data / "test", folder / "test-new", new, None)
    start = time.perf_counter()
    trained, steps = run(
        link_classes(data / "train", folder / "train-known", known, None),
        folder / "known",
        untrained(folder, 0),
    )
    figures: dict[str, Any] = {
        "network": {"preset": "paper", "widths": WIDTHS, "input_size": INPUT},
        "recipe": dataclasses.asdict(RECIPE),
        "pre_training": {
            "classes": len(known),
            "steps": steps,
            **judge(trained, link_classes(data / "test", folder / "test-known", known, None)),
        },
        "classes": len(new),
        "photographs_each": NUM_EACH,
        "test_photographs": len(find_class_folders(test)),
        "runs": [],
    }
    for rate, seed, way in itertools.product(RATES, SEEDS, WAYS):
        few = link_classes(data / "train", folder / f"train-new-{seed}", new, seed)
        from_nothing = way == "from nothing"
        checkpoint, steps = run(
            few,
            folder / f"{way.replace(' ', '-')}-{seed}{'' if rate == RATES[0] else f'-{rate}'}",
            untrained(folder, 1 + seed) if from_nothing else trained,
            recipe=RECIPE.with_options({"learning_rate": rate}),
            seed=seed,
            train=WAYS[way],
            old_rate_factor=1.0 if from_nothing else 0.1,
        )
        one = {"way": way, "rate": rate, "seed": seed, "steps": steps, **judge(checkpoint, test)}
        figures["runs"].append(one)
        write(figures | {"means": means(figures["runs"])})
    print(f"{time.perf_counter() - start:,.0f} s")


def means(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the seeds' mean accuracy, and the standard deviation of their top-1, of each way."""
    found = []
    for rate, way in itertools.product(RATES, WAYS):
        same = [one for one in runs if (one["way"], one["rate"]) == (way, rate)]
        if len(same) > 1:
            names = ("top1", "top5", "mean_class_top1")
            mean = {name: round(statistics.mean(one[name] for one in same), 4) for name in names}
            deviation = round(statistics.stdev(one["top1"] for one in same), 4)
            found.append({"way": way, "rate": rate, **mean, "top1_std": deviation})
    return found


def main() -> None:
    """Run the experiment and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder that holds train/ and test/")
    parser.add_argument("folder", type=Path, help="folder of the runs")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()

    def write(figures: dict[str, Any]) -> None:
        text = json.dumps(figures, indent=1)
        print(json.dumps(figures["runs"][-1]), flush=True)
        if arguments.json:
            arguments.json.write_text(text + "\n")

    experiment(arguments.data, arguments.folder, write)


if __name__ == "__main__":
    main()
