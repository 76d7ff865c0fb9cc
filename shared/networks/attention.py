"""Self-attention between the places of a map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    """Each place takes from the places that it attends to (Zhang 2018, section 3): x + gamma o,
    where gamma starts at 0. As in BigGAN the others are 2x2 maxima.

    [N, C, H, W] to the same, for even H and W.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 8, 1)
        self.query = nn.Conv2d(channels, inner, 1)
        self.key = nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, channels // 2, 1)
        self.out = nn.Conv2d(channels // 2, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2)  # [N, C/8, places]
        key = F.max_pool2d(self.key(x), 2).flatten(2)  # [N, C/8, places/4]
        value = F.max_pool2d(self.value(x), 2).flatten(2)  # [N, C/2, places/4]
        weights = (query.transpose(1, 2) @ key).softmax(-1)  # [N, places, places/4]
        taken = (value @ weights.transpose(1, 2)).view(len(x), -1, *x.shape[2:])
        y: Tensor = x + self.gamma * self.out(taken)
        return y
