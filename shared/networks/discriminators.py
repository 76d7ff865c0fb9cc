"""Discriminators: a picture in, one logit out; large means real."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.networks.conditions import condition_embedding
from shared.networks.generators import stage_widths
from shared.networks.layers import (
    BatchNorm,
    Dropout,
    in_float32,
    initialise,
    minibatch_std,
    packed,
)
from shared.networks.spectral import normalise_spectrally
from shared.schemas.networks import DiscriminatorConfig


class Discriminator(nn.Module, ABC):
    """What every discriminator does before its layers and after them.

    Those who inherit make their layers, then call `_add_head` and `_start`; `features` is theirs.
    """

    projection_scale: float | None = None
    """Of the class's part of the logit; None: one over the root of the number of features."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """x [n, pac C, H, W] in [-1, 1]; returns [n, features]."""

    def forward(self, x: Tensor, c: Tensor | None = None, variance: Tensor | None = None) -> Tensor:
        """`judge` of what `read` makes of the pictures: logits [N / pac]."""
        return self.judge(self.read(x, variance), c)

    def read(self, x: Tensor, variance: Tensor | None = None) -> Tensor:
        """x [N, C, H, W] in [-1, 1]; variance [N], needed with `variance_input`: the average
        per-pixel variance of the set that each image belongs to. Returns [N / pac, numbers]: all
        that D knows of a picture before it is told its condition."""
        h = self.features(packed(x, self.config.pac)).float()
        if self.config.minibatch_std_group:
            h = torch.cat([h, minibatch_std(h, self.config.minibatch_std_group)], dim=1)
        if self.config.variance_input:
            assert variance is not None, "variance_input needs the variance of each image's set"
            h = torch.cat([h, variance.view(len(h), -1).to(h.dtype)], dim=1)
        if self.hidden is not None:
            h = self._dropped(F.leaky_relu(self.hidden(h), 0.2), self._num_layers)
        return h

    def judge(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        """h [n, numbers] as `read` gives it; c, needed with classes (int64 [n]) or text
        (float32 [n, text_dim]). Returns logits [n], calculated in float32 always."""
        with in_float32(h):
            h = h.float()
            logit: Tensor = self.logit(h)[:, 0]
            if self.embedding is None:
                return logit
            assert c is not None, "a projection head needs a condition"
            product = (self.embedding(c) * h).sum(1)
            scale = self.projection_scale
            logit += product / math.sqrt(h.shape[1]) if scale is None else product * scale
            return logit

    def aligned(self, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Where pictures and texts meet: h [n, numbers] as `read` gives it and texts c
        [n, text_dim] as unit vectors [n, numbers], in float32 always."""
        assert self.embedding is not None, "this discriminator knows no texts"
        with in_float32(h):
            return F.normalize(h.float(), dim=1), F.normalize(self.embedding(c), dim=1)

    def _add_head(self, features: int, num_layers: int) -> None:
        """The linear layers after `features` numbers, and a dropout for each of `num_layers`."""
        config = self.config
        features += (config.minibatch_std_group > 0) + config.pac * config.variance_input
        self.hidden = nn.Linear(features, config.hidden) if config.hidden else None
        features = config.hidden or features
        self.logit = nn.Linear(features, 1)
        self.embedding = condition_embedding(config, features)
        self._num_layers = num_layers
        num_dropouts = num_layers + (self.hidden is not None) if config.dropout else 0
        self.dropouts = nn.ModuleList(
            Dropout(config.dropout, layer) for layer in range(num_dropouts)
        )

    def _start(self) -> None:
        """Set the first weights, and normalise them if that is asked for."""
        initialise(self, self.config.init)
        if self.config.norm == "spectral":
            normalise_spectrally(self)

    def _dropped(self, h: Tensor, layer: int) -> Tensor:
        dropped: Tensor = self.dropouts[layer](h) if self.dropouts else h
        return dropped


class DCGANDiscriminator(Discriminator):
    """Strided convolutions with LeakyReLU down to the smallest map, then linear layers
    (Radford 2015). BatchNorm, if asked for, as there: not on what comes from the picture itself."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__(config)
        base, widths = stage_widths(config.size, config.width, config.max_width)
        channels = [config.channels * config.pac, *reversed(widths)]
        self.downs = nn.ModuleList(
            nn.Conv2d(before, after, 4, stride=2, padding=1)
            for before, after in itertools.pairwise(channels)
        )
        self.norms = nn.ModuleList(
            BatchNorm(width, config.norm_group)
            for width in (channels[2:] if config.norm == "batch" else [])
        )
        self._add_head(widths[0] * base**2, len(self.downs))
        self._start()

    def features(self, x: Tensor) -> Tensor:
        h = x
        for layer, down in enumerate(self.downs):
            h = down(h)
            if layer and self.norms:
                h = self.norms[layer - 1](h)
            h = self._dropped(F.leaky_relu(h, 0.2), layer)
        return h.flatten(1)
