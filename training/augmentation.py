"""From whole pictures to network inputs: crops, flips and colour (section 4.1), by the batch.

All of it runs on the device that holds the pictures. Random numbers are drawn on the CPU from one
generator, so that a seed gives the same crops on every machine.

    N photographs, S = 256 px pictures, I = 224 px inputs
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from alexnet_deploy.model.spec import ModelSpec
from training.recipes import Recipe

_LOG_ASPECT = math.log(4 / 3)
"""Resized crops have aspect ratios from 3:4 to 4:3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourComponents:
    """Principal components of the RGB values of the training pixels.

    Attributes:
        vectors: (3, 3) float32, one component per column.
        stds: (3,) float32, grey levels; see `ColourStatistics.principal_components`.
    """

    vectors: torch.Tensor
    stds: torch.Tensor


class Augmentation:
    """Turn uint8 pictures into inputs for training or for validation.

    Args:
        spec: gives the input size, channel means and std.
        recipe: gives the kind of crop and the strength of the colour changes.
        components: of the training pixels.
        mean_image: (S, S, 3) float32 RGB, or None for the spec's channel means. As in the 2012
            code, its central window is subtracted wherever the crop lies.
        device: of the pictures to come.
    """

    def __init__(
        self,
        spec: ModelSpec,
        recipe: Recipe,
        components: ColourComponents,
        mean_image: torch.Tensor | None,
        device: torch.device,
    ) -> None:
        self._size = spec.input_size
        self._recipe = recipe
        self._components = components
        if mean_image is None:
            mean = torch.tensor(spec.preprocessing.mean)
        else:
            mean = mean_image[_central(mean_image.shape[0], self._size)]
        self._mean = mean.to(device)
        self._std = torch.tensor(spec.preprocessing.std, device=device)

    def for_training(self, pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return (N, 3, I, I) float32 inputs, channels last, from (N, S, S, 3) uint8 pictures."""
        count = len(pictures)
        if self._recipe.crop == "positions":
            crops = self._positioned(pictures, generator)
        else:
            crops = self._resized(pictures, generator)
        if self._recipe.colour_jitter:
            crops = self._jittered(crops, generator)
        factors = torch.randn(count, 3, generator=generator) * self._recipe.colour_std
        shift = (factors * self._components.stds) @ self._components.vectors.T
        crops += shift.to(crops.device)[:, None, None, :]
        return self._normalized(crops)

    def for_validation(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return the inputs of the centre crops, in the layout of `for_training`."""
        rows, columns = _central(pictures.shape[1], self._size)
        return self._normalized(pictures[:, rows, columns].float())

    def _normalized(self, crops: torch.Tensor) -> torch.Tensor:
        return crops.sub_(self._mean).div_(self._std).permute(0, 3, 1, 2)

    def _positioned(self, pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Cut a window at one of (S-I+1)^2 positions out of each picture; mirror half of them."""
        count, side = pictures.shape[:2]
        places = torch.randint(side - self._size + 1, (2, count, 1), generator=generator)
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        steps = torch.arange(self._size)
        rows = places[0] + steps
        columns = places[1] + torch.where(mirrored, steps.flip(0), steps)
        index = torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]
        return pictures[tuple(part.to(pictures.device) for part in index)].float()

    def _resized(self, pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Resize a random window of each picture to I x I px, bilinearly; mirror half of them.

        A window is at most S/I = 1.14 times the size of the input, so no anti-aliasing filter is
        needed. A rotated window may extend beyond the picture, which is reflected at its edges.
        """
        count = len(pictures)
        uniform = torch.rand(6, count, generator=generator)
        area = self._recipe.min_crop_area + uniform[0] * (1 - self._recipe.min_crop_area)
        aspect = torch.exp((2 * uniform[1] - 1) * _LOG_ASPECT)
        # As fractions of the side; a window that is too wide or too high is cut at the edges.
        width = (area * aspect).sqrt().clamp(max=1)
        height = (area / aspect).sqrt().clamp(max=1)
        angle = (2 * uniform[5] - 1) * math.radians(self._recipe.max_rotation)
        mirror = torch.where(uniform[4] < 0.5, -1.0, 1.0)
        theta = torch.zeros(count, 2, 3)
        theta[:, 0, 0] = mirror * width * angle.cos()
        theta[:, 1, 0] = mirror * width * angle.sin()
        theta[:, 0, 1] = -height * angle.sin()
        theta[:, 1, 1] = height * angle.cos()
        theta[:, 0, 2] = (2 * uniform[2] - 1) * (1 - width)
        theta[:, 1, 2] = (2 * uniform[3] - 1) * (1 - height)
        shape = [count, 3, self._size, self._size]
        grid = F.affine_grid(theta.to(pictures.device), shape, align_corners=False)
        maps = pictures.permute(0, 3, 1, 2).float()
        crops = F.grid_sample(maps, grid, padding_mode="reflection", align_corners=False)
        return crops.permute(0, 2, 3, 1).contiguous()

    def _jittered(self, crops: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Scale saturation around each pixel's grey, contrast around the mean, and brightness."""
        factors = 1 + (2 * torch.rand(3, len(crops), generator=generator) - 1) * (
            self._recipe.colour_jitter
        )
        saturation, contrast, brightness = factors.to(crops.device)[:, :, None, None, None]
        grey = crops.mean(3, keepdim=True)
        mean = grey.mean((1, 2), keepdim=True)
        crops = (crops - grey).mul_(saturation).add_(grey)
        return crops.sub_(mean).mul_(contrast).add_(mean * brightness)


def _central(side: int, size: int) -> tuple[slice, slice]:
    """Return the window that the package's preprocessing cuts from a square picture."""
    start = round((side - size) / 2)  # half to even, like torchvision's CenterCrop
    return slice(start, start + size), slice(start, start + size)
