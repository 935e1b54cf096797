"""The trainer's command on the GPU: from photographs to a checkpoint that classifies."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet_deploy import installed
from gpu_checks.check import Failed, Figures, Settings, Skipped, require
from gpu_checks.command_line import run_command
from gpu_checks.torch_gpu import both_towers_on_one

CLASSES = {"dark": 60, "light": 190}
"""Names and mean grey levels of easily separable classes."""
NEEDED = {
    "matplotlib": "with which a run draws its curves",
    "onnx": "with which it is exported",
    "onnxruntime": "with which the network classifies",
    "safetensors": "without which no checkpoint is read",
}
PHOTOGRAPHS = 40
EPOCHS = 4


def train(settings: Settings) -> Figures:
    """Train on two classes of noise, export the best network and classify with it on the CPU.

    Raises:
        Failed: a command fails, or the network has not learned to tell the classes apart.
        Skipped: this torch is a build for the CPU, or one of `NEEDED` is not installed.
    """
    both_towers_on_one()
    missing = [name for name in NEEDED if not installed.has_module(name)]
    if missing:
        what = ", and ".join(f"{name}, {NEEDED[name]}" for name in missing)
        raise Skipped(f"needs {what}; not installed here")
    _draw(Path("photographs"))
    how = ("--recipe", "modern", "--batch-size", "16", "--epochs", str(EPOCHS))
    command = ["train", "photographs", "-o", "run", "--devices", "cuda:0,cuda:0", *how, "--json"]
    finished = subprocess.run(
        [sys.executable, "-m", "training", *command, "--precision", "bf16"],
        stdout=subprocess.PIPE,
        check=False,
        text=True,
    )
    if finished.returncode != 0:
        raise Failed(f"python -m training ended with exit code {finished.returncode}", {})
    last = json.loads(finished.stdout.splitlines()[-1])["last"]
    names = ("epoch", "step", "train_loss", "val_loss", "val_top1", "images_per_second", "wall_s")
    figures: Figures = {name: last[name] for name in names}
    require(last["val_top1"] > 0.9, "it has not learned to tell dark from light", figures)
    on_cpu = ("--device", "cpu", "--runtime", "onnxruntime")
    run_command("export", "run/best.pt", "-o", "best.onnx", "--runtime", "onnxruntime")
    lines, _ = run_command("classify", "photographs", "--model", "best.onnx", "--json", *on_cpu)
    results = [json.loads(line) for line in lines]
    right = [Path(each["path"]).parent.name == each["predictions"][0]["label"] for each in results]
    figures["classified_right"] = sum(right) / len(right)
    require(figures["classified_right"] > 0.9, "the exported network has not learned it", figures)
    return figures


def _draw(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name, level in CLASSES.items():
        (folder / name).mkdir(parents=True)
        for number in range(PHOTOGRAPHS):
            pixels = rng.normal(level, 20, (256, 256, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02}.jpg")
