"""One step of D: its objective, its penalties, and what is remembered from step to step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from shared.networks.discriminators import Discriminator
from shared.networks.spectral import PowerIterations
from shared.schemas.recipes import GanConfig
from workers.training.augment import Augmentation
from workers.training.counters import Counters, Part, Purpose
from workers.training.norms import NormStatistics
from workers.training.objectives import OBJECTIVES
from workers.training.optimizers import FlatAdam
from workers.training.penalties import (
    LECAM_MOMENTUM,
    contrast,
    gradient_penalty,
    interpolated,
    lecam,
    matching_penalty,
    one_centred_penalty,
)
from workers.training.precision import autocast
from workers.training.ranks import Ranks
from workers.training.remedies import draw_dropout


@dataclass(frozen=True)
class Batch:
    """What D judges, first this rank's n reals, then its n fakes: images [2n, C, H, W] in [-1, 1];
    c, the conditions [2n] or [2n, text_dim], None without; mismatched [n, text_dim], the text of
    other pictures for each real, None without text; variance [2n], None where D does not see it."""

    images: Tensor
    c: Tensor | None
    mismatched: Tensor | None
    variance: Tensor | None

    def split(self, parts: int) -> Iterator[Batch]:
        """Into so many, each of as many reals as fakes: neighbours stay together."""
        if parts == 1:
            yield self
            return

        def part(tensor: Tensor, i: int) -> Tensor:
            return torch.cat([half.chunk(parts)[i] for half in tensor.chunk(2)])

        for i in range(parts):
            yield Batch(
                part(self.images, i),
                None if self.c is None else part(self.c, i),
                None if self.mismatched is None else self.mismatched.chunk(parts)[i],
                None if self.variance is None else part(self.variance, i),
            )


class DStep:
    """Trains D. `logit_means` [2] are the means of its logits on reals and on fakes so far;
    `sureness`, how sure it was of the reals at the last step."""

    def __init__(
        self,
        D: Discriminator,
        config: GanConfig,
        counters: Counters,
        augmentation: Augmentation,
        ranks: Ranks,
    ) -> None:
        self._D = D
        self._config = config
        self._counters = counters.split(config.accumulate)
        self._augmentation = augmentation
        self._objective = OBJECTIVES[config.objective]
        self._iterations = PowerIterations(D)
        self._norms = NormStatistics(D)
        self.adam = FlatAdam(D, config.optimizer_d, ranks, tail_size=3 + self._norms.size)
        self.sureness = self.adam.tail[0]
        self.logit_means = torch.zeros(2, device=ranks.device)
        self._gammas = torch.tensor(
            [config.penalties.r1_gamma, config.penalties.r2_gamma], device=ranks.device
        )

    def __call__(
        self, batch: Batch, *, step: int, progress: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Judge all of it, a micro-batch at a time, and learn from it. Returns the loss and the
        logits of reals and of fakes, detached."""
        self._D.requires_grad_(True)
        self.adam.zero_grad()
        means, norms = self.adam.tail[1:].split([2, self._norms.size])
        share = 1 / len(self._counters)
        losses, reals, fakes = [], [], []
        self._iterations.mark()
        for micro, counters in zip(batch.split(len(self._counters)), self._counters, strict=True):
            self._iterations.back()
            loss, real, fake = self._loss(micro, counters, step)
            (loss * share).backward()
            self._norms.add(norms, share)
            losses.append(loss.detach())
            reals.append(real.detach())
            fakes.append(fake.detach())

        # Update D, and average over the ranks what is remembered.
        real, fake = torch.cat(reals), torch.cat(fakes)
        self.sureness.copy_(self._objective.sureness(real, fake))
        means.copy_(torch.stack([real.mean(), fake.mean()]))
        self.adam.step(progress)
        self._norms.update(norms)
        self._augmentation.adapt(self.sureness, self._config.num_fakes)
        self.logit_means.lerp_(means, LECAM_MOMENTUM)
        return torch.stack(losses).mean(), real, fake

    def _loss(self, batch: Batch, counters: Counters, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """What D pays for a micro-batch, which is judged in one pass, and the logits of its reals
        and of its fakes."""
        penalties, n = self._config.penalties, self._config.num_fakes
        due = step % penalties.every == 0 and penalties.gradients
        x = batch.images.requires_grad_(due)
        texts = batch.c if due and penalties.matching_weight else None
        if texts is not None:
            texts.requires_grad_()
        draw_dropout(self._D, counters, step, n=n, parts=(Part.REALS, Part.FAKES))

        # Judge them.
        shown = self._augmentation(x, counters, step, n=n, parts=(Part.REALS, Part.FAKES))
        with autocast(self._config.precision, shown.device):
            read = self._D.read(shown, batch.variance)
        logits = self._D.judge(read, batch.c)
        real, fake = logits.chunk(2)
        refused = fake
        if batch.mismatched is not None:
            # A real picture of something else is as wrong as a fake (Tao 2020, section 3.2).
            refused = torch.cat([fake, self._D.judge(read[: len(real)], batch.mismatched)])
        loss = self._objective.loss_d(real, refused)

        # Add the penalties; one that is due stands for `every` steps.
        if due and (penalties.r1_gamma or penalties.r2_gamma):
            # Each half is averaged over its own images.
            weight = 2.0 * penalties.every
            gamma = self._gammas.repeat_interleave(len(real))
            loss = loss + weight * gradient_penalty(logits, x, gamma)
        if texts is not None:
            weight = penalties.matching_weight * penalties.every
            loss = loss + weight * matching_penalty(real, x, texts)
        if due and penalties.gp_weight:
            weight = penalties.gp_weight * penalties.every
            loss = loss + weight * self._penalty_between(shown.detach(), batch, counters, step)
        if penalties.contrast_weight:
            assert batch.c is not None
            told = batch.c[: len(real)]
            fit = contrast(*self._D.aligned(read[: len(real)], told), told)
            loss = loss + penalties.contrast_weight * fit
        if penalties.lecam_weight:
            loss = loss + penalties.lecam_weight * lecam(real, fake, self.logit_means)
        return loss, real, fake

    def _penalty_between(
        self, shown: Tensor, batch: Batch, counters: Counters, step: int
    ) -> Tensor:
        """The one-centred penalty on points between the reals and the fakes that D was shown; each
        is of its real's class."""
        n, pac = self._config.num_fakes, self._config.discriminator.pac
        t = counters.uniform(Purpose.INTERPOLATION, step, n // pac)
        points, c, variance = _halves_joined(shown, t).requires_grad_(), batch.c, batch.variance
        draw_dropout(self._D, counters, step, n=n, parts=(Part.INTERPOLATES,))
        with autocast(self._config.precision, points.device):
            logits = self._D(
                points,
                None if c is None else c[: len(points)],
                None if variance is None else _halves_joined(variance, t),
            )
        return one_centred_penalty(logits, points)


def _halves_joined(both: Tensor, t: Tensor) -> Tensor:
    n = len(both) // 2
    return interpolated(both[:n], both[n:], t)
