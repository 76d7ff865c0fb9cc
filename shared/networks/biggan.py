"""BigGAN (Brock 2018, section 3 and appendix B)."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.networks.attention import SelfAttention
from shared.networks.conditions import condition_embedding
from shared.networks.discriminators import Discriminator
from shared.networks.generators import Generator, stage_widths
from shared.networks.layers import BatchNorm, GroupwiseNorm, initialise
from shared.networks.spectral import normalise_spectrally
from shared.schemas.networks import DiscriminatorConfig, GeneratorConfig


class ConditionedNorm(GroupwiseNorm):
    """Normalisation whose scale (around 1) and shift are linear in a condition."""

    def __init__(self, channels: int, group: int, condition_dim: int) -> None:
        super().__init__(channels, group)
        self.scale = nn.Linear(condition_dim, channels, bias=False)
        self.shift = nn.Linear(condition_dim, channels, bias=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x [N, C, H, W]; condition [N, condition_dim]."""
        scale, shift = self.scale(condition), self.shift(condition)
        return torch.addcmul(shift[:, :, None, None], self.normed(x), 1 + scale[:, :, None, None])


class UpBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; doubles the side. [N, before, H, W] and a condition
    [N, condition_dim] to [N, after, 2 H, 2 W]."""

    def __init__(self, before: int, after: int, group: int, condition_dim: int) -> None:
        super().__init__()
        self.norm_in = ConditionedNorm(before, group, condition_dim)
        self.conv_in = nn.Conv2d(before, after, 3, padding=1)
        self.norm_out = ConditionedNorm(after, group, condition_dim)
        self.conv_out = nn.Conv2d(after, after, 3, padding=1)
        self.shortcut = nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.conv_in(_doubled(F.relu(self.norm_in(x, condition))))
        h = self.conv_out(F.relu(self.norm_out(h, condition)))
        # A 1x1 convolution commutes with the doubling, and costs a quarter before it.
        y: Tensor = _doubled(self.shortcut(x)) + h
        return y


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class DownBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut. [N, before, H, W] to [N, after, H / shrink,
    W / shrink]. The first block of all takes the picture as it is, not its positive part."""

    def __init__(self, before: int, after: int, *, shrink: int, first: bool) -> None:
        super().__init__()
        self.shrink = shrink
        self.first = first
        self.conv_in = nn.Conv2d(before, after, 3, padding=1)
        self.conv_out = nn.Conv2d(after, after, 3, padding=1)
        self.shortcut = nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x if self.first else F.relu(x))
        h = F.avg_pool2d(self.conv_out(F.relu(h)), self.shrink)
        y: Tensor = self.shortcut(F.avg_pool2d(x, self.shrink)) + h
        return y


def _attention(channels: int, *, wanted: bool) -> nn.Module:
    return SelfAttention(channels) if wanted else nn.Identity()


class BigGANGenerator(Generator):
    """z is cut into chunks: the first makes the smallest map, the others condition one block each,
    together with the class's embedding, which all blocks share."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__(config)
        self.base, widths = stage_widths(config.size, config.width, config.max_width)
        channels = [widths[0], *widths]
        chunk = config.z_dim // len(channels)
        self.chunks = [config.z_dim - chunk * len(widths), *[chunk] * len(widths)]
        condition_dim = chunk + config.condition_dim
        self.linear = nn.Linear(self.chunks[0], channels[0] * self.base**2)
        self.blocks = nn.ModuleList(
            UpBlock(before, after, config.norm_group, condition_dim)
            for before, after in itertools.pairwise(channels)
        )
        self.attentions = nn.ModuleList(
            _attention(width, wanted=self.base * 2**k == config.attention)
            for k, width in enumerate(widths, start=1)
        )
        self.norm = BatchNorm(channels[-1], config.norm_group)
        self.to_picture = nn.Conv2d(channels[-1], config.channels, 3, padding=1)
        initialise(self, config.init)
        normalise_spectrally(self)
        # As large as z's own entries, and not normalised.
        self.embedding = condition_embedding(config, config.class_dim)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """z [N, z_dim]; c, needed with classes (int64 [N]) or text (float32 [N, text_dim]).
        Returns [N, channels, size, size]."""
        first, *chunks = z.split(self.chunks, dim=1)
        if self.embedding is not None:
            assert c is not None, "this generator needs a condition"
            shared = self.embedding(c)
            chunks = [torch.cat([shared, chunk], dim=1) for chunk in chunks]
        h = self.linear(first).view(z.shape[0], -1, self.base, self.base)
        h = h.contiguous(memory_format=torch.channels_last)
        for block, attention, y in zip(self.blocks, self.attentions, chunks, strict=True):
            h = attention(block(h, y))
        return torch.tanh(self.to_picture(F.relu(self.norm(h))).float())


class BigGANDiscriminator(Discriminator):
    """A mirror of G; the positive parts of the smallest map are summed up over its places."""

    projection_scale = 1.0

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__(config)
        _, widths = stage_widths(config.size, config.width, config.max_width)
        outs = [*reversed(widths), widths[0]]
        channels = [config.channels * config.pac, *outs]
        self.blocks = nn.ModuleList(
            DownBlock(before, after, shrink=2 if k < len(widths) else 1, first=k == 0)
            for k, (before, after) in enumerate(itertools.pairwise(channels))
        )
        self.attentions = nn.ModuleList(
            _attention(width, wanted=config.size // 2**k == config.attention)
            for k, width in enumerate(outs, start=1)
        )
        self._add_head(outs[-1], len(outs))
        self._start()

    def features(self, x: Tensor) -> Tensor:
        h = x
        for layer, (block, attention) in enumerate(zip(self.blocks, self.attentions, strict=True)):
            h = self._dropped(attention(block(h)), layer)
        return F.relu(h).sum((2, 3), dtype=torch.float32)
