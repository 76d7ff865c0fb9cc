"""Adam over one flat gradient: zeroed at once, averaged across ranks by one all-reduce."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shared.schemas.recipes import OptimizerConfig
from workers.training.ranks import Ranks


class FlatAdam:
    """Adam for one network. Each parameter's gradient is a view into one flat buffer, with the
    parameter's own strides (channels last), so that no copy is made before the all-reduce.

    `tail` [tail_size] rides along: whatever lies in it is averaged over the ranks by the same call.
    """

    def __init__(
        self, network: nn.Module, config: OptimizerConfig, ranks: Ranks, *, tail_size: int = 0
    ) -> None:
        self._config = config
        self._ranks = ranks
        self._parameters = list(network.parameters())
        size = sum(p.numel() for p in self._parameters)
        self._gradient = torch.zeros(size + tail_size, device=ranks.device)
        self.tail = self._gradient[size:]
        offset = 0
        for p in self._parameters:
            p.grad = self._gradient[offset : offset + p.numel()].as_strided(p.size(), p.stride())
            offset += p.numel()
        self._adam = torch.optim.Adam(
            self._parameters, lr=config.lr, betas=(config.beta1, config.beta2), fused=True
        )

    def zero_grad(self) -> None:
        self._gradient.zero_()

    def step(self, progress: float) -> None:
        """Average the gradient over the ranks and update. `progress` in [0, 1] of the run sets the
        rate: constant until `decay_from`, then linearly to 0."""
        self._ranks.average_(self._gradient)
        start = self._config.decay_from
        remaining = (1.0 - progress) / (1.0 - start) if progress > start else 1.0
        self._adam.param_groups[0]["lr"] = self._config.lr * remaining
        self._adam.step()

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts, named by the parameter's position."""
        return {
            f"{i}.{name}": value
            for i, p in enumerate(self._parameters)
            for name, value in self._adam.state[p].items()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        for i, p in enumerate(self._parameters):
            self._adam.state[p] = {
                "step": state[f"{i}.step"].to(p.device, copy=True),
                "exp_avg": torch.empty_like(p).copy_(state[f"{i}.exp_avg"]),
                "exp_avg_sq": torch.empty_like(p).copy_(state[f"{i}.exp_avg_sq"]),
            }
