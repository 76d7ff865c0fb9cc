"""Inception-v3 as the TensorFlow graph of 2015-12-05 has it (Szegedy 2016): the network in whose
features the standard figures are told.

Its weights come from an operator's file; none are shipped. It is not the network of most libraries:
1008 logits, another epsilon in BatchNorm, means that leave the padding out, a max pool in the last
block, and pictures resized without half-pixel centres.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 299
NUM_LOGITS = 1008
EPSILON = 0.001
READ_AT_ONCE = 8
"""Pictures of which one layer's activations take 44 MB; more are not faster on a CPU."""

MEAN = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
MAX = nn.MaxPool2d(3, stride=1, padding=1)
HALVE = nn.MaxPool2d(3, stride=2)


@dataclass(frozen=True)
class Conv:
    """A convolution to so many channels, with BatchNorm and ReLU."""

    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "same"


@dataclass(frozen=True)
class Mixed:
    """Branches side by side, each of convolutions in a row, of which two may stand side by side;
    `branch_pool` begins with the pool."""

    pool: nn.Module
    branches: Mapping[str, Sequence[Conv | tuple[Conv, Conv]]]


K3, K5, ROW3, COLUMN3, ROW7, COLUMN7 = (3, 3), (5, 5), (1, 3), (3, 1), (1, 7), (7, 1)


def _mixed_5(pooled: int) -> Mixed:
    return Mixed(
        MEAN,
        {
            "branch1x1": [Conv(64)],
            "branch5x5": [Conv(48), Conv(64, K5)],
            "branch3x3dbl": [Conv(64), Conv(96, K3), Conv(96, K3)],
            "branch_pool": [Conv(pooled)],
        },
    )


def _mixed_6(width: int) -> Mixed:
    row, column = Conv(width, ROW7), Conv(width, COLUMN7)
    return Mixed(
        MEAN,
        {
            "branch1x1": [Conv(192)],
            "branch7x7": [Conv(width), row, Conv(192, COLUMN7)],
            "branch7x7dbl": [Conv(width), column, row, column, Conv(192, ROW7)],
            "branch_pool": [Conv(192)],
        },
    )


def _mixed_7(pool: nn.Module) -> Mixed:
    fork = (Conv(384, ROW3), Conv(384, COLUMN3))
    return Mixed(
        pool,
        {
            "branch1x1": [Conv(320)],
            "branch3x3": [Conv(384), fork],
            "branch3x3dbl": [Conv(448), Conv(384, K3), fork],
            "branch_pool": [Conv(192)],
        },
    )


def _halving(width: int) -> Conv:
    return Conv(width, K3, 2, "valid")


LAYERS: dict[str, Conv | Mixed | nn.Module] = {
    "Conv2d_1a_3x3": _halving(32),
    "Conv2d_2a_3x3": Conv(32, K3, 1, "valid"),
    "Conv2d_2b_3x3": Conv(64, K3),
    "MaxPool_1": HALVE,
    "Conv2d_3b_1x1": Conv(80),
    "Conv2d_4a_3x3": Conv(192, K3, 1, "valid"),
    "MaxPool_2": HALVE,
    "Mixed_5b": _mixed_5(32),
    "Mixed_5c": _mixed_5(64),
    "Mixed_5d": _mixed_5(64),
    "Mixed_6a": Mixed(
        HALVE,
        {
            "branch3x3": [_halving(384)],
            "branch3x3dbl": [Conv(64), Conv(96, K3), _halving(96)],
            "branch_pool": [],
        },
    ),
    "Mixed_6b": _mixed_6(128),
    "Mixed_6c": _mixed_6(160),
    "Mixed_6d": _mixed_6(160),
    "Mixed_6e": _mixed_6(192),
    "Mixed_7a": Mixed(
        HALVE,
        {
            "branch3x3": [Conv(192), _halving(320)],
            "branch7x7x3": [Conv(192), Conv(192, ROW7), Conv(192, COLUMN7), _halving(192)],
            "branch_pool": [],
        },
    ),
    "Mixed_7b": _mixed_7(MEAN),
    "Mixed_7c": _mixed_7(MAX),
}
"""In order. The names of layers and branches are those of the weights' tensors."""


@dataclass(frozen=True)
class InceptionRead:
    """What Inception sees in a set: features float [n, 2048], after the last pool, and logits float
    [n, 1008], without their bias."""

    features: Tensor
    logits: Tensor


class Inception(nn.Module):
    """Pictures float [n, 3, 299, 299] in [-1, 1) to features [n, 2048]."""

    def __init__(self) -> None:
        super().__init__()
        channels = 3
        for name, layer in LAYERS.items():
            module, channels = _module(layer, channels)
            self.add_module(name, module)
        self.fc = nn.Linear(channels, NUM_LOGITS)

    def forward(self, x: Tensor) -> Tensor:
        for name in LAYERS:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3))

    @torch.inference_mode()
    def read(self, images: Tensor, on_batch: Callable[[], None]) -> InceptionRead:
        """Read uint8 images [n, C, H, W]; a grey one stands in all three channels. `on_batch` is
        called before each `READ_AT_ONCE` of them, and may raise to stop."""
        features = []
        for part in images.split(READ_AT_ONCE):
            on_batch()
            pictures = tensorflow_resized(part.expand(-1, 3, -1, -1).float(), SIDE)
            features.append(self((pictures - 128) / 128))
        of_all = torch.cat(features)
        return InceptionRead(of_all, of_all @ self.fc.weight.T)


def tensorflow_resized(images: Tensor, side: int) -> Tensor:
    """Pictures float [n, C, H, W] to [n, C, side, side], bilinear as in TensorFlow 1: row i is read
    at i * H / side, and nothing is smoothed where pictures shrink."""
    for dim in (3, 2):
        length = images.shape[dim]
        place = torch.arange(side, dtype=images.dtype) * (length / side)
        low = place.long()
        share = (place - low).view(-1, *[1] * (3 - dim))
        before = images.index_select(dim, low)
        after = images.index_select(dim, (low + 1).clamp_max(length - 1))
        images = before + (after - before) * share
    return images


class _Convolution(nn.Module):
    def __init__(self, channels: int, of: Conv) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, of.width, of.kernel, of.stride, of.padding, bias=False)
        self.bn = nn.BatchNorm2d(of.width, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class _Mixture(nn.Module):
    width: int

    def __init__(self, channels: int, of: Mixed) -> None:
        super().__init__()
        self.width = 0
        self._branches: list[list[list[nn.Module]]] = []
        for branch, steps in of.branches.items():
            made: list[list[nn.Module]] = [[of.pool]] if branch == "branch_pool" else []
            width = channels
            for number, step in enumerate(steps, 1):
                convs = {"": step} if isinstance(step, Conv) else dict(zip("ab", step, strict=True))
                made.append([])
                for letter, conv in convs.items():
                    made[-1].append(_Convolution(width, conv))
                    name = f"{branch}_{number}{letter}" if len(steps) > 1 else branch
                    self.add_module(name, made[-1][-1])
                width = sum(conv.width for conv in convs.values())
            self._branches.append(made)
            self.width += width

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for steps in self._branches:
            y = x
            for side_by_side in steps:
                y = torch.cat([module(y) for module in side_by_side], 1)
            outputs.append(y)
        return torch.cat(outputs, 1)


def _module(layer: Conv | Mixed | nn.Module, channels: int) -> tuple[nn.Module, int]:
    """What a line of the table stands for, behind so many channels, and how many it has itself."""
    if isinstance(layer, Conv):
        return _Convolution(channels, layer), layer.width
    if isinstance(layer, Mixed):
        mixture = _Mixture(channels, layer)
        return mixture, mixture.width
    return layer, channels
