"""What D and G minimise, by name. Logits in, one number out; large logits mean real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Objective:
    """`loss_d(real, fake)` and `loss_g(real, fake, flipped)`: logits [n] of reals and of fakes;
    `flipped` [n] is 1 where remedy 2 gives G the label 0."""

    loss_d: Callable[[Tensor, Tensor], Tensor]
    loss_g: Callable[[Tensor, Tensor, Tensor | None], Tensor]


def _non_saturating_d(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def _non_saturating_g(real: Tensor, fake: Tensor, flipped: Tensor | None) -> Tensor:
    """Binary cross-entropy of the fakes against label 1, or 0 where flipped. In expectation over
    flips with probability p, the gradient of a logit l is sigmoid(l) - (1 - p)."""
    del real
    if flipped is None:
        return F.softplus(-fake).mean()
    return F.binary_cross_entropy_with_logits(fake, 1.0 - flipped)


def _hinge_d(real: Tensor, fake: Tensor) -> Tensor:
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def _hinge_g(real: Tensor, fake: Tensor, flipped: Tensor | None) -> Tensor:
    del real, flipped
    return -fake.mean()


def _relativistic_d(real: Tensor, fake: Tensor) -> Tensor:
    """Pairs of a real and a fake: only their difference counts (Jolicoeur-Martineau 2018)."""
    return F.softplus(fake - real).mean()


def _relativistic_g(real: Tensor, fake: Tensor, flipped: Tensor | None) -> Tensor:
    del flipped
    return F.softplus(real[: len(fake)] - fake).mean()


OBJECTIVES: dict[str, Objective] = {
    "non_saturating": Objective(_non_saturating_d, _non_saturating_g),  # Goodfellow 2014
    "hinge": Objective(_hinge_d, _hinge_g),  # Lim & Ye 2017
    "relativistic": Objective(_relativistic_d, _relativistic_g),  # with R1 and R2: R3GAN
}


def gradient_penalty(logits: Tensor, images: Tensor, gamma: Tensor) -> Tensor:
    """Half the squared gradient of each logit by its image, weighted and averaged
    (Mescheder 2018): mean over i of gamma_i / 2 * |d logits / d images_i|^2.

    logits [n] computed from images [n, C, H, W] with gradient; gamma [n].
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return (gamma * gradient.square().sum((1, 2, 3))).mean() / 2
