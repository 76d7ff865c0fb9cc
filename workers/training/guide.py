"""The guide: it learns which picture has which text, from real pictures alone and before the run.
Then it stands still, and G pays for each new picture that it takes for another's text.

D's own contrast teaches D, but G learns to please what goes with it. The guide has weights of its
own, which no fake has ever moved (DAMSM, Xu 2018, section 3.2; CLIP guidance, Sauer 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from shared.networks.catalog import build_discriminator
from shared.schemas.networks import DiscriminatorConfig
from shared.schemas.recipes import CONTRAST_GROUP, AugmentConfig, OptimizerConfig, Precision
from workers.training.norms import NormStatistics
from workers.training.optimizers import FlatAdam
from workers.training.penalties import contrast
from workers.training.precision import autocast
from workers.training.ranks import Ranks

WIDTH = 32
"""Channels of its first layer; each further one has twice as many."""
LEARNING = OptimizerConfig(lr=1e-3, beta1=0.9, beta2=0.99, decay_from=0.5)
"""Usual values; others were not tried."""
LIGHTLY = AugmentConfig(p=0.8, colour=0.2, shift=0.1, cutout=0.0)
"""What it learns from is changed less than what D sees: it will judge pictures as they are."""


class Guide:
    """How well pictures fit texts, as this run's guide sees it. `network` stands still but while
    it learns; a checkpoint keeps it."""

    def __init__(self, like: DiscriminatorConfig, precision: Precision, ranks: Ranks) -> None:
        """For pictures and texts as D, which is `like` this, is shown them."""
        self.network = build_discriminator(
            DiscriminatorConfig(
                size=like.size,
                channels=like.channels,
                width=WIDTH,
                text_dim=like.text_dim,
                norm="batch",
                norm_group=CONTRAST_GROUP,
            )
        ).to(ranks.device)
        self.network.eval().requires_grad_(False)
        self._precision = precision
        self._ranks = ranks

    def misfit(self, pictures: Tensor, c: Tensor) -> Tensor:
        """The contrast [] of this rank's pictures [n, C, H, W] in [-1, 1] and their texts
        [n, text_dim]; n whole groups of CONTRAST_GROUP."""
        with autocast(self._precision, pictures.device):
            read = self.network.read(pictures)
        return contrast(*self.network.aligned(read, c), c)

    def learn(
        self, pairs: Callable[[int], tuple[Tensor, Tensor]], num_steps: int
    ) -> Iterator[Tensor]:
        """Learn from `pairs(step)`, this rank's share of a step's real pictures and their texts as
        `misfit` takes them. Yields the misfit [] of each step, this rank's, before it was learned
        from."""
        self.network.train().requires_grad_(True)
        norms = NormStatistics(self.network)
        adam = FlatAdam(self.network, LEARNING, self._ranks, tail_size=norms.size)
        for step in range(num_steps):
            adam.zero_grad()
            misfit = self.misfit(*pairs(step))
            misfit.backward()
            norms.add(adam.tail, 1.0)
            adam.step(step / num_steps)
            norms.update(adam.tail)
            yield misfit.detach()
        self.network.zero_grad()
        self.network.eval().requires_grad_(False)
