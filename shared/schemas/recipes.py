"""Full configurations of what a train job trains. Data with types: unknown keys are errors.

The same object is what a preset returns, what `?validate_only=true` answers, what the attempt runs
and what lies beside every checkpoint. It imports no torch: `shared.networks.catalog` builds the
networks from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
    """What D, or where it is said G, pays for beside its objective. Gradient penalties come every
    `every` steps with `every` times the weight (lazily)."""

    r1_gamma: float = Field(0.0, ge=0)
    """Zero-centred, gamma/2 |grad D|^2, on reals (Mescheder 2018)."""
    r2_gamma: float = Field(0.0, ge=0)
    """The same on fakes."""
    gp_weight: float = Field(0.0, ge=0)
    """One-centred, weight (|grad D| - 1)^2, between reals and fakes (Gulrajani 2017: 10)."""
    matching_weight: float = Field(0.0, ge=0)
    """Zero-centred, weight (|grad D by the picture| + |by the text|)^6, on reals with their own
    text (matching-aware, Tao 2020, section 3.3: 2)."""
    every: int = Field(8, ge=1, le=64)
    contrast_weight: float = Field(0.0, ge=0)
    """D, for real pictures, and G, for new ones, pay for each that fits another's text better than
    its own, among CONTRAST_GROUP neighbours (XMC-GAN, Zhang 2021, section 4.1)."""
    lecam_weight: float = Field(0.0, ge=0)
    """Pulls the logits of reals to the mean of the fakes' so far, and the other way round, for
    small datasets (LeCam, Tseng 2021)."""
    orthogonal_weight: float = Field(0.0, ge=0)
    """G pays for rows of its weights that are not orthogonal to each other, so that it bears
    truncation (Brock 2018, section 3.1, who has 1e-4)."""

    @property
    def gradients(self) -> bool:
        """Whether there is any gradient penalty."""
        return bool(self.r1_gamma or self.r2_gamma or self.gp_weight or self.matching_weight)


CONTRAST_GROUP = 32
"""Pictures that are held against each other's texts; so many that a rank must hold together."""


class GuideConfig(Frozen):
    """Before the run a network of its own learns which real picture has which text. Then it stands
    still, and G pays for each new picture that it takes for another's text, among CONTRAST_GROUP
    neighbours (DAMSM, Xu 2018, section 3.2; CLIP guidance, Sauer 2023)."""

    weight: float = Field(0.0, ge=0)
    """Of that in G's loss; 0: no guide."""
    kimg: float = Field(75.0, gt=0)
    """Thousands of pictures that it learns from, in batches as D's; at most as many as the run."""


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


class ScoreConfig(Frozen):
    """The score of a run while it goes on: at each checkpoint G_ema's Frechet distance from the
    training pictures, in the features of the dataset's yardstick, which its first use trains. The
    best checkpoint is kept and published."""

    n: int = Field(0, ge=0, le=100_000)
    """Pictures behind a score; 0: no scores, and the last state is published."""
    max_distance: float | None = Field(None, gt=0)
    """Nothing is published whose score is above it."""


Precision = Literal["float32", "bfloat16"]
"""Of what goes on within G and D. Weights, statistics, losses and averages are float32 always."""

Change = Literal["rates", "penalties", "afresh"]
LADDER: tuple[Change, ...] = ("rates", "penalties", "afresh")
"""What is changed after the first collapse, the second, the third. A run that was never healthy has
nothing to go back to: it starts afresh first."""

RATES_FACTOR = 0.7
"""What is left of the learning rates after such a change; a half cost more (docs/collapse.md)."""


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
    """The recipe `gan`. One round = `num_d_steps` times: G makes `num_generated` images, D trains
    on all fakes of the repository (without replay: on the new ones) and on as many reals. Then G
    trains once, on the images that it made last."""

    recipe: Literal["gan"] = "gan"
    preset: str
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    objective: Literal[
        "non_saturating", "hinge", "least_squares", "wasserstein", "relativistic"
    ] = "relativistic"
    num_generated: int = Field(32, ge=1, le=65_536)
    num_d_steps: int = Field(1, ge=1, le=16)
    """Steps of D in a round, each on other reals and on new fakes."""
    accumulate: int = Field(1, ge=1, le=256)
    """Each worker goes through its share of a step in so many micro-batches, one after the other,
    and adds their gradients up: the same result in the memory of one. With more than one G draws
    each of its pictures a second time when it trains."""
    precision: Precision = "float32"
    """`bfloat16`: G and D work with numbers of 16 bits (autocast), half the memory, for a device
    that is fast with them. What is published is float32."""
    balanced: bool = False
    """Each class is equally likely among the reals, however rare it is in the dataset."""
    optimizer_g: OptimizerConfig
    optimizer_d: OptimizerConfig
    penalties: PenaltyConfig = PenaltyConfig()
    augment: AugmentConfig = AugmentConfig()
    guide: GuideConfig = GuideConfig()
    text_noise: float = Field(0.1, ge=0, le=10)
    """With text: G trains on captions' vectors, whose entries are about 1, under normal noise of
    this size, so that what lies between captions can be drawn, too."""
    label_flip: float = Field(0.0, ge=0.0, lt=0.5)
    """Remedy 2: when G trains, each of its labels is 0 with this probability."""
    bootstrap: BootstrapConfig = BootstrapConfig()
    replay: ReplayConfig = ReplayConfig()
    ema_half_life_kimg: float = Field(11.0, ge=0)
    """Half-life of the moving average of G in kimg; 0: G itself is sampled and published."""
    standing_batches: int = Field(0, ge=0, le=1000)
    """Before a grid, and so before it is published, the norms of G_ema take their statistics from
    so many groups of its own pictures (Brock 2018); 0: their moving average."""
    kimg: float = Field(100.0, gt=0)
    """Length of the run in thousands of real images seen."""
    seed: int = Field(0, ge=0, lt=2**32)
    collapse: CollapseConfig = CollapseConfig()
    score: ScoreConfig = ScoreConfig()
    changes: list[Change] = Field(default_factory=list)
    """What recoveries have changed; after each, draws come from numbers of their own."""
    report_every_s: float = Field(1.0, gt=0)
    grid_every_kimg: float = Field(10.0, gt=0)
    checkpoint_every_kimg: float = Field(25.0, gt=0)

    def changed(self, change: Change) -> GanConfig:
        """The configuration with which the run goes on after a recovery.

        `rates`: learning rates times RATES_FACTOR. `penalties`: gradient penalties on reals and
        fakes doubled, at least 0.1. `afresh`: new networks, from orthogonal weights.
        """
        changes = {"changes": [*self.changes, change]}
        match change:
            case "rates":
                lowered = {
                    name: optimizer.model_copy(update={"lr": optimizer.lr * RATES_FACTOR})
                    for name, optimizer in (
                        ("optimizer_g", self.optimizer_g),
                        ("optimizer_d", self.optimizer_d),
                    )
                }
                return self.model_copy(update=changes | lowered)
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

    @property
    def _unit_d(self) -> int:
        """Images that a rank must hold together for D and for the guide."""
        contrasts = self.penalties.contrast_weight or self.guide.weight
        group = CONTRAST_GROUP if contrasts else 1
        return math.lcm(self.discriminator.unit, group)

    @property
    def images_per_round(self) -> int:
        """Reals in one round, over all ranks."""
        return self.num_fakes * self.num_d_steps

    @model_validator(mode="after")
    def _consistent(self) -> GanConfig:
        for clashes, problem in CLASHES:
            if clashes(self):
                raise ValueError(problem)
        if self.replay.enabled and self.replay.num_new > self.num_generated:
            raise ValueError(
                f"replay.num_new {self.replay.num_new} exceeds num_generated {self.num_generated}"
            )
        unit = self._unit_d
        if self.num_fakes % unit or self.num_generated % unit:
            raise ValueError(
                f"discriminator: groups of {unit} images must divide the batches of D and of G"
            )
        if self.num_generated % self.generator.unit:
            raise ValueError(
                f"norm_group {self.generator.norm_group} must divide num_generated "
                f"{self.num_generated}"
            )
        self.check_workers(1)
        return self

    def check_workers(self, workers: int) -> None:
        """Every rank must hold the same number of images, each of its micro-batches whole groups.

        Raises ValueError with the numbers that do not divide.
        """
        unit_d, micro = self._unit_d, self.accumulate
        for name, n, unit, parts in (
            ("num_generated", self.num_generated, math.lcm(unit_d, self.generator.unit), micro),
            ("fakes in a step of D", self.num_fakes, unit_d, micro),
            ("replay.num_new", self.replay.num_new if self.replay.enabled else workers, 1, 1),
        ):
            if n % (unit * parts * workers):
                raise ValueError(
                    f"{name} = {n} is not divisible by {unit} x {parts} x {workers} "
                    "(group x micro-batches x workers)"
                )


CLASHES: tuple[tuple[Callable[[GanConfig], object], str], ...] = (
    (
        lambda gan: (
            (gan.generator.size, gan.generator.channels)
            != (gan.discriminator.size, gan.discriminator.channels)
        ),
        "generator and discriminator differ in size or channels",
    ),
    (
        lambda gan: gan.label_flip and gan.objective != "non_saturating",
        "label_flip needs objective non_saturating: the others have no labels",
    ),
    (
        lambda gan: gan.objective == "relativistic" and gan.num_generated > gan.num_fakes,
        "objective relativistic pairs each new image with a real one",
    ),
    (
        lambda gan: gan.objective == "relativistic" and gan.penalties.lecam_weight,
        "penalties.lecam_weight needs another objective: relativistic logits have no mean",
    ),
    (
        lambda gan: (
            gan.objective == "wasserstein"
            and not gan.penalties.gradients
            and gan.discriminator.norm != "spectral"
        ),
        "objective wasserstein needs penalties.gp_weight (10) or discriminator.norm spectral",
    ),
    (
        lambda gan: gan.penalties.gradients and gan.discriminator.norm == "batch",
        "gradient penalties need discriminator.norm none or spectral: batch norm mixes images",
    ),
    (
        lambda gan: gan.standing_batches and not gan.generator.has_norms,
        "standing_batches needs a generator with norms",
    ),
    (
        lambda gan: gan.balanced and not gan.generator.num_classes,
        "balanced needs a recipe with classes",
    ),
    (
        lambda gan: gan.generator.text_dim != gan.discriminator.text_dim,
        "generator and discriminator differ in text_dim",
    ),
    (
        lambda gan: gan.generator.text_dim and gan.objective == "relativistic",
        "text needs another objective: a real picture under another's caption has no pair",
    ),
    (
        lambda gan: gan.penalties.matching_weight and not gan.generator.text_dim,
        "penalties.matching_weight needs a recipe with text",
    ),
    (
        lambda gan: gan.penalties.contrast_weight and not gan.generator.text_dim,
        "penalties.contrast_weight needs a recipe with text",
    ),
    (
        lambda gan: gan.guide.weight and not gan.generator.text_dim,
        "guide.weight needs a recipe with text",
    ),
)
"""What does not go together, and what to say of it."""
