"""Full configurations of what a train job trains. Data with types: unknown keys are errors.

The same object is what a preset returns, what `?validate_only=true` answers, what the attempt runs
and what lies beside every checkpoint. It imports no torch: `shared.networks.catalog` builds the
networks from it.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from shared.schemas.networks import DiscriminatorConfig, Frozen, GeneratorConfig


class OptimizerConfig(Frozen):
    """Adam. The rate is constant until `decay_from` of the run, then falls linearly to 0."""

    lr: float = Field(gt=0, le=1)
    beta1: float = Field(0.0, ge=0, lt=1)
    beta2: float = Field(0.99, ge=0, lt=1)
    decay_from: float = Field(1.0, ge=0, le=1)


class PenaltyConfig(Frozen):
    """Zero-centred gradient penalties of D: gamma/2 |grad D|^2 on reals (R1) and on fakes (R2),
    every `every` steps with `every` times the weight (lazily)."""

    r1_gamma: float = Field(0.0, ge=0)
    r2_gamma: float = Field(0.0, ge=0)
    every: int = Field(8, ge=1, le=64)


class AugmentConfig(Frozen):
    """Differentiable augmentation of D's pictures (DiffAugment, Zhao 2020), for small datasets.

    Each change is made to a picture with probability `p`, by its own draw; a strength of 0 leaves
    the change out. From p = 0.8 on, the changes may show in what G draws (Karras 2020, figure 3).
    """

    p: float = Field(0.0, ge=0, le=1)
    target: float | None = Field(None, gt=0, lt=1)
    """Adaptive (ADA, Karras 2020, section 3.1): the run starts at `p`, which rises while D is surer
    of the reals than this, and falls while it is less sure. 0.6 is usual."""
    adapt_kimg: float = Field(500.0, gt=0)
    """The thousands of images in which an adaptive `p` may go from 0 to 1."""
    flip: bool = False
    """Mirror half of the pictures, whatever `p` is: for things whose mirror image is one, too."""
    colour: float = Field(1.0, ge=0, le=1)
    """Brightness by up to half of this, saturation by all, contrast by half of it."""
    shift: float = Field(0.125, ge=0, lt=1)
    """Up to this share of the side, in both directions."""
    cutout: float = Field(0.5, ge=0, lt=1)
    """A square of this share of the side is greyed out."""


class CollapseConfig(Frozen):
    """How collapse is watched for, and what is done about it.

    Every `every_kimg` the signs of the raw G are judged (workers/training/collapse.py). `watch`
    only tells; `recover` goes back to the newest healthy state and changes one thing, at most as
    often as LADDER has rungs, then stops the run.
    """

    action: Literal["off", "watch", "recover"] = "watch"
    every_kimg: float = Field(4.0, gt=0)
    grace_kimg: float = Field(20.0, ge=0)
    """Nothing is judged before so many kimg, or 5 % of the run if that is more: a beginning looks
    ill."""


Change = Literal["rates", "penalties", "afresh"]
LADDER: tuple[Change, ...] = ("rates", "penalties", "rates")
"""What is changed after the first collapse, the second ...; before them `afresh`, for a run that
was never healthy: there is nothing to go back to."""


class BootstrapConfig(Frozen):
    """Before the first round D learns to tell random images from real ones.

    It ends when D's accuracy reaches `accuracy`, or after `max_steps` steps. 0 steps: no bootstrap.
    """

    max_steps: int = Field(0, ge=0, le=1000)
    accuracy: float = Field(0.95, gt=0.5, le=1.0)


class ReplayConfig(Frozen):
    """The repository of old fakes: each round `capacity - num_new` images are kept at random,
    `num_new` new ones are added, and D trains on all of it."""

    enabled: bool = True
    capacity: int = Field(200, ge=2, le=65_536)
    num_new: int = Field(100, ge=1, le=65_536)

    @model_validator(mode="after")
    def _new_fits(self) -> ReplayConfig:
        if self.num_new > self.capacity:
            raise ValueError(f"num_new {self.num_new} exceeds capacity {self.capacity}")
        return self


class GanConfig(Frozen):
    """The recipe `gan`. One round = G makes `num_generated` images, D trains once on all fakes of
    the repository (without replay: on the new ones) and on as many reals, G trains once."""

    recipe: Literal["gan"] = "gan"
    preset: str
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    objective: Literal["non_saturating", "hinge", "relativistic"] = "relativistic"
    num_generated: int = Field(32, ge=1, le=65_536)
    optimizer_g: OptimizerConfig
    optimizer_d: OptimizerConfig
    penalties: PenaltyConfig = PenaltyConfig()
    augment: AugmentConfig = AugmentConfig()
    label_flip: float = Field(0.0, ge=0.0, lt=0.5)
    """Remedy 2: when G trains, each of its labels is 0 with this probability."""
    bootstrap: BootstrapConfig = BootstrapConfig()
    replay: ReplayConfig = ReplayConfig()
    ema_half_life_kimg: float = Field(11.0, ge=0)
    """Half-life of the moving average of G in kimg; 0: G itself is sampled and published."""
    kimg: float = Field(100.0, gt=0)
    """Length of the run in thousands of real images seen."""
    seed: int = Field(0, ge=0, lt=2**32)
    collapse: CollapseConfig = CollapseConfig()
    changes: list[Change] = Field(default_factory=list)
    """What recoveries have changed; after each, draws come from numbers of their own."""
    report_every_s: float = Field(1.0, gt=0)
    grid_every_kimg: float = Field(10.0, gt=0)
    checkpoint_every_kimg: float = Field(25.0, gt=0)

    def changed(self, change: Change) -> GanConfig:
        """The configuration with which the run goes on after a recovery.

        `rates`: learning rates halved. `penalties`: gradient penalties on reals and fakes doubled,
        at least 0.1. `afresh`: new networks, from orthogonal weights.
        """
        changes = {"changes": [*self.changes, change]}
        match change:
            case "rates":
                halved = {
                    name: optimizer.model_copy(update={"lr": optimizer.lr / 2})
                    for name, optimizer in (
                        ("optimizer_g", self.optimizer_g),
                        ("optimizer_d", self.optimizer_d),
                    )
                }
                return self.model_copy(update=changes | halved)
            case "penalties":
                gammas = {
                    name: max(2 * getattr(self.penalties, name), 0.1)
                    for name in ("r1_gamma", "r2_gamma")
                }
                penalties = self.penalties.model_copy(update=gammas)
                return self.model_copy(update=changes | {"penalties": penalties})
            case "afresh":
                networks = {
                    "generator": self.generator.model_copy(update={"init": "orthogonal"}),
                    "discriminator": self.discriminator.model_copy(update={"init": "orthogonal"}),
                }
                return self.model_copy(update=changes | networks)

    @property
    def num_fakes(self) -> int:
        """Fakes (and reals) in one step of D, over all ranks."""
        return self.replay.capacity if self.replay.enabled else self.num_generated

    @model_validator(mode="after")
    def _consistent(self) -> GanConfig:
        if self.label_flip and self.objective != "non_saturating":
            raise ValueError("label_flip needs objective non_saturating: the others have no labels")
        if self.replay.enabled and self.replay.num_new > self.num_generated:
            raise ValueError(
                f"replay.num_new {self.replay.num_new} exceeds num_generated {self.num_generated}"
            )
        group = self.discriminator.minibatch_std_group
        if group and (self.num_fakes % group or self.num_generated % group):
            raise ValueError(f"minibatch_std_group {group} must divide the batches of D and of G")
        if self.num_generated % self.generator.norm_group:
            raise ValueError(
                f"norm_group {self.generator.norm_group} must divide num_generated "
                f"{self.num_generated}"
            )
        if self.objective == "relativistic" and self.num_generated > self.num_fakes:
            raise ValueError("objective relativistic pairs each new image with a real one")
        if (self.generator.size, self.generator.channels) != (
            self.discriminator.size,
            self.discriminator.channels,
        ):
            raise ValueError("generator and discriminator differ in size or channels")
        return self

    def check_workers(self, workers: int) -> None:
        """Every rank must hold the same number of images, in whole groups.

        Raises ValueError with the numbers that do not divide.
        """
        group = self.discriminator.minibatch_std_group or 1
        for name, n, unit in (
            ("num_generated", self.num_generated, math.lcm(group, self.generator.norm_group)),
            ("fakes in a step of D", self.num_fakes, group),
            ("replay.num_new", self.replay.num_new if self.replay.enabled else workers, 1),
        ):
            if n % (unit * workers):
                raise ValueError(
                    f"{name} = {n} is not divisible by {unit} x {workers} (group x workers)"
                )
