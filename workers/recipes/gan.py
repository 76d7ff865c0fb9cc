"""The recipe `gan`: its networks, one round, its samples, its state. All that the loop asks of it.

One round, as the lecture tells it: G makes new images; the repository keeps some of its old ones
and takes the new; D trains on all of it and on as many reals; G trains to fool D.
"""

from __future__ import annotations

from collections.abc import Iterator

import structlog
import torch
from torch import Tensor, nn

from shared.images import Pixels
from shared.networks.catalog import build_discriminator, build_generator
from shared.networks.generators import Generator
from shared.networks.sampling import sample
from shared.networks.standing import take_standing_statistics
from shared.schemas.recipes import GanConfig
from workers.training.augment import Augmentation
from workers.training.collapse import CollapseSigns
from workers.training.conditions import conditions
from workers.training.counters import Counters, Part
from workers.training.d_step import Batch, DStep
from workers.training.data import TrainingData
from workers.training.ema import Ema
from workers.training.g_step import GStep, NewImages
from workers.training.guide import LIGHTLY, Guide
from workers.training.ranks import Ranks
from workers.training.reals import Reals, to_float
from workers.training.remedies import set_variance
from workers.training.replay import Fakes, ReplayRepository, random_images

GRID_COLUMNS = 10
GRID_ROWS = 8

log = structlog.get_logger()

STATS = ("loss_d", "loss_g", "logit_real", "logit_fake", "accuracy_d", "variance_fake")


class Gan:
    """A GAN in training on one rank."""

    def __init__(self, config: GanConfig, data: TrainingData, ranks: Ranks) -> None:
        self.config = config
        self.images_per_step = config.images_per_round
        self._ranks = ranks
        self._counters = Counters(config.seed + len(config.changes) * 2**32, ranks)
        self._num_classes = config.generator.num_classes
        self._conditions = conditions(config, data, self._counters, ranks.device)
        self.captions = data.captions if config.generator.text_dim else None

        # Build the networks.
        torch.manual_seed(config.seed)
        self.G = build_generator(config.generator).to(ranks.device)
        if self.captions is not None:
            self.G.examples.copy_(self.captions.example_vectors())
        self.D = build_discriminator(config.discriminator).to(ranks.device)
        self._guide = (
            Guide(config.discriminator, config.precision, ranks) if config.guide.weight else None
        )
        self._ema = Ema(self.G, config.ema_half_life_kimg, self.images_per_step)
        self.G_ema = self._ema.network
        self._augmentation = Augmentation(
            config.augment, torch.tensor(config.augment.p, device=ranks.device)
        )
        self._d_step = DStep(self.D, config, self._counters, self._augmentation, ranks)
        self._g_step = GStep(
            self.G, self.D, config, self._conditions, self._counters, self._augmentation,
            self._guide, ranks,
        )  # fmt: skip

        # Lay the data and the repository out.
        self._reals = Reals(config, data, ranks)
        self.replay = (
            ReplayRepository(config, self._conditions.num_labels, self._counters, ranks)
            if config.replay.enabled
            else None
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
            else CollapseSigns(self._reals.images, self._reals.labels, self._num_classes, ranks)
        )

    def bootstrap(self) -> Iterator[None]:
        """What comes before the first round, step by step. Nothing of it lasts if it is left
        between two: it has to be begun again."""
        if self._guide is not None:
            yield from self._teach(self._guide)
        yield from self._see_random_images()

    def _teach(self, guide: Guide) -> Iterator[None]:
        """Let the guide learn from real pictures, changed a little, and their texts."""
        n, p = self.config.num_fakes, torch.tensor(LIGHTLY.p, device=self._ranks.device)
        augmentation = Augmentation(LIGHTLY, p)
        kimg = min(self.config.guide.kimg, self.config.kimg)
        num_steps = max(1, round(1000 * kimg / n))

        def pairs(step: int) -> tuple[Tensor, Tensor]:
            reals, numbers = self._reals.of(step)
            c = self._conditions.told(self._conditions.of_reals(numbers, step, n))
            assert c is not None, "a guide needs texts"
            parts = (Part.GUIDE_REALS,)
            return augmentation(reals, self._counters, step, n=n, parts=parts), c

        for step, misfit in enumerate(guide.learn(pairs, num_steps), start=1):
            # Say ten times how far it is.
            if self._ranks.is_first and step * 10 // num_steps > (step - 1) * 10 // num_steps:
                log.info(
                    "the guide learns which picture has which text",
                    kimg=step * n / 1000, of=kimg, misfit=misfit.item(),
                )  # fmt: skip
            yield

    def _see_random_images(self) -> Iterator[None]:
        """Train D on random images as fakes until it tells them from real ones."""
        bootstrap = self.config.bootstrap
        for step in range(bootstrap.max_steps):
            reals, numbers = self._reals.of(step)
            # Step 0 of the noise filled the repository.
            fakes = random_images(
                self.config, self.config.num_fakes, self._conditions.num_labels, self._counters,
                self._ranks, step=step + 1,
            )  # fmt: skip
            real, fake = self._train_d(reals, numbers, fakes, step=step, progress=0.0)
            correct = ((real > 0).sum() + (fake < 0).sum()).float()
            accuracy = self._ranks.sum(correct) / (2 * len(real) * self._ranks.size)
            if accuracy.item() >= bootstrap.accuracy:
                break
            yield
        self._sums.zero_()

    def step(self, step: int, progress: float) -> None:
        """One round; `progress` in [0, 1] of the run sets the learning rates."""
        for d_step in range(step * self.config.num_d_steps, (step + 1) * self.config.num_d_steps):
            # Fetch the reals.
            reals, numbers = self._reals.of(d_step)

            # Make new images.
            new = self._g_step.make(d_step)

            # Keep some old images and take the new.
            fakes = self._fakes(new, d_step)

            # Train D on all of them and on as many reals.
            real, fake = self._train_d(reals, numbers, fakes, step=d_step, progress=progress)

        # Train G to fool D.
        loss_g = self._g_step(new, real, step=step, progress=progress)

        # Update G_ema.
        self._ema.update(step)
        self._count(real, fake, loss_g, new)

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
        """The grid: the same z (and classes or captions) at every call, from G_ema. A column is of
        one class, a row of one caption. uint8 [80, H, W, C]."""
        indices = range(GRID_COLUMNS * GRID_ROWS)
        if self.captions is None:
            labels = [i % GRID_COLUMNS for i in indices]
        else:
            rows = self.captions.spread(GRID_ROWS)
            labels = [rows[i // GRID_COLUMNS] for i in indices]
        return sample(self.settled(), seed=self.config.seed, indices=indices, labels=labels)

    def settled(self) -> Generator:
        """G_ema as it is drawn from and published: with standing statistics, where it has them."""
        if self.config.standing_batches:
            take_standing_statistics(
                self.G_ema, seed=self.config.seed, num_batches=self.config.standing_batches
            )
        return self.G_ema

    def networks(self) -> dict[str, Tensor]:
        """The weights of all networks by name; the tensors are the live ones."""
        return {
            f"{prefix}.{name}": tensor
            for prefix, network in self._networks()
            for name, tensor in network.state_dict().items()
        }

    def optimizers(self) -> dict[str, Tensor]:
        """The state of both optimizers, of the augmentation and of LeCam by name; the tensors are
        the live ones."""
        return {
            f"{prefix}.{name}": tensor
            for prefix, adam in (("G", self._g_step.adam), ("D", self._d_step.adam))
            for name, tensor in adam.state().items()
        } | {"augment.p": self._augmentation.p, "lecam.means": self._d_step.logit_means}

    def load_state(
        self, networks: dict[str, Tensor], optimizers: dict[str, Tensor], replay: Fakes | None
    ) -> None:
        """Go on from a checkpoint."""
        for prefix, network in self._networks():
            network.load_state_dict(_named(networks, prefix))
        for prefix, adam in (("G", self._g_step.adam), ("D", self._d_step.adam)):
            adam.load_state(_named(optimizers, prefix))
        self._augmentation.p.copy_(optimizers["augment.p"])
        self._d_step.logit_means.copy_(optimizers["lecam.means"])
        if self.replay is not None and replay is not None:
            self.replay.load_state(replay)

    def _networks(self) -> list[tuple[str, nn.Module]]:
        networks: list[tuple[str, nn.Module]] = [
            ("G", self.G), ("D", self.D), ("G_ema", self.G_ema),
        ]  # fmt: skip
        return networks if self._guide is None else [*networks, ("guide", self._guide.network)]

    def _train_d(
        self, reals: Tensor, numbers: Tensor, fakes: Fakes, *, step: int, progress: float
    ) -> tuple[Tensor, Tensor]:
        """One step of D on reals, which have these numbers in the dataset, and on fakes; returns
        their logits, detached."""
        n = self.config.num_fakes
        labels = self._conditions.of_reals(numbers, step, n)
        batch = Batch(
            torch.cat([reals, to_float(fakes.images)]),
            self._conditions.told(torch.cat([labels, fakes.labels])),
            self._conditions.mismatched(labels, step, n),
            self._variances(reals, fakes),
        )
        loss, real, fake = self._d_step(batch, step=step, progress=progress)
        self._sums[0] += loss / self.config.num_d_steps
        return real, fake

    def _fakes(self, new: NewImages, step: int) -> Fakes:
        pixels = new.images.detach().mul(127.5).add_(127.5).round_().clamp_(0, 255).to(torch.uint8)
        born = torch.full_like(new.labels, step // self.config.num_d_steps)
        fakes = Fakes(pixels, new.labels, born, new.variance.detach().repeat(len(pixels)))
        if self.replay is None:
            return fakes
        return self.replay.add(Fakes(*(t[self._kept_new] for t in vars(fakes).values())), step)

    def _variances(self, reals: Tensor, fakes: Fakes) -> Tensor | None:
        if not self.config.discriminator.variance_input:
            return None
        real = set_variance(reals, self._ranks)
        return torch.cat([real.expand(len(reals)), fakes.variance])

    def _count(self, real: Tensor, fake: Tensor, loss_g: Tensor, new: NewImages) -> None:
        accuracy = ((real > 0).float().mean() + (fake < 0).float().mean()) / 2
        variance, one = new.variance.detach(), torch.ones_like(loss_g)
        self._sums[1:] += torch.stack([loss_g, real.mean(), fake.mean(), accuracy, variance, one])
        if self._signs is not None:
            assert new.images.grad is not None
            classes = new.labels if self._num_classes else None
            self._signs.see(new.images.detach(), classes, new.images.grad, self._d_step.sureness)


def _named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = prefix + "."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
