"""The ranks of one training: what they must agree on, sum and gather. Knows torch, not Ray.

One rank needs no process group; then every call is the identity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor


class _Sum(torch.autograd.Function):
    """All-reduce whose backward is an all-reduce: each rank's loss depends on every rank's part."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        del ctx
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        del ctx
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


_sum: Callable[[Tensor], Tensor] = _Sum.apply


def own_device() -> torch.device:
    """The GPU that this process was given, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Ranks:
    """Rank `rank` of `size`, with its device. Each rank holds an equal, contiguous slice."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def slice(self, n: int) -> slice:
        """This rank's part of n things; n is divisible by the number of ranks."""
        share = n // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def put(self, values: np.ndarray) -> Tensor:
        """On this rank's device. A GPU's host goes on without waiting for the copy."""
        tensor = torch.from_numpy(values)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, differentiable: its gradient reaches every rank's images."""
        return tensor if self.size == 1 else _sum(tensor)

    def average_(self, flat: Tensor) -> None:
        """Average a flat buffer in place."""
        if self.size > 1:
            dist.all_reduce(flat)
            flat /= self.size

    def agree(self, value: int) -> int:
        """The first rank's value, on every rank."""
        if self.size == 1:
            return value
        message = torch.tensor([value], dtype=torch.int64, device=self.device)
        dist.broadcast(message, src=0)
        return int(message.item())

    def gather(self, tensor: Tensor) -> Tensor:
        """All ranks' tensors, joined along the first dimension in order of rank."""
        if self.size == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)
