"""The running statistics of a network's norms, the same on every rank."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shared.networks.layers import GroupwiseNorm


class NormStatistics:
    """All norms of one network. Their batches' statistics lie in one row of `size` numbers, so
    that they can be averaged over the ranks together with something else."""

    def __init__(self, network: nn.Module) -> None:
        self._norms = [module for module in network.modules() if isinstance(module, GroupwiseNorm)]
        self._sizes = [norm.statistics.numel() for norm in self._norms]
        self.size = sum(self._sizes)

    def add(self, row: Tensor, share: float) -> None:
        """Add the last batch's statistics to row [size]; it is this share of a step."""
        if self._norms:
            row.add_(torch.cat([norm.statistics.flatten() for norm in self._norms]), alpha=share)

    def update(self, row: Tensor) -> None:
        """Move each norm's running statistics towards row [size], averaged over the ranks."""
        for norm, statistics in zip(self._norms, row.split(self._sizes), strict=True):
            norm.update_running(statistics.view(2, -1))
