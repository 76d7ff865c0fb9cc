"""The moving average of a network: G_ema is what is sampled and published."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class Ema(Generic[Network]):
    """Weights and running statistics of `network`, averaged with a half-life in images.

    The average starts short, min(beta, (1 + step) / (10 + step)), so that the first weights are
    soon forgotten.
    """

    def __init__(self, network: Network, half_life_kimg: float, batch: int) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._beta = 0.5 ** (batch / (half_life_kimg * 1000)) if half_life_kimg else 0.0
        self._averaged = _tensors(self.network)
        self._sources = _tensors(network)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the network after its step number `step` (from 0)."""
        beta = min(self._beta, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averaged, self._sources, 1.0 - beta)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in network.state_dict().values()]
