"""Randomness from counters: a draw is a pure function of (seed, purpose, step, global index).

No generator has a state, so a checkpoint stores none, and any number of ranks draws the same batch:
each rank draws the whole and keeps its slice.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from torch import Tensor

from shared.philox import philox
from workers.training.ranks import Ranks


class Purpose(IntEnum):
    """What a draw is for; each has a stream of its own. The numbers must not change: a resumed run
    goes on drawing from them."""

    LATENTS = 1
    CLASSES = 2
    NOISE_IMAGES = 3
    REPLAY = 4
    LABEL_FLIPS = 5
    DROPOUT = 6
    WEIGHTS = 7
    DATA_ORDER = 8
    AUGMENT = 9
    INTERPOLATION = 10
    YARDSTICK_TURNS = 11
    YARDSTICK_FLIPS = 12
    YARDSTICK_DROPOUT = 13
    CAPTIONS = 14
    MISMATCHES = 15
    TEXT_NOISE = 16


class Part(IntEnum):
    """The parts of what D, or a guide, sees at one step, each with augmentations and dropout masks
    of its own. The numbers must not change either."""

    REALS = 0
    FAKES = 1
    NEW_FAKES = 2
    INTERPOLATES = 3
    GUIDE_REALS = 4


class Counters:
    """Draws for one run on one rank."""

    def __init__(self, seed: int, ranks: Ranks) -> None:
        self._seed = seed
        self._ranks = ranks

    def split(self, parts: int) -> list[Counters]:
        """One for each of so many micro-batches: they draw what the whole would have drawn."""
        ranks = self._ranks
        return [
            Counters(self._seed, Ranks(ranks.rank * parts + part, ranks.size * parts, ranks.device))
            for part in range(parts)
        ]

    def generator(self, purpose: Purpose, step: int, part: int = 0) -> np.random.Generator:
        """The stream of one purpose at one step, the same on every rank."""
        return philox((self._seed, purpose), (step, part))

    def normal(self, purpose: Purpose, step: int, n: int, *shape: int) -> Tensor:
        """This rank's slice of n draws of N(0, 1), float32 [n / ranks, *shape]."""
        drawn = self.generator(purpose, step).standard_normal((n, *shape), dtype=np.float32)
        return self._sliced(drawn)

    def uniform(self, purpose: Purpose, step: int, n: int, *shape: int, part: int = 0) -> Tensor:
        """This rank's slice of n draws from [0, 1), float32 [n / ranks, *shape]."""
        drawn = self.generator(purpose, step, part).random((n, *shape), dtype=np.float32)
        return self._sliced(drawn)

    def integers(self, purpose: Purpose, step: int, high: int, n: int, *shape: int) -> Tensor:
        """This rank's slice of n draws from 0 .. high-1, int64 [n / ranks, *shape]."""
        return self._sliced(self.generator(purpose, step).integers(high, size=(n, *shape)))

    def _sliced(self, drawn: np.ndarray) -> Tensor:
        return self._ranks.put(drawn[self._ranks.slice(len(drawn))])
