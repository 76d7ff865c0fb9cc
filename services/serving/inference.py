"""Layers of a generator for drawing only: the same function, faster, the same bits in any batch.

For few rows torch takes other kernels, with other roundings; measured on a CPU with AVX-512: linear
layers for fewer than 4 rows, small convolutions for one. Those layers never see so few. All else
(transposed convolutions, norms, tanh; 28 to 128 px) gives the same bits in any batch. But the last
layer of the residual architecture does not from 16 rows on: its batches are cut into smaller ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.networks.layers import BatchNorm
from shared.networks.spectral import fold_spectral_norms

MIN_LINEAR_ROWS = 4
MIN_CONVOLUTION_ROWS = 2
MAX_SUB_PIXEL_CHANNELS = 4


def specialise(network: nn.Module) -> None:
    """Replace the layers of a generator in eval mode; it cannot be trained or saved any more.

    Measured on one thread with AVX-512, pictures of 32 px: 64 take 4.9 to 5.8 ms instead of 6.9, 8
    take 1.0 instead of 1.2, one alone takes 0.6 as before.
    """
    fold_spectral_norms(network)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            match child:
                case nn.Linear():
                    setattr(parent, name, FilledUp(child, MIN_LINEAR_ROWS))
                case nn.Conv2d(kernel_size=(3, 3), groups=1):
                    setattr(parent, name, FilledUp(child, MIN_CONVOLUTION_ROWS))
                case BatchNorm():
                    setattr(parent, name, Folded(child))
                case nn.ConvTranspose2d() if child.out_channels <= MAX_SUB_PIXEL_CHANNELS:
                    setattr(parent, name, FilledUp(SubPixel(child), MIN_CONVOLUTION_ROWS))
                case nn.ConvTranspose2d():
                    # As what it is given: otherwise reordered in each call.
                    weight = child.weight.detach().contiguous(memory_format=torch.channels_last)
                    child.weight = nn.Parameter(weight)


class FilledUp(nn.Module):
    """A layer that never sees fewer than `min_rows` rows."""

    def __init__(self, layer: nn.Module, min_rows: int) -> None:
        super().__init__()
        self.layer = layer
        self.min_rows = min_rows

    def forward(self, x: Tensor) -> Tensor:
        """x [n, ...]."""
        missing = len(x) < self.min_rows
        y: Tensor = self.layer(x.repeat(self.min_rows, *[1] * (x.dim() - 1)) if missing else x)
        return y[: len(x)]


class Folded(nn.Module):
    """A BatchNorm that learns no more: a factor and a shift for each class and channel."""

    def __init__(self, norm: BatchNorm) -> None:
        super().__init__()
        self.num_classes = norm.num_classes
        factor = (1 + norm.scale) * torch.rsqrt(norm.running_var + norm.eps)
        shift = norm.shift - norm.running_mean * factor
        self.table = torch.cat([factor, shift], dim=1).detach()

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """x [n, channels, H, W]; c int64 [n], needed with classes."""
        rows = self.table if c is None or not self.num_classes else F.embedding(c, self.table)
        factor, shift = rows[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(shift, x, factor)


class SubPixel(nn.Module):
    """A transposed convolution (kernel 4, stride 2, padding 1) as a convolution that makes the four
    pixels of each place, and a shuffle (Shi 2016). For few channels out it takes half the time;
    for many it takes more."""

    def __init__(self, up: nn.ConvTranspose2d) -> None:
        super().__init__()
        assert (up.kernel_size, up.stride, up.padding) == ((4, 4), (2, 2), (1, 1))
        assert up.bias is not None
        weight = up.weight.detach()  # [in, out, 4, 4]
        kernel = weight.new_zeros(up.out_channels, 2, 2, up.in_channels, 3, 3)
        # Pixel 2i + a of a row is made of places i + d, by weight a + 1 - 2d.
        taps = [(a, d, a + 1 - 2 * d) for a in (0, 1) for d in (-1, 0, 1) if 0 <= a + 1 - 2 * d < 4]
        for a, dy, y in taps:
            for b, dx, x in taps:
                kernel[:, a, b, :, dy + 1, dx + 1] = weight[:, :, y, x].T
        self.kernel = kernel.flatten(0, 2).contiguous(memory_format=torch.channels_last)
        self.bias = up.bias.detach().repeat_interleave(4)

    def forward(self, x: Tensor) -> Tensor:
        """x [n, in, H, W] to [n, out, 2 H, 2 W]."""
        return F.pixel_shuffle(F.conv2d(x, self.kernel, self.bias, padding=1), 2)
