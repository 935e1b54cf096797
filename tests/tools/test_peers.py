"""What `embed` is compared with computes FC7, each in its own way."""

from pathlib import Path

import numpy as np
import pytest
from peers import PEERS, Crops, by_torch

from alexnet_deploy.export.onnx import build_file
from alexnet_deploy.graph.model_file import write_model
from alexnet_deploy.model.checkpoints import load_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.verification.comparison import relative_error


def test_peers_agree_on_photographs(tmp_path: Path) -> None:
    checkpoint, model = load_checkpoint(bundled_checkpoint()), tmp_path / "model.onnx"
    write_model(build_file(checkpoint, ("fc7",), "fp32"), model)
    crops = Crops(list(varied_samples()[:2]), checkpoint.spec)
    found = []
    for feed, opened in (PEERS["torch"], PEERS["onnxruntime"]):
        (batch,) = feed(crops)
        found.append(opened(model)(batch))
    assert found[0].shape == (2, 4096)
    assert relative_error(*found) < 1e-4


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_torch_in_half_precision_agrees_up_to_its_rounding(precision: str) -> None:
    crops = Crops(list(varied_samples()[:2]), load_checkpoint(bundled_checkpoint()).spec)
    (batch,) = PEERS["torch"][0](crops)
    exact, rounded = by_torch()(batch), by_torch(precision=precision)(batch)
    assert rounded.dtype == np.float32
    assert 0 < relative_error(rounded, exact) < {"fp16": 1e-2, "bf16": 5e-2}[precision]
