"""The lecture's remedies against collapse, as the training uses them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from shared.networks.layers import Dropout
from workers.training.counters import Counters, Purpose
from workers.training.ranks import Ranks


def set_variance(images: Tensor, ranks: Ranks) -> Tensor:
    """Average per-pixel variance of one set of images over all ranks, a scalar with gradient.

    The set must be of one kind: over a mixed batch the variance between old and new fakes hides
    that the present generator has collapsed. images [n, C, H, W] in [-1, 1].
    """
    n = images.shape[0] * ranks.size
    mean = ranks.sum(images.sum(0)) / n
    return ranks.sum((images - mean).square().sum(0)).mean() / n


def draw_dropout(
    network: nn.Module, counters: Counters, step: int, *, n: int, parts: Sequence[int]
) -> None:
    """Hand the network the masks of its next pass: for each part of its batch (reals, fakes) this
    rank's share of n masks, from a stream of its own (0 to 3)."""

    def draw(layer: int, p: float, shape: torch.Size) -> Tensor:
        masks = [
            counters.uniform(Purpose.DROPOUT, step, n, *shape[1:], part=layer * 4 + part)
            for part in parts
        ]
        return (torch.cat(masks) >= p) / (1 - p)

    for module in network.modules():
        if isinstance(module, Dropout):
            module.draw = draw
