"""Write the bundled checkpoint from the draft: the same arrays, and a `ModelSpec` in the header.

    python tools/bundle_draft.py DRAFT.safetensors

For as long as the bundled checkpoint is a draft; the trainer writes such files itself.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from alexnet_deploy.checkpoints import Checkpoint, save_checkpoint
from alexnet_deploy.model_spec import ModelSpec, preset_spec

BUNDLED = Path(__file__).resolve().parents[1] / "alexnet_deploy" / "data"
DRAFT_KEY = "alexnet_deploy.draft"


def spec_from_draft(draft: dict[str, Any]) -> ModelSpec:
    """Return the draft's spec; what the draft says of its architecture must be the preset's.

    Raises:
        SystemExit: the draft is of another architecture than its preset.
    """
    spec = preset_spec(
        draft["preset"], num_classes=draft["num_classes"], labels=tuple(draft["labels"])
    )
    said = (draft["input_size"], draft["conv1_padding_top_left_bottom_right"], draft["widths"])
    ours = (spec.input_size, list(spec.conv1_padding), list(spec.widths))
    if said != ours:
        raise SystemExit(f"the draft says {said}, the preset {spec.preset} is {ours}")
    means, stds = draft["preprocessing"]["mean"], draft["preprocessing"]["std"]
    preprocessing = dataclasses.replace(spec.preprocessing, mean=tuple(means), std=tuple(stds))
    return dataclasses.replace(
        spec, preprocessing=preprocessing, provenance=_provenance(draft["measured"])
    )


def _provenance(measured: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "caltech101-draft",
        "data": (
            "Caltech-101 without its background class, 101 classes: 6,982 photographs to train, "
            "1,695 to test (every fifth of a class, by name). Li, Andreeto, Ranzato, Perona: "
            "Caltech 101, CaltechDATA, 2022, doi 10.22002/D1.20086"
        ),
        "licence": "CC BY 4.0",
        "status": (
            "draft, until the project's own trainer has made one; "
            "fc6 and fc7 are plain SVD factors of rank 128, without any repair"
        ),
        "measured": measured,
    }


def main() -> None:
    """Read the draft named on the command line and write the package's checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("draft", type=Path, help="the draft checkpoint")
    with safe_open(parser.parse_args().draft, framework="numpy") as file:
        draft = json.loads(file.metadata()[DRAFT_KEY])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    checkpoint = Checkpoint(spec=spec_from_draft(draft), arrays=arrays)
    save_checkpoint(checkpoint, BUNDLED / "caltech101.safetensors")


if __name__ == "__main__":
    main()
