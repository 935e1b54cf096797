"""Time the trainer's step against the same step in plain torch, in turns, and print the ratio.

Both take a full step of the paper's network: forward, backward, update, on batches in memory.
"Plain" is the straightforward version: one network with grouped convolutions, `local_response_norm`
per tower, torch's SGD. Each runs in its own process, because the trainer changes its process's
memory allocation; they take turns, so that both see the same variations of the machine.

    python tools/step_rate.py [--devices cpu,cpu] [--precision fp32] [--json FILE]

It also prints the hours that the paper's 90 epochs of 1.2 million photographs would take if
decoding keeps up (the paper: five to six days on two GTX 580), and for a GPU the share of its peak
FLOP/s.
"""

import argparse
import functools
import json
import multiprocessing
import statistics
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from alexnet_deploy.model.spec import preset_spec
from alexnet_deploy.timing import in_turns, median_ratio, seconds_of
from training.augmentation import Augmentation, ColourComponents
from training.devices import keep_freed_memory, parse_devices, use_precision
from training.initialization import initial_weights
from training.optimizers import optimizer_of
from training.photographs import PhotographBatch
from training.recipes import PAPER
from training.towers import TwoTowers
from training.trainer import Trainer
from training.weights import split

NUM_CLASSES = 1000
MACS_PER_IMAGE = 724_406_816  # the network's forward pass, facts of the 2012 architecture
CONV1_MACS = 105_415_200  # whose inputs need no gradient
PAPER_IMAGES = 90 * 1_200_000  # section 5
PAPER_DAYS = "five to six days"
# Dense peak without sparsity, FLOP/s, from NVIDIA's data sheets.
PEAKS = {
    (name, precision): peak
    for name in ("NVIDIA H200", "NVIDIA H100 80GB HBM3")
    for precision, peak in (("fp32", 67e12), ("tf32", 494.5e12), ("bf16", 989e12))
}


class PlainAlexNet(nn.Module):
    """The network as one would write it in torch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.fc6 = nn.Linear(9216, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, NUM_CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of (N, 3, 224, 224) inputs."""
        x = self._norm(F.relu(self.conv1(F.pad(images, (0, 3, 0, 3)))))
        x = self._norm(F.relu(self.conv2(F.max_pool2d(x, 3, 2))))
        x = F.relu(self.conv3(F.max_pool2d(x, 3, 2)))
        x = F.relu(self.conv5(F.relu(self.conv4(x))))
        x = F.max_pool2d(x, 3, 2).flatten(1)
        x = F.dropout(F.relu(self.fc6(x)))
        logits: torch.Tensor = self.fc8(F.dropout(F.relu(self.fc7(x))))
        return logits

    def _norm(self, x: torch.Tensor) -> torch.Tensor:
        towers = [F.local_response_norm(half, 5, 1e-4, 0.75, 2.0) for half in x.chunk(2, dim=1)]
        return torch.cat(towers, dim=1)


def plain_stepper(device: torch.device, precision: str, batch: int) -> Any:
    """Return a function that takes one plain step."""
    torch.manual_seed(0)
    network = PlainAlexNet().to(device)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, 0.9, weight_decay=5e-4)
    images = torch.randn(batch, 3, 224, 224, device=device)
    labels = torch.arange(batch, device=device) % NUM_CLASSES

    def step(_: int) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = network(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()

    return step


def trainer_stepper(devices: str, precision: Any, batch: int) -> Any:
    """Return a function that takes one step of the trainer, augmentation included."""
    keep_freed_memory()
    both = parse_devices(devices)
    spec = preset_spec("paper", num_classes=NUM_CLASSES)
    network = TwoTowers(spec, both)
    network.load_state_dict(split(initial_weights(spec, PAPER, seed=0)))
    components = ColourComponents(vectors=torch.eye(3), stds=torch.tensor([20.0, 37.0, 122.0]))
    trainer = Trainer(
        network,
        PAPER,
        optimizer_of(network, PAPER, frozenset(), 1.0),
        Augmentation(spec, PAPER, components, None, both[0]),
        precision=precision,
        seed=0,
    )
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (batch, 256, 256, 3), generator=generator, dtype=torch.uint8)
    # On the CPU, from where they are copied to a GPU in each step.
    photographs = PhotographBatch(images=pictures, labels=torch.arange(batch) % NUM_CLASSES)
    # Random labels diverge at a high learning rate; the work is the same at a low one.
    return lambda number: trainer.step(photographs, number, 1e-4)


def worker(pipe: Connection, kind: str, options: dict[str, Any]) -> None:
    """Take the number of steps requested through the pipe, and answer with their seconds."""
    devices = parse_devices(options["devices"])
    use_precision(options["precision"], devices)
    if kind == "plain":
        step = plain_stepper(devices[0], options["precision"], options["batch"])
    else:
        step = trainer_stepper(options["devices"], options["precision"], options["batch"])
    number = 0

    def steps() -> None:
        nonlocal number
        for _ in range(count):
            step(number)
            number += 1
        if devices[0].type == "cuda":
            for device in devices:
                torch.cuda.synchronize(device)

    while count := pipe.recv():
        pipe.send(seconds_of(steps))


def measure(options: dict[str, Any]) -> dict[str, list[float]]:
    """Return images per second of each kind, by round, taken in turns."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for kind in ("plain", "trainer"):
        pipes[kind], theirs = context.Pipe()
        processes.append(context.Process(target=worker, args=(theirs, kind, options), daemon=True))
        processes[-1].start()
        theirs.close()  # else a dead worker would be waited for

    def seconds(kind: str) -> float:
        pipes[kind].send(options["steps"])
        answer: float = pipes[kind].recv()
        return answer

    timers = {kind: functools.partial(seconds, kind) for kind in pipes}
    in_turns(timers, 1)  # to warm up
    taken = in_turns(timers, options["rounds"])
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(0)
        process.join()
    images = options["steps"] * options["batch"]
    return {kind: [images / each for each in times] for kind, times in taken.items()}


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--devices", default="cpu,cpu", help="as for the trainer")
    parser.add_argument("--precision", choices=("fp32", "tf32", "bf16"), default="fp32")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=2, help="in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = vars(parser.parse_args())
    rates = measure(options)
    ratios = [own / plain for own, plain in zip(rates["trainer"], rates["plain"], strict=True)]
    rate = statistics.median(rates["trainer"])
    flops = 2 * (3 * MACS_PER_IMAGE - CONV1_MACS)
    figures: dict[str, Any] = {
        "devices": options["devices"],
        "precision": options["precision"],
        "batch": options["batch"],
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "plain_images_per_second": [round(value, 1) for value in rates["plain"]],
        "trainer_images_per_second": [round(value, 1) for value in rates["trainer"]],
        "ratio_median": round(median_ratio(rates["trainer"], rates["plain"]), 2),
        "ratio_lowest": round(min(ratios), 2),
        "trainer_flops_per_second": round(rate * flops),
        "hours_for_the_papers_90_epochs": round(PAPER_IMAGES / rate / 3600, 1),
        "paper": PAPER_DAYS,
    }
    devices = parse_devices(options["devices"])
    if devices[0].type == "cuda":
        name = torch.cuda.get_device_name(devices[0])
        peak = PEAKS.get((name, options["precision"]))
        share = peak and round(rate * flops / (peak * len(set(devices))), 3)
        figures |= {"gpu": name, "share_of_peak": share}
    text = json.dumps(figures, indent=1)
    print(text)
    if options["json"]:
        options["json"].write_text(text + "\n")


if __name__ == "__main__":
    main()
