"""Layers that torch lacks. They know nothing of ranks: a reducer is handed in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GroupwiseNorm(nn.Module):
    """Normalises [N, C, H, W] over groups of `group` neighbours in the batch; scaling and shifting
    is left to those who inherit.

    Each group is normalised by its own mean and variance (ghost batches, Hoffer 2017), so that a
    rank that holds whole groups needs nothing from the others: the result is the same for any
    number of ranks.

    Training leaves the batch's statistics in `statistics` [2, C]; whoever trains averages them over
    the ranks and hands them to `update_running`. In eval mode the running statistics are used.
    Statistics are float32 whatever x is.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, group: int) -> None:
        super().__init__()
        self.group = group
        self.eps = 1e-5
        self.momentum = 0.1
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.statistics = torch.zeros(2, channels)

    def normed(self, x: Tensor) -> Tensor:
        """x [N, C, H, W] with mean 0 and variance 1 in each channel."""
        if self.training:
            return self._normed_by_group(x)
        return F.batch_norm(x, self.running_mean, self.running_var, eps=self.eps)

    def update_running(self, statistics: Tensor) -> None:
        """Move the running mean and variance towards a batch's `statistics` [2, C]."""
        self.running_mean.lerp_(statistics[0], self.momentum)
        self.running_var.lerp_(statistics[1], self.momentum)

    def _normed_by_group(self, x: Tensor) -> Tensor:
        # A weight in float32 keeps the statistics in it, which on a CPU would be as coarse as x.
        one = None if x.dtype == torch.float32 else torch.ones(x.shape[1], device=x.device)
        normed, means, inverse_stds = zip(
            *(
                torch.native_batch_norm(part, one, None, None, None, True, 0.0, self.eps)
                for part in x.split(self.group)
            ),
            strict=True,
        )
        with torch.no_grad():
            variances = torch.stack(inverse_stds).pow(-2) - self.eps
            self.statistics = torch.stack([torch.stack(means).mean(0), variances.mean(0)])
        return normed[0] if len(normed) == 1 else torch.cat(normed)


class BatchNorm(GroupwiseNorm):
    """With a scale and a shift for each channel. With classes they are looked up per class
    (conditional batch norm, de Vries 2017); they start at 1 and 0."""

    def __init__(self, channels: int, group: int, num_classes: int = 0) -> None:
        super().__init__(channels, group)
        self.num_classes = num_classes
        rows = max(num_classes, 1)
        self.scale = nn.Parameter(torch.zeros(rows, channels))
        self.shift = nn.Parameter(torch.zeros(rows, channels))

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """x [N, C, H, W]; c int64 [N], needed with classes."""
        normed = self.normed(x)
        if self.num_classes == 0:
            return normed * _per_channel(1 + self.scale, x) + _per_channel(self.shift, x)
        assert c is not None, "a conditional BatchNorm needs classes"
        scale, shift = F.embedding(c, self.scale), F.embedding(c, self.shift)
        return torch.addcmul(_per_channel(shift, x), normed, _per_channel(1 + scale, x))


def _per_channel(rows: Tensor, x: Tensor) -> Tensor:
    """Numbers [n, C] for the channels of x [N, C, H, W], of x's type: else they would change it."""
    return rows.to(x.dtype)[:, :, None, None]


class UpsamplingConv2d(nn.Conv2d):
    """A 3x3 convolution of what nearest neighbours have doubled (Odena 2016, "Better
    Upsampling"): [N, in, H, W] to [N, out, 2H, 2W].

    It is done as a transposed convolution, whose 4x4 kernel is the 3x3 one summed over the places
    that doubling makes equal: 4 products for each value in place of 9.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        turned = self.weight.flip(2, 3).transpose(0, 1)
        kernel = F.avg_pool2d(turned, 2, stride=1, padding=1, divisor_override=1)  # sums
        return F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)


def packed(x: Tensor, pac: int) -> Tensor:
    """Stack each `pac` neighbours in channels (PacGAN, Lin 2018): [N, C, ...] to
    [N / pac, pac C, ...]."""
    return x if pac == 1 else x.reshape(-1, pac * x.shape[1], *x.shape[2:])


def minibatch_std(h: Tensor, group: int) -> Tensor:
    """Mean standard deviation over each group of `group` neighbours (Karras 2017, section 3).

    Groups are neighbours, not strides, so that a slice of whole groups gives the same numbers on
    any number of ranks. h [N, ...] with N divisible by `group`; returns float32 [N, 1].
    """
    grouped = h.float().reshape(-1, group, h[0].numel())
    std = (grouped.var(dim=1, unbiased=False) + 1e-8).sqrt().mean(dim=1)
    return std.repeat_interleave(group)[:, None]


def in_float32(x: Tensor) -> torch.autocast:
    """A block on x's device that is calculated as it is written, whatever autocast is on around."""
    return torch.autocast(x.device.type, enabled=False)


class Dropout(nn.Module):
    """Dropout whose mask is handed in by `draw`, so that it comes from counters, not from a state.

    `draw(layer, shape)` returns a mask of zeros and 1/(1-p) of that shape. Without it (in serving,
    and in eval mode) the layer does nothing.
    """

    def __init__(self, p: float, layer: int) -> None:
        super().__init__()
        self.p = p
        self.layer = layer
        self.draw: Callable[[int, float, torch.Size], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.draw is None:
            return x
        return x * self.draw(self.layer, self.p, x.shape)


def initialise(network: nn.Module, init: str) -> None:
    """Set weights in place: `orthogonal` (biases 0), `normal` N(0, 0.02) (biases 0), or torch's
    own. Embeddings of a projection start at N(0, 0.02) in all cases."""
    for module in network.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, 0.0, 0.02)
        if init == "default" or not isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            continue
        if init == "orthogonal":
            nn.init.orthogonal_(module.weight)
        else:
            nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
