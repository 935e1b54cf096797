"""The network as one would deploy it in torch, to compare a runner's rate with.

N images, C channels, H/W px.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.spec import (
    CONV_STRIDES,
    NORMALIZED_CONVS,
    POOL_SIZE,
    POOL_STRIDE,
    POOLED_CONVS,
    LrnSpec,
)

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

Forward = Callable[[NDArray[np.uint8]], dict[str, NDArray[np.float32]]]


def forward_of(checkpoint: Checkpoint, precision: str, device: str) -> Forward:
    """Return a function like `Runner.run` for (N, H, W, 3) crops: probabilities and FC7, as arrays.

    Factored layers stay factored, and LRN is float32, as in our files.

    Args:
        checkpoint: of the `paper` preset.
        precision: "fp32", without TF32, "fp16" or "bf16".
        device: torch's device name.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True  # the fastest convolutions, as in the runners
    dtype = _DTYPES[precision]
    weights = {
        name: torch.from_numpy(array.astype(np.float32)).to(device, dtype)
        for name, array in checkpoint.arrays.items()
    }
    spec = checkpoint.spec
    mean = torch.from_numpy(checkpoint.mean()).to(device, dtype)
    std = torch.tensor(spec.preprocessing.std, device=device, dtype=dtype).view(3, 1, 1)

    def connected(x: torch.Tensor, layer: str) -> torch.Tensor:
        bias = weights[f"{layer}.bias"]
        if f"{layer}.weight" in weights:
            return F.linear(x, weights[f"{layer}.weight"], bias)
        x = F.linear(x, weights[f"{layer}.weight.right"])
        return F.linear(x, weights[f"{layer}.weight.left"], bias)

    def forward(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        x = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
        x = (x.to(dtype) - mean) / std
        for number, (stride, groups) in enumerate(zip(CONV_STRIDES, spec.groups, strict=True), 1):
            top, left, bottom, right = spec.conv_padding(number)
            weight, bias = (weights[f"conv{number}.{part}"] for part in ("weight", "bias"))
            x = F.pad(x, (left, right, top, bottom))
            x = F.relu(F.conv2d(x, weight, bias, stride, groups=groups))
            if spec.lrn is not None and number in NORMALIZED_CONVS:
                x = _normalized(x, spec.lrn)
            if number in POOLED_CONVS:
                x = F.max_pool2d(x, POOL_SIZE, POOL_STRIDE)
        fc7 = F.relu(connected(F.relu(connected(x.flatten(1), "fc6")), "fc7"))
        probabilities = F.softmax(connected(fc7, "fc8").float(), dim=1)
        outputs = {"probabilities": probabilities, "fc7": fc7.float()}
        return {name: value.cpu().numpy() for name, value in outputs.items()}

    return torch.inference_mode()(forward)


def _normalized(x: torch.Tensor, lrn: LrnSpec) -> torch.Tensor:
    """Normalize each tower separately, folded into the batch."""
    folded = (len(x) * lrn.towers, x.shape[1] // lrn.towers, *x.shape[2:])
    y = F.local_response_norm(x.float().reshape(folded), lrn.size, lrn.alpha, lrn.beta, lrn.k)
    return y.reshape(x.shape).to(x.dtype)
