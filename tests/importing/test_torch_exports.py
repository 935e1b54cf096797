"""What torch's own exporters write is read: with a normalization of ten nodes, with open shapes."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from alexnet_deploy.importing.onnx_files import ForeignNetwork, read_foreign_network
from alexnet_deploy.importing.source import StatedNetwork
from alexnet_deploy.model.spec import LrnSpec

SIDE = 67  # px; pool5 is then 1 x 1


class CaffeNorm(nn.Module):
    """The normalization of the ports that came before torch's own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        squares = F.avg_pool3d(x.pow(2).unsqueeze(1), (5, 1, 1), stride=1, padding=(2, 0, 0))
        return x.div(squares.squeeze(1).mul(2e-4).add(1.5).pow(0.6))


class View(nn.Module):
    """Flattens as programs did before there was a module for it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.size(0), 8 * 1 * 1)


def torch_norm() -> nn.Module:
    return nn.LocalResponseNorm(5, alpha=2e-4, beta=0.6, k=1.5)


def network(
    norm: Callable[[], nn.Module] | None, flatten: nn.Module, end: list[nn.Module]
) -> nn.Sequential:
    def normalized() -> list[nn.Module]:
        return [norm()] if norm else []

    torch.manual_seed(0)
    layers = [
        *(nn.Conv2d(3, 8, 11, 4, 2), nn.ReLU(inplace=True), *normalized(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(8, 16, 5, padding=2, groups=2), nn.ReLU(), *normalized(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(16, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(12, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(flatten, nn.Dropout(), nn.Linear(8, 4096), nn.ReLU()),
        *(nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), *end),
    ]
    return nn.Sequential(*layers).eval()


def exported(module: nn.Module, path: Path, *, by_dynamo: bool, has_open_batch: bool) -> Path:
    options: dict[str, Any] = {"dynamo": by_dynamo, "input_names": ["x"]}
    if by_dynamo:
        options["external_data"] = False
    if has_open_batch and by_dynamo:
        options["dynamic_shapes"] = ({0: torch.export.Dim("N")},)
    elif has_open_batch:
        options["dynamic_axes"] = {"x": {0: "N"}}
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(module, (torch.zeros(1, 3, SIDE, SIDE),), path, **options)
    return path


def assert_holds(found: ForeignNetwork, module: nn.Sequential, lrn: LrnSpec | None) -> None:
    source = found.source
    assert source.stated == StatedNetwork(
        input_size=SIDE,
        conv1_padding=(2, 2, 2, 2),
        pool_padding=(0, 0, 0),
        groups=(1, 2, 1, 1, 1),
        lrn=lrn,
    )
    assert source.places is not None
    layers = [layer for layer in module if isinstance(layer, nn.Conv2d | nn.Linear)]
    names = [*(f"conv{number}" for number in range(1, 6)), "fc6", "fc7", "fc8"]
    for name, layer in zip(names, layers, strict=False):
        for part, tensor in layer.named_parameters():
            array = source.arrays[source.places[f"{name}.{part}"]]
            np.testing.assert_array_equal(array, tensor.detach().numpy(), name)


@pytest.mark.parametrize("has_open_batch", [False, True])
@pytest.mark.parametrize("by_dynamo", [False, True])
@pytest.mark.parametrize(
    ("norm", "flatten", "end", "layer"),
    [
        (None, nn.Flatten(), [nn.Linear(4096, 7)], "logits"),
        (torch_norm, View(), [nn.Linear(4096, 7), nn.Softmax(1)], "probabilities"),
        (CaffeNorm, nn.Flatten(), [], "fc7"),
    ],
)
def test_an_export_of_torch_is_read(
    norm: Callable[[], nn.Module] | None,
    flatten: nn.Module,
    end: list[nn.Module],
    layer: str,
    by_dynamo: bool,
    has_open_batch: bool,
    tmp_path: Path,
) -> None:
    if by_dynamo:
        pytest.importorskip("onnxscript", reason="torch's newer exporter needs onnxscript")
    module = network(norm, flatten, end)
    path = tmp_path / "x.onnx"
    exported(module, path, by_dynamo=by_dynamo, has_open_batch=has_open_batch)
    found = read_foreign_network(path)
    lrn = LrnSpec(size=5, alpha=2e-4, beta=0.6, k=1.5, towers=1, position="before_pool")
    assert_holds(found, module, lrn if norm else None)
    assert (found.interface.layer, found.interface.batch) == (layer, None if has_open_batch else 1)


def test_an_adaptive_pooling_that_changes_nothing_is_read(tmp_path: Path) -> None:
    flatten = nn.Sequential(nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten())
    module = network(None, flatten, [nn.Linear(4096, 7)])
    path = exported(module, tmp_path / "x.onnx", by_dynamo=False, has_open_batch=False)
    assert_holds(read_foreign_network(path), module, None)
