"""ReLU and local response normalization in one step, with its gradient (section 3.3).

    a = max(0, z);  s = k + alpha/n * (sum of a^2 over n channels of the tower);  y = a * s^-beta

Left to autograd, this would store and traverse ten tensors the size of the layer; here it is two.
The sum over channels is a product with a band matrix: with channels last in memory, each pixel is
a row. On a CPU the work is done photograph by photograph, so that a map (1 MB for conv1) stays in
the cache from the first operation to the last.

    N photographs, C channels, H/W pixels
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from alexnet_deploy.model.spec import LrnSpec


def rectify_and_normalize(z: torch.Tensor, lrn: LrnSpec) -> torch.Tensor:
    """Return the normalized ReLU of a layer's pre-activations.

    Args:
        z: (N, C, H, W) float; copied unless channels are last in memory.
        lrn: the normalization; its `towers` divides C.

    Returns:
        (N, C, H, W) of `z`'s dtype, channels last. Sums are at least float32.
    """
    y: torch.Tensor = _RectifyAndNormalize.apply(z, lrn)  # type: ignore[no-untyped-call]
    return y


class _RectifyAndNormalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, lrn: LrnSpec) -> torch.Tensor:
        rows = _rows(z)
        exact = torch.promote_types(z.dtype, torch.float32)
        band = _band(z.shape[1], lrn, exact, z.device)
        a, y = torch.empty_like(rows), torch.empty_like(rows)
        root = torch.empty_like(rows, dtype=exact)  # s^-1/2
        for part in _parts(rows):
            torch.clamp_min(rows[part], 0, out=a[part])
            activations = a[part].to(exact)
            torch.mm(activations * activations, band, out=root[part])
            root[part].add_(lrn.k).rsqrt_()
            y[part] = _power(root[part], lrn.beta).mul_(activations)
        ctx.save_for_backward(a, root, band)
        ctx.beta = lrn.beta
        return _maps(y, z.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        a, root, band = ctx.saved_tensors
        incoming = _rows(gradient)
        dz = torch.empty_like(a)
        for part in _parts(a):
            activations, r = a[part].to(band.dtype), root[part]
            direct = _power(r, ctx.beta).mul_(incoming[part])
            # dy_j/da_i through s_j, for all j whose window contains i; the band is symmetric.
            through_sums = torch.mm((direct * activations).mul_(r).mul_(r), band)
            direct.addcmul_(through_sums, activations, value=-2 * ctx.beta)
            dz[part] = torch.where(activations > 0, direct, 0)
        return _maps(dz, gradient.shape), None


def _power(root: torch.Tensor, beta: float) -> torch.Tensor:
    """Return s^-beta from s^-1/2."""
    if beta == 0.75:  # section 3.3; a square root is cheaper than a power
        return torch.sqrt(root).mul_(root)
    return root.pow(2 * beta)


def _rows(maps: torch.Tensor) -> torch.Tensor:
    """Return (N, C, H, W) as (N*H*W, C), without a copy where channels are last in memory."""
    pixels = maps.permute(0, 2, 3, 1)
    return pixels.contiguous().view(-1, maps.shape[1])


def _maps(rows: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    count, channels, height, width = shape
    return rows.view(count, height, width, channels).permute(0, 3, 1, 2)


_CACHED_ROWS = 3072
"""Pixels at a time on a CPU: conv1's map of one photograph has 3,025."""


def _parts(rows: torch.Tensor) -> Iterator[slice]:
    step = _CACHED_ROWS if rows.device.type == "cpu" else max(1, len(rows))
    return (slice(start, start + step) for start in range(0, len(rows), step))


@cache
def _band(channels: int, lrn: LrnSpec, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return a (C, C) matrix: alpha/n where column j is in the window around row i, else 0."""
    index = torch.arange(channels, device=device)
    tower = index // (channels // lrn.towers)
    near = (index[:, None] - index).abs() <= lrn.size // 2
    return (near & (tower[:, None] == tower)).to(dtype) * (lrn.alpha / lrn.size)
