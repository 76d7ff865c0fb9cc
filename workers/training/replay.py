"""The replay repository: old fakes on which the discriminator keeps training.

Each round `capacity - num_new` images are kept at random and `num_new` are added; D trains on all.
The repository is one row of slots whatever the number of ranks: which slots are overwritten is
drawn from (seed, round), each rank holds its share of the slots, and new images travel to the rank
that owns their slot. Before the first round the slots hold random images, the first fakes of all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shared.schemas.recipes import GanConfig
from workers.training.counters import Counters, Purpose
from workers.training.ranks import Ranks


@dataclass
class Fakes:
    """A set of fakes: images uint8 [n, C, H, W]; labels int64 [n]; born int64 [n], the round that
    made each (-1: random images); variance float32 [n], of the set in which each was made."""

    images: Tensor
    labels: Tensor
    born: Tensor
    variance: Tensor


class ReplayRepository:
    """This rank's share of the repository."""

    def __init__(
        self, config: GanConfig, num_labels: int, counters: Counters, ranks: Ranks
    ) -> None:
        """The labels of the first random images go from 0 to `num_labels`, exclusive."""
        self._num_new = config.replay.num_new
        self.capacity = config.replay.capacity
        self._counters = counters
        self._ranks = ranks
        self.held = random_images(config, self.capacity, num_labels, counters, ranks, step=0)

    def add(self, new: Fakes, round_: int) -> Fakes:
        """Overwrite `num_new` slots drawn at random with `new` (this rank's share of the new
        images) and return what this rank holds after it."""
        draw = self._counters.generator(Purpose.REPLAY, round_)
        overwritten = np.sort(draw.choice(self.capacity, self._num_new, replace=False))
        mine = self._ranks.slice(self.capacity)
        arriving = np.flatnonzero((overwritten >= mine.start) & (overwritten < mine.stop))
        slots = self._ranks.put(overwritten[arriving] - mine.start)
        sources = self._ranks.put(arriving)
        arrived = self._gathered(new)
        for held, tensor in zip(vars(self.held).values(), vars(arrived).values(), strict=True):
            held[slots] = tensor[sources]
        return self.held

    def _gathered(self, new: Fakes) -> Fakes:
        """All ranks' new images, by one gather of bytes: a collective of few bytes costs as much
        as one of many."""
        columns = {name: t.reshape(len(t), -1) for name, t in vars(new).items()}
        rows = self._ranks.gather(torch.cat([c.view(torch.uint8) for c in columns.values()], dim=1))
        widths = [c.shape[1] * c.element_size() for c in columns.values()]
        parts = zip(rows.split(widths, dim=1), vars(new).values(), strict=True)
        return Fakes(
            *(part.contiguous().view(t.dtype).view(len(rows), *t.shape[1:]) for part, t in parts)
        )

    def state(self) -> Fakes:
        """The whole repository in order of its slots, gathered from all ranks (each must call)."""
        gather = self._ranks.gather
        return Fakes(*(gather(tensor).clone() for tensor in vars(self.held).values()))

    def load_state(self, whole: Fakes) -> None:
        """Take this rank's share of a whole repository, whatever number of ranks wrote it.

        Raises ValueError if it has another capacity.
        """
        if len(whole.images) != self.capacity:
            raise ValueError(f"a repository of {len(whole.images)} for a capacity {self.capacity}")
        mine = self._ranks.slice(self.capacity)
        device = self._ranks.device
        self.held = Fakes(*(tensor[mine].clone().to(device) for tensor in vars(whole).values()))


def random_images(
    config: GanConfig, n: int, num_labels: int, counters: Counters, ranks: Ranks, *, step: int
) -> Fakes:
    """This rank's share of n images of uniform noise under random labels, as the lecture's first
    fakes.

    Uniform on [-1, 1]: the average per-pixel variance is 1/3.
    """
    g = config.generator
    noise = counters.uniform(Purpose.NOISE_IMAGES, step, n, g.channels, g.size, g.size)
    count = len(noise)
    return Fakes(
        images=(noise * 256).to(torch.uint8),
        labels=counters.integers(Purpose.NOISE_IMAGES, step, num_labels, n),
        born=torch.full((count,), -1, dtype=torch.int64, device=ranks.device),
        variance=torch.full((count,), 1 / 3, device=ranks.device),
    )


def ages(born: Tensor, round_: int) -> dict[int, int]:
    """Age in rounds -> number of images that old."""
    age, count = torch.unique(round_ - born, return_counts=True)
    return dict(zip(age.tolist(), count.tolist(), strict=True))
