"""Make a shrunk checkpoint the bundled one: evaluate it, and write its provenance to its header.

    python tools/bundle.py SMALL.safetensors WHOLE.pt TEST

Last step of `tools/train_bundled.sh`. The full network is evaluated as well, to show what shrinking
cost. The model card, `alexnet_deploy/data/caltech101.md`, repeats what this prints.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from alexnet_deploy.export.opening import open_runner_of
from alexnet_deploy.inference.evaluation import evaluate
from alexnet_deploy.model.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.photographs.class_folders import ClassFolders, find_class_folders
from alexnet_deploy.runtimes.base import RunnerOptions

MAX_BYTES, HEADER_BYTES = 12_000_000, 8_000
ORIGIN = {
    "name": "caltech101",
    "data": (
        "Caltech-101 without its background class, 101 classes: 6,982 photographs to train, "
        "1,695 to test (every fifth of a class, by name). Li, Andreeto, Ranzato, Perona: "
        "Caltech 101, CaltechDATA, 2022, doi 10.22002/D1.20086"
    ),
    "licence": "CC BY 4.0",
    "command": "tools/train_bundled.sh",
}


def judge(checkpoint: Path, folders: ClassFolders) -> dict[str, Any]:
    """Return a checkpoint's centre-crop accuracy, and what ran it."""
    with open_runner_of(checkpoint, RunnerOptions(outputs=("probabilities",))) as runner:
        found = evaluate([runner], folders)
    if found.failures:
        raise SystemExit(f"photographs that cannot be read: {found.failures}")
    return {
        "by": f"{runner.options.runtime} {runner.options.precision}",
        "top1": round(found.top1, 4),
        "top5": round(found.top5, 4),
        "mean_class_top1": round(found.mean_class_top1, 4),
    }


def main() -> None:
    """Evaluate both networks and write the package's checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("small", type=Path, help="what `python -m training shrink` wrote")
    parser.add_argument("whole", type=Path, help="the full network it was made from")
    parser.add_argument("test", type=Path, help="folder of the test photographs")
    arguments = parser.parse_args()
    folders = find_class_folders(arguments.test)
    # The header written later adds a kilobyte or two.
    size = arguments.small.stat().st_size
    if size > MAX_BYTES - HEADER_BYTES:
        raise SystemExit(f"{arguments.small}: {size:,} bytes, at most {MAX_BYTES:,} may ship")
    measured = {
        "photographs": len(folders),
        "test_set": "caltech101/test, centre crop",
        **judge(arguments.small, folders),
        "dense_before_factoring": judge(arguments.whole, folders),
    }
    checkpoint = load_checkpoint(arguments.small)
    provenance = ORIGIN | dict(checkpoint.spec.provenance) | {"measured": measured}
    spec = dataclasses.replace(checkpoint.spec, provenance=provenance)
    save_checkpoint(Checkpoint(spec=spec, arrays=checkpoint.arrays), bundled_checkpoint())
    size = bundled_checkpoint().stat().st_size
    print(json.dumps(measured | {"bytes": size, "identity": checkpoint.identity}, indent=1))


if __name__ == "__main__":
    main()
