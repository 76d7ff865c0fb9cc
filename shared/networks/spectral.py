"""Spectral normalisation: layers that stretch no input by more than about 1."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from shared.networks.layers import in_float32


class Spectral(nn.Module):
    """A layer whose weight [out, ...] is divided by its largest singular value (Miyato 2018,
    algorithm 1).

    The value comes from one power iteration for each pass in training, from where the last one
    stopped: the vector `u` [out] is part of the network's state. In eval mode the iteration is made
    from the same `u` each time and not kept, which also serves an averaged `u` of any length. It is
    calculated in float32 always.
    """

    u: Tensor

    def __init__(self, layer: nn.Conv2d | nn.Linear | nn.Embedding) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("u", F.normalize(torch.randn(len(layer.weight)), dim=0))

    def forward(self, x: Tensor) -> Tensor:
        """What the layer makes of x with its normalised weight."""
        y: Tensor = functional_call(self.layer, {"weight": self._weight()}, (x,))
        return y

    def folded(self) -> nn.Module:
        """The layer itself, its weight replaced by the normalised one."""
        self.layer.weight.data = self._weight().detach()
        return self.layer

    def _weight(self) -> Tensor:
        with in_float32(self.u):
            matrix = self.layer.weight.flatten(1)
            with torch.no_grad():
                v = F.normalize(matrix.T @ self.u, dim=0)
                u = F.normalize(matrix @ v, dim=0)
                if self.training:
                    self.u.copy_(u)
            return self.layer.weight / (u @ matrix @ v)


def normalise_spectrally(network: nn.Module) -> None:
    """Make each convolution, linear layer and embedding of a network spectral."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d | nn.Linear | nn.Embedding):
                setattr(parent, name, Spectral(child))


class PowerIterations:
    """Where a network's power iterations stand: `back` takes them to where they were at `mark`, so
    that each micro-batch of a step finds the same weights."""

    def __init__(self, network: nn.Module) -> None:
        self._vectors = [m.u for m in network.modules() if isinstance(m, Spectral)]
        self._marked = [u.clone() for u in self._vectors]

    def mark(self) -> None:
        if self._vectors:
            torch._foreach_copy_(self._marked, self._vectors)

    def back(self) -> None:
        if self._vectors:
            torch._foreach_copy_(self._vectors, self._marked)


def fold_spectral_norms(network: nn.Module) -> None:
    """Undo it, with the weights' present values: for a network in eval mode that only draws."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Spectral):
                setattr(parent, name, child.folded())
