"""Random changes of a training batch: cheap on a CPU, the same for the same generator.

After nnU-Net's augmentation (Isensee et al., Nature Methods 2021): mirroring, rotation with scaling, contrast,
brightness, gamma, noise and low resolution. Rotation turns millimetres, not voxels; where one axis is much coarser than
the others only the plane of fine voxels is turned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from radloop.engine.losses import IGNORE
from radloop.recipes.recipe import Recipe

_COARSE = 3.0  # times the finest spacing: nnU-Net's limit for turning in three dimensions


@dataclass(frozen=True)
class Strength:
    """How often and how far each change goes; probabilities a patch, ranges uniform."""

    affine: float = 0.4
    degrees: float = 20.0
    scale: tuple[float, float] = (0.8, 1.25)
    contrast: float = 0.2
    contrast_range: tuple[float, float] = (0.7, 1.4)
    brightness: float = 0.2
    brightness_range: tuple[float, float] = (-0.3, 0.3)
    gamma: float = 0.25
    gamma_range: tuple[float, float] = (0.7, 1.5)
    noise: float = 0.15
    noise_range: tuple[float, float] = (0.0, 0.25)
    coarse: float = 0.1
    coarse_range: tuple[float, float] = (0.5, 0.9)


class Augment:
    """Changes a batch at random; mirrors and turns the label along. Takes optional channels away now and then."""

    def __init__(self, recipe: Recipe, generator: torch.Generator, strength: Strength | None = None) -> None:
        self._mirror = [axis for axis in recipe.fit.mirror if axis < recipe.dimension]
        self._spacing = recipe.preprocess.spacing or (1.0,) * recipe.dimension
        self._optional, self._dropout = recipe.may_lack, recipe.fit.channel_dropout
        self._generator = generator
        self._strength = strength or Strength()

    def __call__(self, image: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The changed (N, C, *space) float32 images and (N, *space) uint8 labels; neither argument is touched."""
        pairs = [self._one(x, y) for x, y in zip(image, label, strict=True)]
        return torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])

    def intensity(self, image: torch.Tensor) -> torch.Tensor:
        """The (N, C, *space) float32 images with other contrast, brightness and noise, everything where it was."""
        return torch.stack([self._without(self._intensity(one), self._gone(one)) for one in image])

    def state(self) -> torch.Tensor:
        """Of its random numbers, for `go_on`."""
        return self._generator.get_state()

    def go_on(self, state: torch.Tensor) -> None:
        """Continue with the random numbers where another one was."""
        self._generator.set_state(state)

    def _one(self, image: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        s, gone = self._strength, self._gone(image)
        axes = [axis for axis in self._mirror if self._chance(0.5)]
        if axes:
            image, label = image.flip([axis + 1 for axis in axes]), label.flip(axes)
        if self._chance(s.affine):
            image, label = self._turn(image, label)
        return self._without(self._intensity(image), gone), label

    @staticmethod
    def _without(image: torch.Tensor, gone: list[int]) -> torch.Tensor:
        """Noise and brightness must not fill channels that are not there."""
        if gone:
            image = image.clone()
            image[gone] = 0
        return image

    def _gone(self, image: torch.Tensor) -> list[int]:
        """Channels that the study lacks, or that it is to do without this time."""
        lacking = [place for place in self._optional if not image[place].any()]
        dropped = [place for place in self._optional if self._chance(self._dropout)]
        return sorted({*lacking, *dropped})

    def _turn(self, image: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        theta = self._affine(label.shape).to(image)[None]
        grid = functional.affine_grid(theta, [1, 1, *label.shape], align_corners=False)
        turned = functional.grid_sample(image[None], grid, padding_mode="border", align_corners=False)[0]
        outside = IGNORE + 1  # shifted by one, so that the zeros from outside the patch can be told from background
        shifted = (label.float() + 1)[None, None]
        found = functional.grid_sample(shifted, grid, mode="nearest", align_corners=False)[0, 0].round()
        found = torch.where(found == 0, torch.full_like(found, outside), found) - 1
        return turned, found.to(label.dtype)

    def _affine(self, shape: torch.Size) -> torch.Tensor:
        """(d, d + 1) for `affine_grid`, whose coordinates run -1..1 and list the last axis first."""
        dimension = len(shape)
        rotation = torch.eye(dimension)
        for a in range(dimension):
            for b in range(a + 1, dimension):
                if max(self._spacing[a], self._spacing[b]) < _COARSE * min(self._spacing):
                    rotation = rotation @ self._plane_rotation(dimension, a, b)
        half = torch.tensor([n * mm for n, mm in zip(shape, self._spacing, strict=True)]) / 2
        matrix = rotation / self._between(self._strength.scale)
        matrix = (half[None, :] / half[:, None] * matrix).flip(0, 1)
        return torch.cat([matrix, torch.zeros(dimension, 1)], dim=1)

    def _plane_rotation(self, dimension: int, a: int, b: int) -> torch.Tensor:
        limit = math.radians(self._strength.degrees)
        angle = self._between((-limit, limit))
        turn = torch.eye(dimension)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        return turn

    def _intensity(self, image: torch.Tensor) -> torch.Tensor:
        s = self._strength
        if self._chance(s.coarse):
            image = self._coarsen(image)
        if self._chance(s.noise):
            noise = torch.randn(image.shape, generator=self._generator).to(image)
            image = image + noise * self._between(s.noise_range)
        if self._chance(s.brightness):
            image = image + self._between(s.brightness_range)
        if self._chance(s.contrast):
            mean = image.mean(dim=tuple(range(1, image.dim())), keepdim=True)
            image = (image - mean) * self._between(s.contrast_range) + mean
        if self._chance(s.gamma):
            image = _gamma(image, self._between(s.gamma_range))
        return image

    def _coarsen(self, image: torch.Tensor) -> torch.Tensor:
        share, shape = self._between(self._strength.coarse_range), image.shape[1:]
        small = [max(1, round(n * share)) for n in shape]
        mode = "trilinear" if len(shape) == 3 else "bilinear"
        return functional.interpolate(functional.interpolate(image[None], small, mode="nearest"), shape, mode=mode)[0]

    def _chance(self, share: float) -> bool:
        return float(torch.rand((), generator=self._generator)) < share

    def _between(self, limits: tuple[float, float]) -> float:
        low, high = limits
        return low + (high - low) * float(torch.rand((), generator=self._generator))


def _gamma(image: torch.Tensor, power: float) -> torch.Tensor:
    """A power curve within each channel's own range, its mean and deviation kept."""
    axes = tuple(range(1, image.dim()))
    low, high = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
    curved = ((image - low) / (high - low).clamp(min=1e-6)).pow(power)
    deviation, mean = torch.std_mean(image, axes, keepdim=True)
    curved_deviation, curved_mean = torch.std_mean(curved, axes, keepdim=True)
    return (curved - curved_mean) / curved_deviation.clamp(min=1e-6) * deviation + mean
