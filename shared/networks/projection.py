"""From a picture back to a z that draws it, by optimisation (Zhu 2016, section 3.1; Karras 2020,
appendix D).

Knows no HTTP and no datasets. What is random comes from counters: the same arguments give the same
bits on the same kind of machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from shared.images import Pixels
from shared.networks.generators import Generator
from shared.networks.sampling import to_uint8
from shared.philox import philox

NUM_STARTS = 1024
"""Random z that every picture is held against; classes that are not known share them."""
NUM_RUNS = 8
"""The nearest starts of a picture, which Adam moves side by side."""
STEPS = 200
LR = 1.0
"""Adam's rate at first; it falls to 0 by half a cosine. Own pictures, 32 px: at 0.15 the error is
1.2 to 2.6 times that at 1, at 2 it is 0.8 to 1.3 times."""
BETAS = (0.9, 0.99)
PRIOR = 0.01
"""Weight of the prior beside the error. Without it steps as large as these carry z away: |z| to 3
to 5 times its length, the error to 12 times."""
MIN_SIDE = 4
DRAWN_AT_ONCE = 256

_START_STREAM = 0x50


@dataclass(frozen=True, slots=True)
class Projection:
    """What was found for n pictures."""

    z: Tensor
    """float32 [n, z_dim]"""
    labels: Tensor | None
    """int64 [n]; None from a generator without classes."""
    errors: Tensor
    """float32 [n], in [0, 1]: the mean squared error of `pictures` where white counts as 1."""
    pictures: Pixels
    """uint8 [n, H, W, C]: what the generator draws of z and labels."""


def project(
    generator: Generator,
    targets: Tensor,
    *,
    seed: int,
    labels: Sequence[int] | None = None,
    steps: int = STEPS,
    on_step: Callable[[], None] = lambda: None,
) -> Projection:
    """The z (and classes) whose pictures come nearest to `targets`, uint8 [n, C, H, W].

    Of NUM_STARTS random z the nearest NUM_RUNS of each picture are moved by Adam to less squared
    error at the full and each halved resolution, while a prior keeps |z| near sqrt(z_dim), where
    the generator was trained; the best is the answer. Without `labels` (one per picture) the starts
    take every class in turn.

    Measured on one thread of a shared machine, `modern` and `modern-conditional` at 32 px: one
    picture in 0.5 to 1.3 s, further ones in 0.2 to 0.5 s each. `on_step` is called before each
    step; what it raises ends the work.

    Raises ValueError: the targets have another form than the generator's pictures.
    """
    config = generator.config
    if targets.shape[1:] != (config.channels, config.size, config.size):
        raise ValueError(f"targets are {list(targets.shape)}, not of {config.size} px")
    wanted = _pyramid(targets.float() / 255)
    z, c = _starts(generator, wanted, seed, labels)
    z = _optimised(generator, wanted.repeat_interleave(NUM_RUNS, dim=0), z, c, steps, on_step)

    # Keep the best run of each picture.
    with torch.no_grad():
        pictures = to_uint8(generator(z, c))
    drawn = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(targets.device)
    there = targets.repeat_interleave(NUM_RUNS, dim=0)
    errors = ((drawn.float() - there) / 255).square().mean(dim=(1, 2, 3))
    first = torch.arange(0, len(z), NUM_RUNS, device=targets.device)
    best = errors.view(-1, NUM_RUNS).argmin(dim=1) + first
    return Projection(
        z=z[best],
        labels=c[best] if config.num_classes else None,
        errors=errors[best],
        pictures=pictures[best.cpu().numpy()],
    )


def _starts(
    generator: Generator, wanted: Tensor, seed: int, labels: Sequence[int] | None
) -> tuple[Tensor, Tensor]:
    """The NUM_RUNS nearest starts of each of n pictures, as z [n * NUM_RUNS, z_dim], and their
    classes (0 without classes)."""
    config = generator.config
    draw = philox((seed, _START_STREAM), (0, 0))
    num_starts = max(NUM_STARTS, config.num_classes)
    normal = draw.standard_normal((num_starts, config.z_dim), dtype=np.float32)
    z = torch.from_numpy(normal).to(wanted.device)
    if labels is None:
        turns = torch.arange(num_starts, device=wanted.device) % max(config.num_classes, 1)
        rows = _nearest(generator, wanted, z, turns).flatten()
        return z[rows], turns[rows]
    c = torch.tensor(labels, dtype=torch.int64, device=wanted.device)
    rows = torch.empty(len(c), NUM_RUNS, dtype=torch.int64, device=wanted.device)
    for label in c.unique():
        mine = c == label
        rows[mine] = _nearest(generator, wanted[mine], z, label.expand(num_starts))
    return z[rows.flatten()], c.repeat_interleave(NUM_RUNS)


@torch.no_grad()
def _nearest(generator: Generator, wanted: Tensor, z: Tensor, c: Tensor) -> Tensor:
    """The rows [n, NUM_RUNS] of z, of classes c, whose pictures are nearest to `wanted`."""
    distances = [
        torch.cdist(wanted, _drawn(generator, *rows))
        for rows in zip(z.split(DRAWN_AT_ONCE), c.split(DRAWN_AT_ONCE), strict=True)
    ]
    return torch.cat(distances, dim=1).topk(NUM_RUNS, largest=False).indices


def _optimised(
    generator: Generator,
    wanted: Tensor,
    z: Tensor,
    c: Tensor,
    steps: int,
    on_step: Callable[[], None],
) -> Tensor:
    """z [m, z_dim] after so many steps of Adam towards `wanted` [m, ...], a row each."""
    z = z.clone().requires_grad_()
    adam = torch.optim.Adam([z], betas=BETAS)
    for step in range(steps):
        on_step()
        adam.param_groups[0]["lr"] = LR * (1 + math.cos(math.pi * step / steps)) / 2
        errors = (_drawn(generator, z, c) - wanted).square().sum(dim=1)
        priors = (z.square().mean(dim=1) - 1).square()
        (z.grad,) = torch.autograd.grad((errors + PRIOR * priors).sum(), z)
        adam.step()
    return z.detach()


def _drawn(generator: Generator, z: Tensor, c: Tensor) -> Tensor:
    images: Tensor = generator(z, c)
    return _pyramid(images / 2 + 0.5)


def _pyramid(images: Tensor) -> Tensor:
    """Images [n, C, H, W] at their own and every halved side down to MIN_SIDE, as one row each.

    The squared distance of two rows is the mean over the sides of the mean squared errors.
    """
    levels = [images]
    while levels[-1].shape[-1] % 2 == 0 and levels[-1].shape[-1] > MIN_SIDE:
        levels.append(F.avg_pool2d(levels[-1], 2))
    scaled = [level.flatten(1) / math.sqrt(level[0].numel() * len(levels)) for level in levels]
    return torch.cat(scaled, dim=1)
