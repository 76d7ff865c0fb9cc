"""Generators: z (and a class or a text) in, a picture in [-1, 1] out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.networks.layers import BatchNorm, UpsamplingConv2d, initialise
from shared.schemas.networks import GeneratorConfig, base_and_doublings
from shared.text import MAX_EXAMPLES


def stage_widths(size: int, width: int, max_width: int) -> tuple[int, list[int]]:
    """The side of the smallest map and the channels of each stage, from the smallest map up.

    32 px at width 16: (4, [64, 32, 16]); 28 px: (7, [32, 16]).
    Raises ValueError for a side that is not 4 to 7 times a power of two.
    """
    base, doublings = base_and_doublings(size)
    return base, [min(width * 2**k, max_width) for k in reversed(range(doublings))]


class Generator(nn.Module):
    """What every generator is: a module that knows its configuration, and what to draw when it is
    asked for nothing. `examples` [MAX_EXAMPLES, text_dim] are captions as conditions, which whoever
    trains puts there."""

    examples: Tensor

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        if config.text_dim:
            self.register_buffer("examples", torch.zeros(MAX_EXAMPLES, config.text_dim))

    def turns(self, numbers: Tensor) -> Tensor:
        """The conditions of pictures with these numbers (int64 [n]), when the examples or else the
        classes take turns: float32 [n, text_dim] or int64 [n]."""
        if self.config.text_dim:
            return self.examples[numbers % MAX_EXAMPLES]
        return numbers % max(self.config.num_classes, 1)


UPSAMPLINGS: dict[str, Callable[[int, int], nn.Module]] = {
    "transposed": partial(nn.ConvTranspose2d, kernel_size=4, stride=2, padding=1),
    "nearest": UpsamplingConv2d,
}


class DCGANGenerator(Generator):
    """Linear to the smallest map, then convolutions that double the side (Radford 2015); BatchNorm
    and ReLU before each, per class if there are classes."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__(config)
        self.base, widths = stage_widths(config.size, config.width, config.max_width)
        self.linear = nn.Linear(config.z_dim, widths[0] * self.base**2)
        outs = [*widths[1:], config.channels]
        self.norms = nn.ModuleList(
            BatchNorm(width, config.norm_group, config.num_classes) for width in widths
        )
        self.ups = nn.ModuleList(
            UPSAMPLINGS[config.upsampling](width, out)
            for width, out in zip(widths, outs, strict=True)
        )
        initialise(self, config.init)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """z [N, z_dim]; c int64 [N], needed with classes. Returns [N, channels, size, size]."""
        h = self.linear(z).view(z.shape[0], -1, self.base, self.base)
        h = h.contiguous(memory_format=torch.channels_last)
        for norm, up in zip(self.norms, self.ups, strict=True):
            h = up(F.relu(norm(h, c)))
        return torch.tanh(h.float())
