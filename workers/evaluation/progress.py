"""The score of a run while it goes on: how far its pictures are from the training pictures."""

from __future__ import annotations

import torch

from shared.networks.generators import Generator
from shared.networks.sampling import sample
from workers.evaluation.distances import Moments, frechet_of
from workers.evaluation.yardstick import Yardstick
from workers.training.data import Sampler, TrainingData
from workers.training.ranks import Ranks

NUM_REFERENCE = 10_000
DRAWN_AT_ONCE = 250


class ProgressScore:
    """Frechet distance of n pictures of a generator; each rank draws its share.

    The training pictures are the reference, so that nothing need be held out; a score that names
    the unseen is an evaluate job's. Scores of one n compare.
    """

    def __init__(
        self, data: TrainingData, yardstick: Yardstick, *, n: int, seed: int, ranks: Ranks
    ) -> None:
        self._yardstick = yardstick
        self._n = n
        self._seed = seed
        self._ranks = ranks
        num_real = min(len(data.images), NUM_REFERENCE)
        rows = torch.from_numpy(Sampler(len(data.images), seed).indices(0, num_real))
        self._real = Moments.of(yardstick.read(data.images[rows])[0])

    def __call__(self, generator: Generator) -> float:
        """The distance, the same on every rank (each must call)."""
        mine = range(self._n)[self._ranks.rank :: self._ranks.size]
        num_classes = generator.config.num_classes
        features = []
        for start in range(0, len(mine), DRAWN_AT_ONCE):
            indices = mine[start : start + DRAWN_AT_ONCE]
            labels = [i % num_classes for i in indices] if num_classes else None
            drawn = sample(generator, seed=self._seed, indices=indices, labels=labels)
            features.append(self._yardstick.read(torch.from_numpy(drawn).permute(0, 3, 1, 2))[0])
        return frechet_of(self._real, Moments.of(torch.cat(features), self._ranks.sum))
