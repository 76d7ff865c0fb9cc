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

from shared.errors import InvalidInput
from shared.images import Pixels
from shared.networks.generators import Generator
from shared.networks.sampling import to_uint8
from shared.philox import philox

NUM_STARTS = 1024
"""Random z that every picture is held against; classes that are not known share them."""
NUM_RUNS = 8
"""The nearest starts of a picture, which Adam moves side by side."""
MAX_OF_CLASS = 3
"""Of these, while classes are tried. Without this bound the nearest may all be of a wrong class: of
64 own pictures 2 stayed there, with 10 times the error."""
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


def check_projectable(generator: Generator) -> None:
    """Raises InvalidInput for a generator that draws from text: which text is not searched for."""
    if generator.config.text_dim:
        raise InvalidInput(
            "this model draws from text; only models without text can be encoded into"
        )


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
    the generator was trained; the best is the answer. Without `labels` (one per picture) every
    class is tried by starts of its own, and the runs are of several classes.

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
    turns = max(config.num_classes, 1) if labels is None else 1
    num_starts = turns * max(math.ceil(NUM_STARTS / turns), _most_of_class(turns))
    draw = philox((seed, _START_STREAM), (0, 0))
    normal = draw.standard_normal((num_starts, config.z_dim), dtype=np.float32)
    z = torch.from_numpy(normal).to(wanted.device)
    if labels is None:
        c = torch.arange(num_starts, device=wanted.device) % turns
        rows = _nearest(generator, wanted, z, c, turns).flatten()
        return z[rows], c[rows]
    c = torch.tensor(labels, dtype=torch.int64, device=wanted.device)
    rows = torch.empty(len(c), NUM_RUNS, dtype=torch.int64, device=wanted.device)
    for label in c.unique():
        mine = c == label
        rows[mine] = _nearest(generator, wanted[mine], z, label.expand(num_starts), turns)
    return z[rows.flatten()], c.repeat_interleave(NUM_RUNS)


def _most_of_class(turns: int) -> int:
    """How many runs of a picture may be of one class, where so many classes are tried."""
    return max(MAX_OF_CLASS, math.ceil(NUM_RUNS / turns))


@torch.no_grad()
def _nearest(generator: Generator, wanted: Tensor, z: Tensor, c: Tensor, turns: int) -> Tensor:
    """The rows [n, NUM_RUNS] of z whose pictures are nearest to `wanted`, not too many of a class;
    the classes c take turns, so many of them."""
    distances = [
        torch.cdist(wanted, _drawn(generator, *rows))
        for rows in zip(z.split(DRAWN_AT_ONCE), c.split(DRAWN_AT_ONCE), strict=True)
    ]
    by_class = torch.cat(distances, dim=1).view(len(wanted), -1, turns)
    of_class = by_class.topk(_most_of_class(turns), dim=1, largest=False)
    rows = of_class.indices * turns + torch.arange(turns, device=z.device)
    best = of_class.values.flatten(1).topk(NUM_RUNS, largest=False).indices
    return rows.flatten(1).gather(1, best)


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
