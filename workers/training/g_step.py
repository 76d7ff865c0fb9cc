"""One step of G: it makes new images, and learns from what D says of the last of a round."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shared.networks.discriminators import Discriminator
from shared.networks.generators import Generator
from shared.networks.spectral import PowerIterations
from shared.schemas.recipes import GanConfig
from workers.training.augment import Augmentation
from workers.training.conditions import Conditions
from workers.training.counters import Counters, Part, Purpose
from workers.training.guide import Guide
from workers.training.norms import NormStatistics
from workers.training.objectives import OBJECTIVES
from workers.training.optimizers import FlatAdam
from workers.training.penalties import contrast, matrices, orthogonality
from workers.training.precision import autocast
from workers.training.ranks import Ranks
from workers.training.remedies import draw_dropout, set_variance


@dataclass(frozen=True)
class NewImages:
    """This rank's new images of a step: images [n, C, H, W] in [-1, 1] and their average per-pixel
    variance [], as D is shown them: their gradients stop there. labels int64 [n]; z [n, z_dim] and
    c are what G made them of; made [n, C, H, W] are the same images with G's graph, None where it
    was not kept."""

    images: Tensor
    variance: Tensor
    labels: Tensor
    z: Tensor
    c: Tensor | None
    made: Tensor | None


class GStep:
    """Makes images by G, and trains it."""

    def __init__(
        self,
        G: Generator,
        D: Discriminator,
        config: GanConfig,
        conditions: Conditions,
        counters: Counters,
        augmentation: Augmentation,
        guide: Guide | None,
        ranks: Ranks,
    ) -> None:
        self._G, self._D = G, D
        self._config = config
        self._conditions = conditions
        self._counters = counters
        self._micro = counters.split(config.accumulate)
        self._augmentation = augmentation
        self._guide = guide
        # Over all ranks where D sees it; else a mere signal, this rank's own, without a collective.
        self._ranks = ranks if config.discriminator.variance_input else Ranks()
        self._objective = OBJECTIVES[config.objective]
        self._matrices = matrices(G)
        self._norms = NormStatistics(G)
        self._iterations_g, self._iterations_d = PowerIterations(G), PowerIterations(D)
        self.adam = FlatAdam(G, config.optimizer_g, ranks, tail_size=self._norms.size)

    def make(self, step: int) -> NewImages:
        """New images for a step of D. G trains on the last of a round only."""
        n = self._config.num_generated
        last = (step + 1) % self._config.num_d_steps == 0
        z = self._counters.normal(Purpose.LATENTS, step, n, self._config.generator.z_dim)
        labels = self._conditions.drawn(step, n)
        c = self._conditions.told_in_training(labels, step, n)
        self._iterations_g.mark()
        if len(self._micro) == 1:
            with torch.set_grad_enabled(last):
                made = self._forward(z, c)
            images = made.detach()
        else:
            made = None
            with torch.no_grad():
                images = torch.cat([self._again(z, c, i) for i in range(len(self._micro))])
        images.requires_grad_(last)
        return NewImages(images, set_variance(images, self._ranks), labels, z, c, made)

    def __call__(self, new: NewImages, real: Tensor, *, step: int, progress: float) -> Tensor:
        """Train G to fool D, which stands still, by the last new images of a round and the logits
        [n] of the reals of their step. Returns the loss; the images have its gradient then."""
        self.adam.zero_grad()

        # Ask D, a micro-batch at a time, which way each image should change.
        self._D.requires_grad_(False)
        variance = new.variance.detach().requires_grad_()
        loss = self._ask(new, variance, real, step)
        if variance.grad is not None:
            new.variance.backward(variance.grad)
        assert new.images.grad is not None

        # Change G so that they do.
        share = 1 / len(self._micro)
        for i, gradient in enumerate(new.images.grad.chunk(len(self._micro))):
            made = self._again(new.z, new.c, i) if new.made is None else new.made
            results, gradients = [made], [gradient]
            if i == 0 and self._config.penalties.orthogonal_weight:
                penalty = self._config.penalties.orthogonal_weight * orthogonality(self._matrices)
                loss = loss + penalty.detach()
                results, gradients = [made, penalty], [gradient, torch.ones_like(penalty)]
            torch.autograd.backward(results, gradients)
            self._norms.add(self.adam.tail, share)
        self.adam.step(progress)
        self._norms.update(self.adam.tail)
        return loss

    def _ask(self, new: NewImages, variance: Tensor, real: Tensor, step: int) -> Tensor:
        """Leave the gradient of G's loss in the images and in the variance; returns the loss."""
        config, parts = self._config, len(self._micro)
        n = config.num_generated
        told = self._conditions.told(new.labels)
        losses = []
        self._iterations_d.mark()
        for i, counters in enumerate(self._micro):
            self._iterations_d.back()
            images = new.images.chunk(parts)[i]
            draw_dropout(self._D, counters, step, n=n, parts=(Part.NEW_FAKES,))
            flipped = None
            if config.label_flip:
                draws = counters.uniform(Purpose.LABEL_FLIPS, step, n // config.discriminator.pac)
                flipped = (draws < config.label_flip).float()
            shown = self._augmentation(images, counters, step, n=n, parts=(Part.NEW_FAKES,))
            given = variance.expand(len(images)) if config.discriminator.variance_input else None
            c = None if told is None else told.chunk(parts)[i]
            with autocast(config.precision, images.device):
                read = self._D.read(shown, given)
            logits = self._D.judge(read, c)
            pairs = real[i * len(logits) : (i + 1) * len(logits)]
            loss = self._objective.loss_g(pairs, logits, flipped)
            if config.penalties.contrast_weight:
                assert c is not None
                fit = contrast(*self._D.aligned(read, c), c)
                loss = loss + config.penalties.contrast_weight * fit
            if self._guide is not None:
                assert c is not None
                loss = loss + config.guide.weight * self._guide.misfit(images, c)
            (loss / parts).backward()
            losses.append(loss.detach())
        return torch.stack(losses).mean()

    def _again(self, z: Tensor, c: Tensor | None, i: int) -> Tensor:
        """Images of micro-batch i, the same whenever they are made in a round."""
        parts = len(self._micro)
        self._iterations_g.back()
        return self._forward(z.chunk(parts)[i], None if c is None else c.chunk(parts)[i])

    def _forward(self, z: Tensor, c: Tensor | None) -> Tensor:
        with autocast(self._config.precision, z.device):
            images: Tensor = self._G(z, c)
        return images
