"""AlexNet in torch functions, written from the specification only: the tests' second oracle."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from alexnet_deploy.model.checkpoints import Checkpoint


def torch_layers(
    checkpoint: Checkpoint,
    images: NDArray[np.uint8],
    dtype: torch.dtype,
    change_input: Callable[[str, torch.Tensor], torch.Tensor] = lambda layer, x: x,
) -> dict[str, NDArray[np.float64]]:
    """Return every layer's activations for (N, H, W, 3) uint8 images.

    `change_input` takes the name of a layer with weights and what it is about to read.
    """
    spec = checkpoint.spec
    arrays = {name: torch.from_numpy(array).to(dtype) for name, array in checkpoint.arrays.items()}
    mean = torch.tensor(spec.preprocessing.mean, dtype=dtype).view(1, 3, 1, 1)
    std = torch.tensor(spec.preprocessing.std, dtype=dtype).view(1, 3, 1, 1)
    layers: dict[str, torch.Tensor] = {}
    x = (torch.from_numpy(images).permute(0, 3, 1, 2).to(dtype) - mean) / std
    for number, group in enumerate(spec.groups, start=1):
        top, left, bottom, right = spec.conv_padding(number)
        x = F.pad(change_input(f"conv{number}", x), (left, right, top, bottom))
        weight, bias = arrays[f"conv{number}.weight"], arrays[f"conv{number}.bias"]
        x = F.conv2d(x, weight, bias, stride=4 if number == 1 else 1, groups=group)
        layers[f"conv{number}_pre"] = x
        x = layers[f"conv{number}"] = torch.relu(x)
        normalized = spec.lrn is not None and number <= 2
        if normalized and spec.lrn and spec.lrn.position == "before_pool":
            x = layers[f"norm{number}"] = _normalize(x, checkpoint)
        if number in (1, 2, 5):
            beyond = spec.pool_padding[(1, 2, 5).index(number)]
            x = F.pad(x, (0, beyond, 0, beyond), value=-torch.inf)
            x = layers[f"pool{number}"] = F.max_pool2d(x, 3, 2)
        if normalized and spec.lrn and spec.lrn.position == "after_pool":
            x = layers[f"norm{number}"] = _normalize(x, checkpoint)
    x = x.flatten(1)
    for name in ("fc6", "fc7", "fc8") if spec.num_classes else ("fc6", "fc7"):
        x = change_input(name, x)
        if f"{name}.weight" in arrays:
            weight = arrays[f"{name}.weight"]
        else:
            weight = arrays[f"{name}.weight.left"] @ arrays[f"{name}.weight.right"]
        x = F.linear(x, weight, arrays[f"{name}.bias"])
        if name != "fc8":
            layers[f"{name}_pre"] = x
            x = layers[name] = torch.relu(x)
    if spec.num_classes:
        layers["logits"] = x
        layers["probabilities"] = torch.softmax(x, dim=1)
    return {name: layer.double().numpy() for name, layer in layers.items()}


def _normalize(x: torch.Tensor, checkpoint: Checkpoint) -> torch.Tensor:
    lrn = checkpoint.spec.lrn
    assert lrn is not None
    towers = [
        F.local_response_norm(tower, lrn.size, lrn.alpha, lrn.beta, lrn.k)
        for tower in x.chunk(lrn.towers, dim=1)
    ]
    return torch.cat(towers, dim=1)
