"""DF-GAN (Tao 2020): a picture of a sentence by one G and one D, without stages."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.networks.conditions import condition_embedding
from shared.networks.discriminators import Discriminator
from shared.networks.generators import Generator, stage_widths
from shared.networks.layers import initialise
from shared.schemas.networks import DiscriminatorConfig, GeneratorConfig


class FusionBlock(nn.Module):
    """Two affine modulations, each a scale and a shift of every channel that a condition says, with
    LeakyReLU after each (DFBlock, section 3.4). The paper's have a hidden layer; these are linear.
    They begin as the identity."""

    def __init__(self, channels: int, condition_dim: int) -> None:
        super().__init__()
        self.affines = nn.ModuleList(nn.Linear(condition_dim, 2 * channels) for _ in range(2))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x [N, channels, H, W]; condition [N, condition_dim]."""
        for affine in self.affines:
            scale, shift = affine(condition)[:, :, None, None].chunk(2, dim=1)
            x = F.leaky_relu(torch.addcmul(shift, x, 1 + scale), 0.2)
        return x


class UpBlock(nn.Module):
    """Fusion and a 3x3 convolution, twice, beside a shortcut, after doubling the side.
    [N, before, H, W] and a condition [N, condition_dim] to [N, after, 2 H, 2 W]."""

    def __init__(self, before: int, after: int, condition_dim: int) -> None:
        super().__init__()
        self.fuse_in = FusionBlock(before, condition_dim)
        self.conv_in = nn.Conv2d(before, after, 3, padding=1)
        self.fuse_out = FusionBlock(after, condition_dim)
        self.conv_out = nn.Conv2d(after, after, 3, padding=1)
        self.shortcut = nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        # Fusion and a 1x1 convolution commute with the doubling, and cost a quarter before it.
        h = self.conv_in(_doubled(self.fuse_in(x, condition)))
        y: Tensor = _doubled(self.shortcut(x)) + self.conv_out(self.fuse_out(h, condition))
        return y


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class DFGANGenerator(Generator):
    """z makes the smallest map; z and the embedded condition modulate every block."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__(config)
        self.base, widths = stage_widths(config.size, config.width, config.max_width)
        channels = [widths[0], *widths]
        condition_dim = config.z_dim + config.condition_dim
        self.linear = nn.Linear(config.z_dim, channels[0] * self.base**2)
        self.blocks = nn.ModuleList(
            UpBlock(before, after, condition_dim) for before, after in itertools.pairwise(channels)
        )
        self.to_picture = nn.Conv2d(channels[-1], config.channels, 3, padding=1)
        initialise(self, config.init)
        for module in self.modules():
            if isinstance(module, FusionBlock):
                for parameter in module.parameters():
                    nn.init.zeros_(parameter)
        # Its numbers shall be as large as z's own.
        self.embedding = condition_embedding(config, config.class_dim)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """z [N, z_dim]; c, needed with classes (int64 [N]) or text (float32 [N, text_dim]).
        Returns [N, channels, size, size]."""
        condition = z
        if self.embedding is not None:
            assert c is not None, "this generator needs a condition"
            condition = torch.cat([z, self.embedding(c)], dim=1)
        h = self.linear(z).view(z.shape[0], -1, self.base, self.base)
        h = h.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            h = block(h, condition)
        return torch.tanh(self.to_picture(F.leaky_relu(h, 0.2)).float())


class DownBlock(nn.Module):
    """A 4x4 and a 3x3 convolution beside a shortcut; halves the side. [N, before, H, W] to
    [N, after, H / 2, W / 2]. It begins as its shortcut alone."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.halve = nn.Conv2d(before, after, 4, stride=2, padding=1)
        self.conv = nn.Conv2d(after, after, 3, padding=1)
        self.shortcut = nn.Conv2d(before, after, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.conv(F.leaky_relu(self.halve(x), 0.2)), 0.2)
        y: Tensor = torch.addcmul(self.shortcut(F.avg_pool2d(x, 2)), self.gamma.to(h.dtype), h)
        return y


class DFGANDiscriminator(Discriminator):
    """A mirror of G with one output (section 3.3): what fits no caption is no better than what is
    no picture. Here picture and sentence meet in the projection that every D has."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__(config)
        base, widths = stage_widths(config.size, config.width, config.max_width)
        channels = [*reversed(widths), widths[0]]
        self.from_picture = nn.Conv2d(config.channels * config.pac, channels[0], 3, padding=1)
        self.blocks = nn.ModuleList(
            DownBlock(before, after) for before, after in itertools.pairwise(channels)
        )
        self._add_head(channels[-1] * base**2, len(self.blocks))
        self._start()

    def features(self, x: Tensor) -> Tensor:
        h = self.from_picture(x)
        for layer, block in enumerate(self.blocks):
            h = self._dropped(block(h), layer)
        return F.leaky_relu(h, 0.2).flatten(1)
