"""The recipe `gan`: its networks, one round, its samples, its state. All that the loop asks of it.

One round, as the lecture tells it: G makes new images; the repository keeps some of its old ones
and takes the new; D trains on all of it and on as many reals; G trains to fool D.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shared.images import Pixels
from shared.networks.catalog import build_discriminator, build_generator
from shared.networks.sampling import sample
from shared.schemas.recipes import GanConfig
from workers.training.augment import Augmentation
from workers.training.collapse import CollapseSigns
from workers.training.counters import Counters, Purpose
from workers.training.data import Sampler, TrainingData
from workers.training.ema import Ema
from workers.training.norms import NormStatistics
from workers.training.objectives import OBJECTIVES
from workers.training.optimizers import FlatAdam
from workers.training.penalties import gradient_penalty
from workers.training.ranks import Ranks
from workers.training.remedies import draw_dropout, set_variance
from workers.training.replay import Fakes, ReplayRepository, random_images

GRID_COLUMNS = 10
GRID_ROWS = 8

REALS, FAKES, NEW_FAKES, INTERPOLATES = range(4)
"""The parts of what D sees at one step, each with draws of its own. The numbers must not change: a
resumed run goes on drawing by them."""

STATS = ("loss_d", "loss_g", "logit_real", "logit_fake", "accuracy_d", "variance_fake")


class Gan:
    """A GAN in training on one rank."""

    def __init__(self, config: GanConfig, data: TrainingData, ranks: Ranks) -> None:
        self.config = config
        self.images_per_step = config.num_fakes
        self._ranks = ranks
        self._counters = Counters(config.seed + len(config.changes) * 2**32, ranks)
        self._objective = OBJECTIVES[config.objective]
        self._num_classes = config.generator.num_classes

        # Build the networks.
        torch.manual_seed(config.seed)
        self.G = build_generator(config.generator).to(ranks.device)
        self.D = build_discriminator(config.discriminator).to(ranks.device)
        self._norms_g = NormStatistics(self.G)
        self._ema = Ema(self.G, config.ema_half_life_kimg, self.images_per_step)
        self.G_ema = self._ema.network
        self._adam_g = FlatAdam(self.G, config.optimizer_g, ranks, tail_size=self._norms_g.size)
        self._adam_d = FlatAdam(self.D, config.optimizer_d, ranks, tail_size=1)
        self._augmentation = Augmentation(
            config.augment, self._counters, torch.tensor(config.augment.p, device=ranks.device)
        )

        # Lay the data and the repository out.
        self._images = data.images.to(ranks.device)
        self._labels = None if data.labels is None else data.labels.to(ranks.device)
        self._sampler = Sampler(len(data.images), config.seed)
        self.replay = (
            ReplayRepository(config, self._counters, ranks) if config.replay.enabled else None
        )
        # Which of the new images the repository takes: evenly spread over the batch, so that any
        # number of ranks gives the same ones.
        steps = torch.arange(config.num_generated + 1) * config.replay.num_new
        spread = (steps // config.num_generated).diff().bool()
        self._kept_new = spread[ranks.slice(config.num_generated)].to(ranks.device)
        self._sums = torch.zeros(len(STATS) + 1, device=ranks.device)
        self._signs = (
            None
            if config.collapse.action == "off"
            else CollapseSigns(self._images, self._labels, self._num_classes, ranks)
        )

    def bootstrap(self) -> None:
        """Train D on random images as fakes until it tells them from real ones."""
        bootstrap = self.config.bootstrap
        for step in range(bootstrap.max_steps):
            reals, labels = self._reals(step)
            # Step 0 of the noise filled the repository.
            fakes = random_images(
                self.config, self.config.num_fakes, self._counters, self._ranks, step=step + 1
            )
            real, fake = self._train_d(reals, labels, fakes, step=step, progress=0.0)
            correct = ((real > 0).sum() + (fake < 0).sum()).float()
            accuracy = self._ranks.sum(correct) / (2 * self.config.num_fakes)
            if accuracy.item() >= bootstrap.accuracy:
                break
        self._sums.zero_()

    def step(self, step: int, progress: float) -> None:
        """One round; `progress` in [0, 1] of the run sets the learning rates."""
        # Fetch the reals.
        reals, real_labels = self._reals(step)

        # Make new images.
        n = self.config.num_generated
        z = self._counters.normal(Purpose.LATENTS, step, n, self.config.generator.z_dim)
        c = self._classes(step, n)
        generated = self.G(z, c)
        variance = self._set_variance(generated)

        # Keep some old images and take the new.
        fakes = self._fakes(generated.detach(), c, variance.detach(), step)

        # Train D on all of them and on as many reals.
        real, fake = self._train_d(reals, real_labels, fakes, step=step, progress=progress)

        # Train G to fool D.
        loss_g = self._train_g(generated, c, variance, real, step=step, progress=progress)

        # Update G_ema.
        self._ema.update(step)
        self._count(real, fake, loss_g, variance)

    def stats(self) -> dict[str, float]:
        """Means since the last call, over all ranks (each must call)."""
        total = self._ranks.sum(self._sums).tolist()
        self._sums.zero_()
        means = {name: value / max(total[-1], 1) for name, value in zip(STATS, total, strict=False)}
        if self.config.augment.target is not None:
            means["augment_p"] = self._augmentation.p.item()
        return means

    def signs(self) -> dict[str, float]:
        """Signs of collapse since the last call, over all ranks (each must call)."""
        return {} if self._signs is None else self._signs.take()

    def samples(self) -> Pixels:
        """The grid: the same z (and classes) at every call, from G_ema. uint8 [80, H, W, C]."""
        indices = range(GRID_COLUMNS * GRID_ROWS)
        labels = [i % GRID_COLUMNS % max(self._num_classes, 1) for i in indices]
        return sample(
            self.G_ema,
            seed=self.config.seed,
            indices=indices,
            labels=labels if self._num_classes else None,
        )

    def networks(self) -> dict[str, Tensor]:
        """G, D and G_ema by name; the tensors are the live ones."""
        return {
            f"{prefix}.{name}": tensor
            for prefix, network in (("G", self.G), ("D", self.D), ("G_ema", self.G_ema))
            for name, tensor in network.state_dict().items()
        }

    def optimizers(self) -> dict[str, Tensor]:
        """Both optimizers' state by name, and the augmentation's; the tensors are the live ones."""
        return {
            f"{prefix}.{name}": tensor
            for prefix, adam in (("G", self._adam_g), ("D", self._adam_d))
            for name, tensor in adam.state().items()
        } | {"augment.p": self._augmentation.p}

    def load_state(
        self, networks: dict[str, Tensor], optimizers: dict[str, Tensor], replay: Fakes | None
    ) -> None:
        """Go on from a checkpoint."""
        for prefix, network in (("G", self.G), ("D", self.D), ("G_ema", self.G_ema)):
            network.load_state_dict(_named(networks, prefix))
        for prefix, adam in (("G", self._adam_g), ("D", self._adam_d)):
            adam.load_state(_named(optimizers, prefix))
        self._augmentation.p.copy_(optimizers["augment.p"])
        if self.replay is not None and replay is not None:
            self.replay.load_state(replay)

    def _train_d(
        self, reals: Tensor, labels: Tensor | None, fakes: Fakes, *, step: int, progress: float
    ) -> tuple[Tensor, Tensor]:
        """One step of D on reals and fakes in one pass; returns their logits, detached."""
        self.D.requires_grad_(True)
        x = torch.cat([reals, to_float(fakes.images)])
        c = torch.cat([labels, fakes.labels]) if labels is not None and self._num_classes else None
        variance = self._variances(reals, fakes)
        penalties = self.config.penalties
        penalise = step % penalties.every == 0 and (penalties.r1_gamma or penalties.r2_gamma)
        x.requires_grad_(bool(penalise))
        n = self.config.num_fakes
        draw_dropout(self.D, self._counters, step, n=n, parts=(REALS, FAKES))

        logits = self.D(self._augmentation(x, step, n=n, parts=(REALS, FAKES)), c, variance)
        real, fake = logits.split([len(reals), len(fakes.images)])
        loss = self._objective.loss_d(real, fake)
        if penalise:
            # Each half is averaged over its own images, and the step stands for `every` steps.
            weight = 2.0 * penalties.every
            gamma = x.new_tensor([penalties.r1_gamma, penalties.r2_gamma]).repeat_interleave(
                torch.tensor([len(real), len(fake)], device=x.device)
            )
            loss = loss + weight * gradient_penalty(logits, x, gamma)

        self._adam_d.zero_grad()
        loss.backward()
        self._adam_d.tail[0] = self._objective.sureness(real.detach(), fake.detach())
        self._adam_d.step(progress)
        self._augmentation.adapt(self._adam_d.tail[0], self.config.num_fakes)
        self._sums[0] += loss.detach()
        return real.detach(), fake.detach()

    def _train_g(
        self,
        generated: Tensor,
        c: Tensor | None,
        variance: Tensor,
        real: Tensor,
        *,
        step: int,
        progress: float,
    ) -> Tensor:
        """One step of G on the images that it made for this round; D stands still."""
        self.D.requires_grad_(False)
        n = self.config.num_generated
        draw_dropout(self.D, self._counters, step, n=n, parts=(NEW_FAKES,))
        given = (
            variance.expand(len(generated)) if self.config.discriminator.variance_input else None
        )
        flipped = None
        if self.config.label_flip:
            draws = self._counters.uniform(Purpose.LABEL_FLIPS, step, n)
            flipped = (draws < self.config.label_flip).float()
        shown = self._augmentation(generated, step, n=n, parts=(NEW_FAKES,))
        loss = self._objective.loss_g(real, self.D(shown, c, given), flipped)
        self._adam_g.zero_grad()
        if self._signs is not None:
            generated.retain_grad()
        loss.backward()
        if self._signs is not None:
            assert generated.grad is not None
            sureness = self._adam_d.tail[0]
            self._signs.see(generated.detach(), c, generated.grad, sureness)
        self._norms_g.write(self._adam_g.tail)
        self._adam_g.step(progress)
        self._norms_g.update(self._adam_g.tail)
        return loss.detach()

    def _reals(self, step: int) -> tuple[Tensor, Tensor | None]:
        """This rank's reals of a step, in [-1, 1], and their classes."""
        indices = self._sampler.indices(step, self.config.num_fakes)
        mine = torch.from_numpy(indices[self._ranks.slice(len(indices))]).to(self._ranks.device)
        labels = self._labels[mine] if self._labels is not None else None
        return to_float(self._images[mine]), labels

    def _classes(self, step: int, n: int) -> Tensor | None:
        if not self._num_classes:
            return None
        return self._counters.integers(Purpose.CLASSES, step, self._num_classes, n)

    def _fakes(self, images: Tensor, c: Tensor | None, variance: Tensor, step: int) -> Fakes:
        n = len(images)
        labels = c if c is not None else torch.zeros(n, dtype=torch.int64, device=images.device)
        pixels = images.mul(127.5).add_(127.5).round_().clamp_(0, 255).to(torch.uint8)
        new = Fakes(pixels, labels, torch.full_like(labels, step), variance.repeat(n))
        if self.replay is None:
            return new
        return self.replay.add(Fakes(*(t[self._kept_new] for t in vars(new).values())), step)

    def _set_variance(self, images: Tensor) -> Tensor:
        """Over all ranks where D sees it; else a mere signal, this rank's own, without a
        collective."""
        ranks = self._ranks if self.config.discriminator.variance_input else Ranks()
        return set_variance(images, ranks)

    def _variances(self, reals: Tensor, fakes: Fakes) -> Tensor | None:
        if not self.config.discriminator.variance_input:
            return None
        real = set_variance(reals, self._ranks)
        return torch.cat([real.expand(len(reals)), fakes.variance])

    def _count(self, real: Tensor, fake: Tensor, loss_g: Tensor, variance: Tensor) -> None:
        accuracy = ((real > 0).float().mean() + (fake < 0).float().mean()) / 2
        rest = torch.stack(
            [loss_g, real.mean(), fake.mean(), accuracy, variance.detach(), torch.ones_like(loss_g)]
        )
        self._sums[1:] += rest


def to_float(images: Tensor) -> Tensor:
    """uint8 [n, C, H, W] to float32 in [-1, 1], channels last."""
    return images.to(memory_format=torch.channels_last).float().div_(127.5).sub_(1.0)


def _named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = prefix + "."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
