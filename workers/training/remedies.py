"""The lecture's remedies against collapse, as the training uses them."""

from __future__ import annotations

from torch import Tensor

from workers.training.ranks import Ranks


def set_variance(images: Tensor, ranks: Ranks) -> Tensor:
    """Average per-pixel variance of one set of images over all ranks, a scalar with gradient.

    The set must be of one kind: over a mixed batch the variance between old and new fakes hides
    that the present generator has collapsed. images [n, C, H, W] in [-1, 1].
    """
    n = images.shape[0] * ranks.size
    mean = ranks.sum(images.sum(0)) / n
    return ranks.sum((images - mean).square().sum(0)).mean() / n
