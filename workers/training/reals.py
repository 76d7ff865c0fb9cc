"""The reals that D sees: which, in which order, as what numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from shared.schemas.recipes import GanConfig
from workers.training.data import BalancedSampler, Sampler, TrainingData
from workers.training.ranks import Ranks


class Reals:
    """The dataset on this rank's device, handed out by steps of D."""

    def __init__(self, config: GanConfig, data: TrainingData, ranks: Ranks) -> None:
        self.images = data.images.to(ranks.device)
        self.labels = None if data.labels is None else data.labels.to(ranks.device)
        self._sampler: Sampler | BalancedSampler = Sampler(len(data.images), config.seed)
        if config.balanced:
            assert data.labels is not None, "balanced reals need classes"
            self._sampler = BalancedSampler(data.labels, config.seed)
        self._batch = config.num_fakes
        self._ranks = ranks

    def of(self, step: int) -> tuple[Tensor, Tensor]:
        """This rank's reals of a step: [n, C, H, W] in [-1, 1], and their numbers in the dataset,
        int64 [n]."""
        indices = self._sampler.indices(step, self._batch)
        mine = self._ranks.put(indices[self._ranks.slice(len(indices))])
        return to_float(self.images[mine]), mine


def to_float(images: Tensor) -> Tensor:
    """uint8 [n, C, H, W] to float32 in [-1, 1], channels last."""
    return images.to(memory_format=torch.channels_last).float().div_(127.5).sub_(1.0)
