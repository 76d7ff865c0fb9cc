"""Differentiable augmentation of all that D sees, reals and fakes alike.

D cannot learn a small dataset by heart, and G, through whom the gradient flows, is not taught to
draw the changes as long as they leave some pictures as they are (Zhao 2020, Karras 2020).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from shared.schemas.recipes import AugmentConfig
from workers.training.counters import Counters, Purpose

DRAWS = (1, 2, 2, 2, 3, 3)
"""Uniform numbers for each image: flip, brightness, saturation, contrast, shift, cutout; the first
of each says whether it is done."""

NUM_DRAWS = sum(DRAWS)


class Augmentation:
    """What D sees of a run's images. `p` is a tensor [] that may follow D (ADA, Karras 2020)."""

    def __init__(self, config: AugmentConfig, p: Tensor) -> None:
        self._config = config
        self.p = p

    def __call__(
        self, images: Tensor, counters: Counters, step: int, *, n: int, parts: Sequence[int]
    ) -> Tensor:
        """images [len(parts) * n / ranks, C, H, W]: the counters' share of n of each part (reals,
        fakes), which draws from a stream of its own."""
        config = self._config
        if not (config.p or config.target or config.flip):
            return images
        draws = [counters.uniform(Purpose.AUGMENT, step, n, NUM_DRAWS, part=part) for part in parts]
        return augment(images, torch.cat(draws), config, self.p)

    def adapt(self, sureness: Tensor, num_images: int) -> None:
        """Augment more while D is too sure of the reals; `num_images` of them were seen since."""
        config = self._config
        if config.target is not None:
            change = num_images / 1000 / config.adapt_kimg
            self.p += (sureness - config.target).sign() * change
            self.p.clamp_(0.0, 1.0)


def augment(images: Tensor, draws: Tensor, config: AugmentConfig, p: Tensor) -> Tensor:
    """Change each of images [n, C, H, W] in [-1, 1] by its draws [n, NUM_DRAWS] in [0, 1), each way
    with probability p (one number).

    Colours change first and may leave [-1, 1]; what a shift or a cutout uncovers is 0 (mid grey).
    """
    flip, brightness, saturation, contrast, shift, cutout = draws.split(DRAWS, dim=1)
    x = images
    if config.flip:
        x = torch.where(_column(flip[:, 0] < 0.5), x.flip(3), x)
    if config.colour:
        x = x + _strength(brightness, config, p) / 2
        x = x + (x - x.mean(1, keepdim=True)) * _strength(saturation, config, p)
        x = x + (x - x.mean((1, 2, 3), keepdim=True)) * _strength(contrast, config, p) / 2
    if config.shift:
        x = _shifted(x, shift, config, p)
    if config.cutout:
        x = x * _uncut(x, cutout, config, p)
    return x


def _column(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _strength(draws: Tensor, config: AugmentConfig, p: Tensor) -> Tensor:
    """In [-colour, colour], 0 for images that are left alone. [n, 1, 1, 1]."""
    strength = (2 * draws[:, 1] - 1) * config.colour
    return _column(torch.where(draws[:, 0] < p, strength, 0.0))


def _shifted(x: Tensor, draws: Tensor, config: AugmentConfig, p: Tensor) -> Tensor:
    n, _, height, width = x.shape
    chosen = draws[:, :1] < p
    rows, columns = (
        torch.arange(side, device=x.device)
        - torch.where(
            chosen, ((2 * draws[:, i : i + 1] - 1) * (side * config.shift)).round(), 0.0
        ).long()
        for i, side in ((1, height), (2, width))
    )
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
        :, None, :
    ]
    index = torch.arange(n, device=x.device)[:, None, None]
    moved = x.permute(0, 2, 3, 1)[
        index, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]
    ]
    return (moved * inside[..., None]).permute(0, 3, 1, 2)


def _uncut(x: Tensor, draws: Tensor, config: AugmentConfig, p: Tensor) -> Tensor:
    """1 where a picture stays, 0 in its square: [n, 1, H, W]. The square's centre lies anywhere in
    the picture."""
    _, _, height, width = x.shape
    square = [
        (torch.arange(side, device=x.device) - (draws[:, i : i + 1] * side).floor()).abs()
        < config.cutout * side / 2
        for i, side in ((1, height), (2, width))
    ]
    cut = square[0][:, :, None] & square[1][:, None, :] & (draws[:, :1] < p)[:, :, None]
    return 1.0 - cut[:, None].to(x.dtype)
