"""What each kind of job is asked to do. Unknown keys are errors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from shared.ids import Name
from shared.schemas.datasets import DatasetManifest
from shared.schemas.jobs import JobKind
from shared.schemas.networks import MAX_SIZE, Frozen
from shared.schemas.presets import Scale, resolve_preset
from shared.schemas.recipes import GanConfig
from shared.text import MAX_PROMPT_CHARS

ModelRef = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}(@[a-z0-9][a-z0-9._-]{0,62})?$")
]
"""`name`, `name@version` or `name@alias`."""


Prompt = Annotated[str, StringConstraints(min_length=1, max_length=MAX_PROMPT_CHARS)]
"""What a picture shall show, in English."""


Features = Literal["yardstick", "inception"]


class IngestSpec(Frozen):
    """Make a dataset version from an upload."""

    dataset: Name
    upload_key: str = ""
    """The raw upload in object storage; set by the API."""
    filename: str = ""
    size: int | None = Field(None, ge=8, le=MAX_SIZE)
    """Side in pixels; without it the median side of the images, at most 64."""
    channels: Literal[1, 3] | None = None
    """Without it 3 if any image has colour, else 1."""
    fit: Literal["crop", "pad"] = "crop"
    """`crop`: scale the shorter side, cut the middle. `pad`: scale down if larger, pad black."""
    source: Annotated[str, StringConstraints(max_length=500)] = ""


class TrainSpec(Frozen):
    """Train a recipe on a dataset and publish the result under a model name."""

    recipe: Literal["gan"] = "gan"
    preset: str = "modern"
    scale: Scale = "small"
    """How wide the preset's networks are: half of small, or four times as wide."""
    dataset: Name
    dataset_version: str | None = None
    """Fixed by the API at the submit (or by the attempt, for a dataset that is still to come)."""
    model: Name
    kimg: float | None = Field(None, gt=0, le=1e6)
    workers: int = Field(1, ge=1, le=1024)
    seed: int = Field(0, ge=0, lt=2**32)
    config: dict[str, Any] = Field(default_factory=dict)
    """Overrides of the preset's values, nested by the names of the resolved configuration."""

    def overrides(self) -> dict[str, Any]:
        """`config` with the spec's own kimg and seed."""
        own = {"seed": self.seed} | ({"kimg": self.kimg} if self.kimg else {})
        return own | self.config

    def resolved(self, dataset: DatasetManifest) -> GanConfig:
        """The recipe's full configuration for a dataset.

        Raises:
            InvalidInput: a value does not fit the preset, the dataset or the number of workers.
        """
        return resolve_preset(
            self.preset,
            scale=self.scale,
            size=dataset.size,
            channels=dataset.channels,
            num_classes=dataset.num_classes,
            num_images=dataset.num_images,
            has_captions=dataset.has_captions,
            overrides=self.overrides(),
            workers=self.workers,
        )


class SampleSpec(Frozen):
    """Draw `n` pictures from a published model, in chunks."""

    model: ModelRef
    n: int = Field(ge=1, le=1_000_000)
    seed: int = Field(0, ge=0, lt=2**32)
    label: int | str | None = None
    """A class by number or name; without it the classes take turns."""
    prompt: Prompt | None = None
    """What a model with text shall draw; without it captions of its training take turns."""
    truncation: float = Field(1.0, gt=0, le=1)
    format: Literal["png", "webp"] = "png"


class EncodeSpec(Frozen):
    """Find, for pictures of a dataset, the z of which a published generator draws them best."""

    model: ModelRef
    dataset: Name
    dataset_version: str | None = None
    """Fixed by the API at the submit."""
    n: int = Field(256, ge=1, le=10_000)
    """Pictures, drawn from the seed; all, if the dataset has fewer. About 0.3 s each at 32 px."""
    seed: int = Field(0, ge=0, lt=2**32)


class EvaluateSpec(Frozen):
    """Score a published model's pictures against the pictures of a dataset."""

    model: ModelRef
    dataset: Name
    """The reference: pictures that the model should equal and, for a fair judgement, never saw."""
    dataset_version: str | None = None
    """Fixed by the API at the submit."""
    n: int = Field(10_000, ge=100, le=100_000)
    """Pictures that the model draws. Scores of different n do not compare."""
    seed: int = Field(0, ge=0, lt=2**32)
    features: Features = "yardstick"
    """The network in whose features sets are compared: a classifier that Elmyr trains on the
    model's dataset, or Inception-v3, whose weights the setting `inception_weights` names."""


Spec = IngestSpec | TrainSpec | SampleSpec | EncodeSpec | EvaluateSpec

SPECS: dict[JobKind, type[Spec]] = {
    JobKind.INGEST: IngestSpec,
    JobKind.TRAIN: TrainSpec,
    JobKind.SAMPLE: SampleSpec,
    JobKind.ENCODE: EncodeSpec,
    JobKind.EVALUATE: EvaluateSpec,
}

SAMPLE_CHUNK = 64
"""Images of a sampling job in one chunk: one batch of the generator."""
