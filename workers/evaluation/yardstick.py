"""The yardstick: a small classifier, trained by us on a dataset, in whose features sets of pictures
are compared.

Convolutions down to a map of 3 to 4 pixels a side and a hidden layer of 64, whose activations are
the features. They are divided by one number, so that a distance does not depend on the network's
own scale. A dataset without classes gives quarter turns for classes (Gidaris 2018).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.networks.catalog import channels_last
from workers.training.counters import Counters, Purpose
from workers.training.data import Sampler, TrainingData
from workers.training.ranks import Ranks

VERSION = 1
"""Of everything here that decides the weights; part of a stored yardstick's key."""
EPOCHS, MIN_STEPS, BATCH = 4, 1000, 128
PEAK_LR, WEIGHT_DECAY, WARM_UP = 4e-3, 0.05, 0.2
DROPOUT = 0.2
WIDTH, MAX_WIDTH, NUM_FEATURES = 16, 64, 64
SCALE_IMAGES = 10_000
READ_AT_ONCE = 500
NUM_TURNS = 4


class Yardstick(nn.Module):
    """Images [n, C, H, W] in [-1, 1] to logits [n, num_classes]."""

    num_classes: int
    scale: Tensor

    def __init__(self, *, size: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        halvings = math.ceil(math.log2(size / 4))
        widths = [min(WIDTH * 2**k, MAX_WIDTH) for k in range(halvings)]
        self.blocks = nn.Sequential(
            *(_block(before, after) for before, after in itertools.pairwise((channels, *widths)))
        )
        self.hidden = nn.Linear(widths[-1] * (size // 2**halvings) ** 2, NUM_FEATURES)
        self.logits = nn.Linear(NUM_FEATURES, num_classes)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        """`kept` [n, 64]: dropout's mask, of zeros and 1 / (1 - p)."""
        return self._classified(self._activations(x) * kept)

    @torch.inference_mode()
    def read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features float [n, 64] and votes int64 [n] of uint8 images [n, C, H, W]."""
        activations = [self._activations(_to_float(part)) for part in images.split(READ_AT_ONCE)]
        features = torch.cat(activations)
        return features / self.scale, self._classified(features).argmax(1)

    def _activations(self, x: Tensor) -> Tensor:
        return F.relu(self.hidden(self.blocks(x).flatten(1)))

    def _classified(self, activations: Tensor) -> Tensor:
        logits: Tensor = self.logits(activations)
        return logits


def build_yardstick(*, size: int, channels: int, num_classes: int) -> Yardstick:
    """A fresh yardstick of a dataset of this form, channels last; 0 classes: of quarter turns."""
    return channels_last(
        Yardstick(size=size, channels=channels, num_classes=num_classes or NUM_TURNS)
    )


def num_steps(num_images: int) -> int:
    """Steps of a training on so many images: of a small dataset more epochs."""
    return max(MIN_STEPS, EPOCHS * num_images // BATCH)


def train_yardstick(
    data: TrainingData, num_classes: int, *, seed: int, on_step: Callable[[], None]
) -> Yardstick:
    """Train on all images; the same arguments give the same bits. `on_step` may raise to stop.

    AdamW with one cycle of the rate (Smith 2018), a mirrored batch in two. Without classes
    (`num_classes` 0) it learns to tell quarter turns.
    """
    torch.manual_seed(seed)
    _, channels, size, _ = data.images.shape
    network = build_yardstick(size=size, channels=channels, num_classes=num_classes)
    steps = num_steps(len(data.images))
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=PEAK_LR, weight_decay=WEIGHT_DECAY, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=PEAK_LR, total_steps=steps, pct_start=WARM_UP
    )
    sampler, counters = Sampler(len(data.images), seed), Counters(seed, Ranks())
    for step in range(steps):
        on_step()
        rows = torch.from_numpy(sampler.indices(step, BATCH))
        images = data.images[rows]
        if counters.uniform(Purpose.YARDSTICK_FLIPS, step, 1) < 0.5:
            images = images.flip(3)
        if num_classes:
            assert data.labels is not None
            labels = data.labels[rows]
        else:
            labels = counters.integers(Purpose.YARDSTICK_TURNS, step, NUM_TURNS, BATCH)
            images = turned(images, labels)
        drawn = counters.uniform(Purpose.YARDSTICK_DROPOUT, step, BATCH, NUM_FEATURES)
        kept = (drawn >= DROPOUT) / (1 - DROPOUT)
        loss = F.cross_entropy(network(_to_float(images), kept), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval().requires_grad_(False)
    features, _ = network.read(data.images[:SCALE_IMAGES])
    network.scale.copy_(features.var(0).mean().sqrt())
    return network


def accuracy(network: Yardstick, data: TrainingData) -> float:
    """The share of its votes that are right; without classes, of picture i by i quarter turns."""
    images, labels = data.images, data.labels
    if labels is None:
        labels = torch.arange(len(images)) % NUM_TURNS
        images = turned(images, labels)
    _, votes = network.read(images)
    return (votes == labels).float().mean().item()


def turned(images: Tensor, turns: Tensor) -> Tensor:
    """Each of images [n, C, H, W] by so many quarter turns: int64 [n] in 0 .. 3."""
    out = images.clone()
    for k in range(1, NUM_TURNS):
        out[turns == k] = images[turns == k].rot90(k, (2, 3))
    return out


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )


def _to_float(images: Tensor) -> Tensor:
    return images.to(memory_format=torch.channels_last).float().div_(127.5).sub_(1.0)
