"""Residual networks without normalisation (R3GAN, Huang 2024, section 4).

Fixup (Zhang 2019) stands in for it: each block begins as the identity.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.networks.conditions import condition_embedding
from shared.networks.discriminators import Discriminator
from shared.networks.generators import Generator, stage_widths
from shared.networks.layers import initialise
from shared.schemas.networks import DiscriminatorConfig, GeneratorConfig

BLOCKS = 2
"""Blocks for each side of the map, as in the paper."""

EXPANSION, GROUP_WIDTH = 2, 16
"""A block works with so many times its channels, in groups of (at most) so many."""


class ResidualBlock(nn.Module):
    """1x1, 3x3 in groups, 1x1, with LeakyReLU between. [N, C, H, W] to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels * EXPANSION
        groups = inner // math.gcd(inner, GROUP_WIDTH)
        self.widen = nn.Conv2d(channels, inner, 1)
        self.mix = nn.Conv2d(inner, inner, 3, padding=1, groups=groups)
        self.narrow = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.widen(x), 0.2)
        h = F.leaky_relu(self.mix(h), 0.2)
        y: Tensor = x + self.narrow(h)
        return y


def stages(channels: list[int]) -> nn.ModuleList:
    """The blocks for each side of the map."""
    return nn.ModuleList(
        nn.Sequential(*(ResidualBlock(width) for _ in range(BLOCKS))) for width in channels
    )


def fix_up(network: nn.Module) -> None:
    """Scale the weights of L blocks of 3 layers by L^(-1/4), and their last ones to 0 (Zhang 2019,
    section 4), so that a step changes what the network does by as much as in one without depth."""
    blocks = [module for module in network.modules() if isinstance(module, ResidualBlock)]
    with torch.no_grad():
        for block in blocks:
            block.widen.weight *= len(blocks) ** -0.25
            block.mix.weight *= len(blocks) ** -0.25
            block.narrow.weight.zero_()


class ResidualGenerator(Generator):
    """Linear to the smallest map, then blocks and bilinear doublings. A condition is embedded
    and concatenated to z. At the end tanh, which the paper does not have: D is shown pixels."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__(config)
        self.base, widths = stage_widths(config.size, config.width, config.max_width)
        channels = [widths[0], *widths]
        self.linear = nn.Linear(config.z_dim + config.condition_dim, channels[0] * self.base**2)
        self.stages = stages(channels)
        self.changes = nn.ModuleList(
            nn.Conv2d(before, after, 1) for before, after in itertools.pairwise(channels)
        )
        self.to_picture = nn.Conv2d(channels[-1], config.channels, 1)
        initialise(self, config.init)
        fix_up(self)
        # As large as z's own entries.
        self.embedding = condition_embedding(config, config.class_dim)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """z [N, z_dim]; c, needed with classes (int64 [N]) or text (float32 [N, text_dim]).
        Returns [N, channels, size, size]."""
        if self.embedding is not None:
            assert c is not None, "this generator needs a condition"
            z = torch.cat([z, self.embedding(c)], dim=1)
        h = self.linear(z).view(z.shape[0], -1, self.base, self.base)
        h = self.stages[0](h.contiguous(memory_format=torch.channels_last))
        for change, stage in zip(self.changes, self.stages[1:], strict=True):
            # The change of channels commutes with the doubling, and costs a quarter before it.
            h = stage(F.interpolate(change(h), scale_factor=2.0, mode="bilinear"))
        return torch.tanh(self.to_picture(h).float())


class ResidualDiscriminator(Discriminator):
    """A mirror of G; from the smallest map each channel is summed up by weights of its own."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__(config)
        base, widths = stage_widths(config.size, config.width, config.max_width)
        channels = [*reversed(widths), widths[0]]
        self.from_picture = nn.Conv2d(config.channels * config.pac, channels[0], 1)
        self.stages = stages(channels)
        self.changes = nn.ModuleList(
            nn.Conv2d(before, after, 1) for before, after in itertools.pairwise(channels)
        )
        self.basis = nn.Conv2d(channels[-1], channels[-1], base, groups=channels[-1])
        self._add_head(channels[-1], len(self.stages))
        self._start()
        fix_up(self)

    def features(self, x: Tensor) -> Tensor:
        h = self._dropped(self.stages[0](self.from_picture(x)), 0)
        for layer, (change, stage) in enumerate(
            zip(self.changes, self.stages[1:], strict=True), start=1
        ):
            # Halving by bilinear interpolation is the mean of four neighbours.
            h = self._dropped(stage(change(F.avg_pool2d(h, 2))), layer)
        features: Tensor = self.basis(h).flatten(1)
        return features
