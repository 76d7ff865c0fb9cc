"""How far one set of pictures is from another, in the features of some network.

All take features float [n, d] of two sets. None of the numbers is an "FID": that name belongs to
one network's features and 50,000 pictures. Say n and the network with every number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 1024
"""Rows of a distance matrix that are held at once: 40 MB for 10,000 columns."""


@dataclass(frozen=True)
class Moments:
    """Mean [d] and covariance [d, d] of a set, float64."""

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, features: Tensor, total: Callable[[Tensor], Tensor] = lambda sums: sums) -> Moments:
        """Of features [n, d]; of a set of which they are a part, where `total` adds up the sums of
        all parts."""
        x = features.double()
        sums = total(torch.cat([x.new_full((1,), len(x)), x.sum(0), (x.T @ x).flatten()]))
        n, d = sums[0], x.shape[1]
        mean = sums[1 : d + 1] / n
        squares = sums[d + 1 :].view(d, d)
        return cls(mean, (squares - n * torch.outer(mean, mean)) / (n - 1))


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """`frechet_of` the moments of two sets of features. n pictures of one distribution are about
    d^2 / n apart."""
    return frechet_of(Moments.of(real), Moments.of(fake))


def frechet_of(real: Moments, fake: Moments) -> float:
    """Squared Frechet distance of the Gaussians with these moments (Heusel 2017, section 2)."""
    values, vectors = torch.linalg.eigh(real.covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ fake.covariance @ root).clamp(min=0).sqrt().sum()
    apart = (real.mean - fake.mean).square().sum()
    distance = apart + real.covariance.trace() + fake.covariance.trace() - 2 * cross
    return max(float(distance), 0.0)


def kernel_distance(real: Tensor, fake: Tensor) -> float:
    """Squared maximum mean discrepancy with the kernel (x y / d + 1)^3, over all pairs and without
    bias (Binkowski 2018, section 4): equal distributions may give a little less than 0."""
    n, m = len(real), len(fake)
    within_r = (_kernel_sum(real, real) - _kernel_trace(real)) / (n * (n - 1))
    within_f = (_kernel_sum(fake, fake) - _kernel_trace(fake)) / (m * (m - 1))
    return within_r + within_f - 2 * _kernel_sum(real, fake) / (n * m)


@dataclass(frozen=True)
class Manifolds:
    """Shares in [0, 1]; density is about 1 for equal sets.

    Of precision and density alone nothing follows: pure noise can score both near 1.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifolds(real: Tensor, fake: Tensor, *, k: int = 5) -> Manifolds:
    """Precision and recall (Kynkaanniemi 2019, section 3), density and coverage (Naeem 2020,
    section 3): a set is taken for the balls around its members that reach to the k-th neighbour."""
    radii_r, radii_f = _radii(real, k), _radii(fake, k)
    times_inside = torch.zeros(len(fake))
    covered, recalled = [], []
    for rows, radii in zip(real.split(CHUNK), radii_r.split(CHUNK), strict=True):
        distances = torch.cdist(rows, fake)
        inside = distances < radii[:, None]
        times_inside += inside.sum(0)
        covered.append(inside.any(1))
        recalled.append((distances < radii_f).any(1))
    return Manifolds(
        precision=(times_inside > 0).float().mean().item(),
        recall=torch.cat(recalled).float().mean().item(),
        density=(times_inside / k).mean().item(),
        coverage=torch.cat(covered).float().mean().item(),
    )


def nearest_distances(of: Tensor, among: Tensor) -> Tensor:
    """The distance of each row of `of` [n, d] to the nearest row of `among` [m, d]: float [n]."""
    return torch.cat([torch.cdist(rows, among).amin(1) for rows in of.split(CHUNK)])


def _kernel_sum(x: Tensor, y: Tensor) -> float:
    others = y.double().T / x.shape[1]
    return sum(float((rows.double() @ others + 1).pow(3).sum()) for rows in x.split(CHUNK))


def _kernel_trace(x: Tensor) -> float:
    return float((x.double().square().sum(1) / x.shape[1] + 1).pow(3).sum())


def _radii(x: Tensor, k: int) -> Tensor:
    """The distance of each row to its k-th nearest other row."""
    return torch.cat([torch.cdist(rows, x).kthvalue(k + 1).values for rows in x.split(CHUNK)])
