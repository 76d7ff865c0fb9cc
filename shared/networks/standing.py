"""Standing statistics: what norms in eval mode take for the batch's (Brock 2018, appendix B)."""

from __future__ import annotations

import torch

from shared.networks.generators import Generator
from shared.networks.layers import GroupwiseNorm
from shared.networks.sampling import latents


@torch.no_grad()
def take_standing_statistics(generator: Generator, *, seed: int, num_batches: int) -> None:
    """Replace the running statistics of a generator in eval mode by those of `num_batches` groups
    of its own: pictures number 0, 1, 2 ... of the seed, whose classes or captions take turns.

    Running statistics of a moving average lag behind its weights; these do not.
    """
    config = generator.config
    device = next(generator.parameters()).device
    norms = [module for module in generator.modules() if isinstance(module, GroupwiseNorm)]
    for norm in norms:
        # Not by train(), which would also set the spectral norms within going.
        norm.training = True
    sums = [torch.zeros_like(norm.statistics, device=device) for norm in norms]
    for batch in range(num_batches):
        indices = range(batch * config.norm_group, (batch + 1) * config.norm_group)
        z = latents(seed, indices, config.z_dim).to(device)
        generator(z, generator.turns(torch.tensor(indices, device=device)))
        for total, norm in zip(sums, norms, strict=True):
            total += norm.statistics
    for total, norm in zip(sums, norms, strict=True):
        norm.running_mean.copy_(total[0] / num_batches)
        norm.running_var.copy_(total[1] / num_batches)
        norm.training = False
