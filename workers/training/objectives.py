"""What D and G minimise, by name. Logits in, one number out; large logits mean real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Objective:
    """`loss_d(real, fake)` and `loss_g(real, fake, flipped)`: logits [n] of reals and of fakes;
    `flipped` [n] is 1 where remedy 2 gives G the label 0. `sureness(real, fake)`: how sure D is of
    the reals, from -1 to 1; it nears 1 where D knows them by heart."""

    loss_d: Callable[[Tensor, Tensor], Tensor]
    loss_g: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    sureness: Callable[[Tensor, Tensor], Tensor]


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


def _raise_fakes(real: Tensor, fake: Tensor, flipped: Tensor | None) -> Tensor:
    del real, flipped
    return -fake.mean()


def _least_squares_d(real: Tensor, fake: Tensor) -> Tensor:
    return ((real - 1).square().mean() + (fake + 1).square().mean()) / 2


def _least_squares_g(real: Tensor, fake: Tensor, flipped: Tensor | None) -> Tensor:
    del real, flipped
    return (fake - 1).square().mean() / 2


def _wasserstein_d(real: Tensor, fake: Tensor) -> Tensor:
    return fake.mean() - real.mean()


def _relativistic_d(real: Tensor, fake: Tensor) -> Tensor:
    """Pairs of a real and a fake: only their difference counts (Jolicoeur-Martineau 2018)."""
    return F.softplus(fake - real).mean()


def _relativistic_g(real: Tensor, fake: Tensor, flipped: Tensor | None) -> Tensor:
    del flipped
    return F.softplus(real[: len(fake)] - fake).mean()


def _sure_by_sign(real: Tensor, fake: Tensor) -> Tensor:
    """The mean sign of the reals' logits (r_t of Karras 2020)."""
    del fake
    return real.sign().mean()


def _sure_by_pairs(real: Tensor, fake: Tensor) -> Tensor:
    """The same for pairs, where a logit alone means nothing."""
    return (real - fake).sign().mean()


OBJECTIVES: dict[str, Objective] = {
    # Goodfellow 2014
    "non_saturating": Objective(_non_saturating_d, _non_saturating_g, _sure_by_sign),
    # Lim & Ye 2017
    "hinge": Objective(_hinge_d, _raise_fakes, _sure_by_sign),
    # Mao 2017, equation 2 with targets -1 and 1: the sign tells real from fake
    "least_squares": Objective(_least_squares_d, _least_squares_g, _sure_by_sign),
    # Arjovsky 2017; D must be kept Lipschitz by a gradient penalty or spectral norm
    "wasserstein": Objective(_wasserstein_d, _raise_fakes, _sure_by_pairs),
    # with R1 and R2: R3GAN, Huang 2024
    "relativistic": Objective(_relativistic_d, _relativistic_g, _sure_by_pairs),
}
