"""Spectral normalisation: layers that stretch no input by more than about 1."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize


class SpectralNorm(nn.Module):
    """A weight [out, ...] divided by its largest singular value (Miyato 2018, algorithm 1).

    The value comes from one power iteration for each pass in training, from where the last one
    stopped: the vector `u` [out] is part of the network's state. In eval mode the iteration is made
    from the same `u` each time and not kept, which also serves an averaged `u` of any length.
    """

    u: Tensor

    def __init__(self, out: int) -> None:
        super().__init__()
        self.register_buffer("u", F.normalize(torch.randn(out), dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        matrix = weight.flatten(1)
        with torch.no_grad():
            v = F.normalize(matrix.T @ self.u, dim=0)
            u = F.normalize(matrix @ v, dim=0)
            if self.training:
                self.u.copy_(u)
        return weight / (u @ matrix @ v)


def normalise_spectrally(network: nn.Module) -> None:
    """Give each convolution, linear layer and embedding of a network a spectral norm."""
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            parametrize.register_parametrization(module, "weight", SpectralNorm(len(module.weight)))


def fold_spectral_norms(network: nn.Module) -> None:
    """Replace normalised weights by their values: for a network in eval mode that only draws."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight")
