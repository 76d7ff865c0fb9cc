"""Full configurations of what a train job trains. Data with types: unknown keys are errors.

The same object is what a preset returns, what `?validate_only=true` answers, what the attempt runs
and what lies beside every checkpoint. It imports no torch: `shared.networks.catalog` builds the
networks from it.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

MAX_SIZE = 256


def base_and_doublings(size: int) -> tuple[int, int]:
    """The side of the smallest map and how often it doubles: 28 = 7 * 2^2 gives (7, 2).

    Raises ValueError for a side that is not 4 to 7 times a power of two.
    """
    base, doublings = size, 0
    while base % 2 == 0 and base > 7:
        base //= 2
        doublings += 1
    if not 4 <= base <= 7:
        raise ValueError(f"size {size} is not 4, 5, 6 or 7 times a power of two")
    return base, doublings


def _doubled(size: int) -> int:
    base_and_doublings(size)
    return size


Side = Annotated[int, Field(ge=8, le=MAX_SIZE), AfterValidator(_doubled)]
"""Height and width of what a network of doublings makes or sees."""


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GeneratorConfig(Frozen):
    """G: z (and a class) in, picture out. DCGAN (Radford 2015): linear, then doublings of the side.

    `size` = base * 2^k with a base of 4 to 7 (28 = 7*4, 32 = 4*8, 64 = 4*16). `width` is the number
    of channels of the last hidden layer; each layer towards the input has twice as many, up to
    `max_width`.
    """

    architecture: Literal["dcgan"] = "dcgan"
    size: Side = 32
    channels: Literal[1, 3] = 1
    z_dim: int = Field(64, ge=1, le=1024)
    width: int = Field(16, ge=4, le=512)
    max_width: int = Field(512, ge=4, le=2048)
    num_classes: int = Field(0, ge=0, le=10_000)
    """With classes, normalisation is scaled and shifted per class (conditional batch norm)."""
    norm_group: int = Field(32, ge=2, le=4096)
    """Images per group that batch norm takes its statistics over; a rank holds whole groups."""
    init: Literal["orthogonal", "default", "normal"] = "orthogonal"
    """`normal` is N(0, 0.02), DCGAN's own; `default` is torch's."""


class DiscriminatorConfig(Frozen):
    """D: picture in, one logit out; a mirror of G without normalisation.

    With classes the logit is linear(h) + <embedding(c), h> / sqrt(dim) (projection, Miyato 2018).
    """

    architecture: Literal["dcgan"] = "dcgan"
    size: Side = 32
    channels: Literal[1, 3] = 1
    width: int = Field(16, ge=4, le=512)
    max_width: int = Field(512, ge=4, le=2048)
    hidden: int = Field(128, ge=0, le=4096)
    """Units of the linear layer before the logit; 0 leaves it out."""
    num_classes: int = Field(0, ge=0, le=10_000)
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Remedy 1: dropout with this probability after each activation."""
    variance_input: bool = False
    """Remedy 3: the average per-pixel variance of an image's set is a further input."""
    minibatch_std_group: int = Field(0, ge=0, le=64)
    """Images per group whose standard deviation D sees (Karras 2017); 0 leaves it out."""
    init: Literal["orthogonal", "default", "normal"] = "orthogonal"


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
    report_every_s: float = Field(1.0, gt=0)
    grid_every_kimg: float = Field(10.0, gt=0)
    checkpoint_every_kimg: float = Field(25.0, gt=0)

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
